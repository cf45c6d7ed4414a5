// safetensors, written and read with distrust: https://github.com/huggingface/safetensors (format section of its
// README).
//   u64 N | N bytes of JSON {"name":{"dtype","shape","data_offsets":[begin,end]},...} padded with spaces | tensor bytes
#include "src/checkpoint/safetensors.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/util/Half.h>
#include <c10/util/accumulate.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstddef>
#include <nlohmann/json.hpp>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/input_file.h"

namespace coppice {

namespace fs = std::filesystem;

namespace {

static_assert(std::endian::native == std::endian::little, "tensor bytes are written as they lie in memory");
const char* dtype_name(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return "F32";
    case at::kBFloat16:
      return "BF16";
    case at::kHalf:
      return "F16";
    default:
      throw InternalError(std::string("no safetensors type for ") + c10::toString(tensor.scalar_type()));
  }
}

/// Of a file that is read at many places at once.
class Descriptor {
 public:
  explicit Descriptor(const fs::path& path) : path_(path), descriptor_(open_for_reading(path)) {}
  ~Descriptor() { ::close(descriptor_); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  void read(uint64_t offset, void* into, size_t bytes, const std::string& tensor) const {
    for (auto* next = static_cast<char*>(into); bytes > 0;) {
      const ssize_t got = ::pread(descriptor_, next, bytes, static_cast<off_t>(offset));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) throw_unreadable(path_, "cannot be read", errno);
      if (got == 0)
        throw UserError::bad_file(path_.string(), fmt::format("tensor '{}' ends beyond the file", printable(tensor)));
      next += got, offset += static_cast<uint64_t>(got), bytes -= static_cast<size_t>(got);
    }
  }

 private:
  fs::path path_;
  int descriptor_;
};

constexpr int64_t kPiece = int64_t{1} << 16;  // values: 256 KiB

void from_bfloat16(const uint16_t* halves, float* values, int64_t count) {
  for (int64_t i = 0; i < count; ++i) values[i] = std::bit_cast<float>(uint32_t{halves[i]} << 16);
}

void from_float16(const uint16_t* halves, float* values, int64_t count) {
  for (int64_t i = 0; i < count; ++i) values[i] = c10::detail::fp16_ieee_to_fp32_value(halves[i]);
}

struct ReadableType {
  const char* name;
  uint64_t bytes;
  void (*convert)(const uint16_t* halves, float* values, int64_t count);  // null: float32 already
};
constexpr ReadableType kReadable[] = {{"F32", 4, nullptr}, {"BF16", 2, from_bfloat16}, {"F16", 2, from_float16}};

}  // namespace

void write_safetensors(const fs::path& path, const std::vector<SafetensorsTensor>& tensors) {
  std::vector<const SafetensorsTensor*> order;
  for (const SafetensorsTensor& tensor : tensors) {
    COPPICE_CHECK(tensor.value.defined() && tensor.value.is_contiguous() && tensor.value.device().is_cpu(),
                  tensor.name + ": contiguous on the CPU expected");
    order.push_back(&tensor);
  }
  std::ranges::sort(order, [](const SafetensorsTensor* a, const SafetensorsTensor* b) {
    const size_t a_size = a->value.element_size(), b_size = b->value.element_size();
    return a_size != b_size ? a_size > b_size : a->name < b->name;
  });
  nlohmann::ordered_json::object_t header;  // a list of pairs: appended, since its operator[] searches from the front
  header.emplace_back("__metadata__", nlohmann::ordered_json{{"format", "pt"}});
  uint64_t offset = 0;
  for (const SafetensorsTensor* tensor : order) {
    COPPICE_CHECK(header.back().first != tensor->name, tensor->name + " is written twice");
    const uint64_t end = offset + tensor->value.nbytes();
    const std::vector<int64_t> shape(tensor->value.sizes().begin(), tensor->value.sizes().end());
    header.emplace_back(tensor->name,
                        nlohmann::ordered_json{
                            {"dtype", dtype_name(tensor->value)}, {"shape", shape}, {"data_offsets", {offset, end}}});
    offset = end;
  }
  std::string text = nlohmann::ordered_json(std::move(header)).dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const auto word = std::bit_cast<std::array<char, 8>>(static_cast<uint64_t>(text.size()));

  OutputFile file(path, OutputFile::Mode::create);
  file.allocate(8 + text.size() + offset);
  file.write_at(0, std::as_bytes(std::span(word)));
  file.write_at(8, std::as_bytes(std::span(text)));
  uint64_t at = 8 + text.size();
  for (const SafetensorsTensor* tensor : order) {
    if (tensor->value.numel() > 0)
      file.write_at(at, {static_cast<const std::byte*>(tensor->value.const_data_ptr()), tensor->value.nbytes()});
    at += tensor->value.nbytes();
  }
  file.sync();
  file.close();
}

void read_safetensors_values(const fs::path& path, const SafetensorsEntry& entry, const TakeValues& take) {
  const auto type = std::ranges::find(kReadable, entry.dtype, &ReadableType::name);
  if (type == std::end(kReadable))
    throw UserError::bad_file(
        path.string(), fmt::format("tensor '{}' is {}, only F32, BF16 and F16 are read", entry.name, entry.dtype));
  const SafetensorsSizes header = safetensors_sizes(path);
  const uint64_t data = 8 + header.header_bytes;
  if (entry.begin > entry.end || entry.end > header.file_bytes - data)
    throw UserError::bad_file(path.string(), fmt::format("tensor '{}' ends beyond the file", entry.name));
  const auto size = static_cast<int64_t>((entry.end - entry.begin) / type->bytes);
  COPPICE_CHECK(c10::multiply_integers(entry.shape) == size, entry.name + ": entry of another file");
  const Descriptor file(path);
  at::parallel_for(0, (size + kPiece - 1) / kPiece, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> values(kPiece);
    std::vector<uint16_t> halves(type->convert == nullptr ? 0 : kPiece);
    for (int64_t first = begin * kPiece; first < std::min(end * kPiece, size); first += kPiece) {
      const int64_t count = std::min(kPiece, size - first);
      void* raw = type->convert == nullptr ? static_cast<void*>(values.data()) : halves.data();
      file.read(data + entry.begin + static_cast<uint64_t>(first) * type->bytes, raw,
                static_cast<size_t>(count) * type->bytes, entry.name);
      if (type->convert != nullptr) type->convert(halves.data(), values.data(), count);
      take(first, std::span(values).first(static_cast<size_t>(count)));
    }
  });
}

at::Tensor read_safetensors_tensor(const fs::path& path, const SafetensorsEntry& entry) {
  at::Tensor tensor = at::empty(entry.shape, at::kFloat);
  float* out = tensor.mutable_data_ptr<float>();
  read_safetensors_values(
      path, entry, [&](int64_t first, std::span<const float> values) { std::ranges::copy(values, out + first); });
  return tensor;
}

}  // namespace coppice
