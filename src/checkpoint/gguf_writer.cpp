#include "src/checkpoint/gguf_writer.h"

#include <algorithm>

#include "src/base/errors.h"

namespace coppice {
namespace {

constexpr uint64_t kAlignment = 32;
constexpr uint32_t kVersion = 3;

template <class T>
void append(std::string& bytes, T value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof(T));
}
void append_text(std::string& bytes, std::string_view text) {
  append<uint64_t>(bytes, text.size());
  bytes.append(text);
}
uint64_t padded(uint64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

void GgufWriter::add_key(const std::string& key, GgufType type) {
  COPPICE_CHECK(std::ranges::find(keys_, key) == keys_.end(), key + " is added twice");
  keys_.push_back(key);
  append_text(pairs_, key);
  append(pairs_, static_cast<uint32_t>(type));
}

template <class T>
void GgufWriter::add_number(const std::string& key, GgufType type, T value) {
  add_key(key, type);
  append(pairs_, value);
}

template <class T>
void GgufWriter::add_list(const std::string& key, GgufType type, std::span<const T> values) {
  add_key(key, GgufType::array);
  append(pairs_, static_cast<uint32_t>(type));
  append<uint64_t>(pairs_, values.size());
  pairs_.append(reinterpret_cast<const char*>(values.data()), values.size_bytes());
}

void GgufWriter::add(const std::string& key, std::string_view value) {
  add_key(key, GgufType::string);
  append_text(pairs_, value);
}
void GgufWriter::add(const std::string& key, bool value) { add_number<uint8_t>(key, GgufType::boolean, value ? 1 : 0); }
void GgufWriter::add(const std::string& key, uint32_t value) { add_number(key, GgufType::u32, value); }
void GgufWriter::add(const std::string& key, float value) { add_number(key, GgufType::f32, value); }
void GgufWriter::add(const std::string& key, std::span<const std::string> values) {
  add_key(key, GgufType::array);
  append(pairs_, static_cast<uint32_t>(GgufType::string));
  append<uint64_t>(pairs_, values.size());
  for (const std::string& value : values) append_text(pairs_, value);
}
void GgufWriter::add(const std::string& key, std::span<const float> values) { add_list(key, GgufType::f32, values); }
void GgufWriter::add(const std::string& key, std::span<const int32_t> values) { add_list(key, GgufType::i32, values); }
void GgufWriter::add(const std::string& key, std::span<const uint32_t> values) { add_list(key, GgufType::u32, values); }

void GgufWriter::add_tensor(const std::string& name, const std::vector<int64_t>& shape, GgmlType type) {
  const GgmlTypeRow& row = ggml_type_row(type);
  uint64_t elements = 1;
  for (const int64_t size : shape) elements *= static_cast<uint64_t>(size);
  COPPICE_CHECK(!shape.empty() && shape.back() % row.elements == 0, name + ": rows of no whole blocks");
  const uint64_t offset = tensors_.empty() ? 0 : padded(tensors_.back().offset + tensors_.back().bytes);
  tensors_.push_back({name, shape, type, offset, elements / row.elements * row.bytes});
}

void GgufWriter::start(const std::filesystem::path& path) {
  std::string header = "GGUF";
  append(header, kVersion);
  append<uint64_t>(header, tensors_.size());
  append<uint64_t>(header, keys_.size());
  header += pairs_;
  for (const Tensor& tensor : tensors_) {
    append_text(header, tensor.name);
    append(header, static_cast<uint32_t>(tensor.shape.size()));
    for (size_t axis = tensor.shape.size(); axis-- > 0;) append(header, static_cast<uint64_t>(tensor.shape[axis]));
    append(header, static_cast<uint32_t>(tensor.type));
    append(header, tensor.offset);
  }
  header.resize(padded(header.size()), '\0');
  data_ = header.size();
  end_ = tensors_.empty() ? data_ : data_ + padded(tensors_.back().offset + tensors_.back().bytes);
  file_.emplace(path, OutputFile::Mode::create);
  file_->allocate(end_);  // zeros, the padding among them
  file_->write_at(0, std::as_bytes(std::span(header)));
}

void GgufWriter::write(std::span<const std::byte> bytes) {
  COPPICE_CHECK(file_.has_value() && tensor_ < tensors_.size(), "bytes of no tensor");
  const Tensor& tensor = tensors_[tensor_];
  COPPICE_CHECK(bytes.size() <= tensor.bytes - written_, tensor.name + ": more bytes than it has");
  file_->write_at(data_ + tensor.offset + written_, bytes);
  written_ += bytes.size();
  if (written_ == tensor.bytes) ++tensor_, written_ = 0;
}

uint64_t GgufWriter::finish() {
  COPPICE_CHECK(file_.has_value() && tensor_ == tensors_.size(), "tensors without bytes");
  file_->sync();
  file_->close();
  return end_;
}

}  // namespace coppice
