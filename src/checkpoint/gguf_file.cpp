// Rules, in the order of the file: magic; version 2 or 3; counts that the bytes can hold; keys not empty and unique;
// types known; strings and arrays within the file; one file, not a part of several; alignment a power of two; names of
// tensors below 64 bytes and unique; at most 4 dimensions, their product below 2^63; rows of whole blocks; offsets that
// follow each other; every byte of every tensor inside.
#include "src/checkpoint/gguf_file.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>

#include "src/base/checked.h"
#include "src/base/errors.h"
#include "src/base/input_file.h"

namespace coppice {

namespace fs = std::filesystem;

namespace {

static_assert(std::endian::native == std::endian::little, "numbers are read as they lie in the file");
constexpr uint64_t kMaxPairs = 65536, kMaxTensors = 65536;
constexpr uint64_t kMaxString = uint64_t{1} << 30, kMaxArray = uint64_t{1} << 30, kMaxStrings = uint64_t{1} << 24;
constexpr uint64_t kMaxKey = 65535, kMaxTensorName = 63, kMaxDims = 4;
constexpr uint32_t kNumTypes = static_cast<uint32_t>(GgufType::f64) + 1;
constexpr uint64_t kPairBytes = 8 + 1 + 4 + 1, kTensorBytes = 8 + 1 + 4 + 4 + 8;  // the least that one takes
constexpr uint64_t kDefaultAlignment = 32, kMaxAlignment = uint64_t{1} << 20;

template <class T>
T number_in(std::string_view bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof(T));
  return value;
}

/// Walks the header; what it hands out lies in the file.
class Walk {
 public:
  Walk(std::span<const std::byte> bytes, const std::string& where)
      : all_(reinterpret_cast<const char*>(bytes.data()), bytes.size()), where_(where) {}

  uint64_t at() const { return at_; }
  uint64_t left() const { return all_.size() - at_; }

  std::string_view take(uint64_t bytes, const char* what) {
    if (bytes > left())
      throw UserError::bad_file(
          where_, fmt::format("{} at byte {}: {} bytes, {} are left in the file", what, at_, bytes, left()));
    const std::string_view taken = all_.substr(at_, bytes);
    at_ += bytes;
    return taken;
  }
  template <class T>
  T number(const char* what) {
    return number_in<T>(take(sizeof(T), what));
  }
  std::string_view string(const char* what, uint64_t max) {
    const auto length = number<uint64_t>(what);
    if (length > max)
      throw UserError::bad_file(
          where_, fmt::format("{} at byte {}: length {}, at most {} allowed", what, at_ - 8, length, max));
    return take(length, what);
  }

  GgufValue value(const std::string& key) {
    GgufValue value;
    value.type = type(key);
    if (value.type != GgufType::array) {
      value.bytes = elements(key, value.type, 1);
      return value;
    }
    value.element = type(key);
    if (value.element == GgufType::array)
      throw UserError::bad_file(where_, fmt::format("key '{}': an array of arrays, none is allowed", printable(key)));
    value.count = number<uint64_t>("an array's length");
    if (const uint64_t max = value.element == GgufType::string ? kMaxStrings : kMaxArray; value.count > max)
      throw UserError::bad_file(
          where_, fmt::format("key '{}': an array of {}, at most {} allowed", printable(key), value.count, max));
    value.bytes = elements(key, value.element, value.count);
    return value;
  }

 private:
  GgufType type(const std::string& key) {
    const auto number = this->number<uint32_t>("the type of a value");
    if (number >= kNumTypes)
      throw UserError::bad_file(
          where_, fmt::format("key '{}': value type {}, 0 to {} are known", printable(key), number, kNumTypes - 1));
    return static_cast<GgufType>(number);
  }
  std::string_view elements(const std::string& key, GgufType type, uint64_t count) {
    const uint64_t begin = at_;
    if (type != GgufType::string) {
      const std::string_view bytes = take(checked_multiply(count, gguf_type_row(type).bytes, where_), "a value");
      const bool booleans =
          type != GgufType::boolean || std::ranges::all_of(bytes, [](char c) { return c == 0 || c == 1; });
      if (!booleans)
        throw UserError::bad_file(where_, fmt::format("key '{}': a bool that is neither 0 nor 1", printable(key)));
      return bytes;
    }
    if (count > left() / 8)
      throw UserError::bad_file(
          where_, fmt::format("key '{}': {} strings, {} bytes are left in the file", printable(key), count, left()));
    for (uint64_t i = 0; i < count; ++i) string("a string", kMaxString);
    return all_.substr(begin, at_ - begin);
  }

  std::string_view all_;
  const std::string& where_;
  uint64_t at_ = 0;
};

/// Magic, version, counts.
std::pair<uint64_t, uint64_t> read_counts(Walk& walk, const std::string& where) {
  if (const std::string_view magic = walk.take(4, "the magic"); magic != "GGUF")
    throw UserError::bad_file(where, fmt::format("starts with '{}', expected 'GGUF'", printable(magic)));
  const auto version = walk.number<uint32_t>("the version");
  if ((version & 0xFFFFU) == 0 && version != 0)
    throw UserError::bad_file(where, "a big-endian GGUF file; only little-endian ones are read");
  if (version < 2 || version > 3)
    throw UserError::bad_file(where, fmt::format("GGUF version {}, 2 and 3 are read", version));
  const auto tensors = walk.number<uint64_t>("the number of tensors");
  const auto pairs = walk.number<uint64_t>("the number of pairs");
  if (pairs > kMaxPairs || pairs > walk.left() / kPairBytes)
    throw UserError::bad_file(
        where, fmt::format("{} metadata pairs: at most {} are read, and {} bytes are left in the file", pairs,
                           kMaxPairs, walk.left()));
  if (tensors > kMaxTensors || tensors > walk.left() / kTensorBytes)
    throw UserError::bad_file(where, fmt::format("{} tensors: at most {} are read, and {} bytes are left in the file",
                                                 tensors, kMaxTensors, walk.left()));
  return {tensors, pairs};
}

/// Name, shape, type and size; `offset` as the file says it.
GgufTensor read_tensor(Walk& walk, const std::string& where) {
  GgufTensor tensor;
  tensor.name = walk.string("the name of a tensor", kMaxTensorName);
  const std::string name = printable(tensor.name);
  if (tensor.name.empty() || name != tensor.name)
    throw UserError::bad_file(where, fmt::format("tensor name '{}' is empty or not printable", name));
  const auto dims = walk.number<uint32_t>("the dimensions of a tensor");
  if (dims < 1 || dims > kMaxDims)
    throw UserError::bad_file(where, fmt::format("tensor '{}': {} dimensions, expected 1 to {}", name, dims, kMaxDims));
  uint64_t elements = 1;
  for (uint32_t i = 0; i < dims; ++i) {
    const auto size = walk.number<uint64_t>("a dimension");
    elements = checked_multiply(elements, size, where);
    if (size > uint64_t{std::numeric_limits<int64_t>::max()} ||
        elements > uint64_t{std::numeric_limits<int64_t>::max()})
      throw UserError::bad_file(where,
                                fmt::format("tensor '{}': dimension {} of {} elements is absurd", name, i, size));
    tensor.shape.insert(tensor.shape.begin(), static_cast<int64_t>(size));
  }
  tensor.type = walk.number<uint32_t>("the type of a tensor");
  const GgmlTypeRow* type = find_ggml_type(tensor.type);
  if (type == nullptr)
    throw UserError::bad_file(
        where, fmt::format("tensor '{}': type {} is not known; {}", name, tensor.type, read_ggml_types()));
  if (tensor.shape.back() % type->elements != 0)
    throw UserError::bad_file(where, fmt::format("tensor '{}': rows of {} elements, {} has blocks of {}", name,
                                                 tensor.shape.back(), type->name, type->elements));
  tensor.bytes = checked_multiply(elements / type->elements, type->bytes, where);
  tensor.offset = walk.number<uint64_t>("the offset of a tensor");
  return tensor;
}

}  // namespace

GgufFile::GgufFile(const fs::path& path) : where_(path.string()) {
  struct Closer {
    int descriptor;
    ~Closer() { ::close(descriptor); }
  } file{open_for_reading(path)};
  struct stat info = {};
  if (::fstat(file.descriptor, &info) != 0) throw_unreadable(path, "cannot be looked at", errno);
  const auto size = static_cast<size_t>(info.st_size);
  if (size == 0) refuse("is empty, expected a GGUF file");
  mapping_ = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.descriptor, 0);
  if (mapping_ == MAP_FAILED) {
    mapping_ = nullptr;
    throw_unreadable(path, "cannot be mapped", errno);
  }
  bytes_ = {static_cast<const std::byte*>(mapping_), size};
  try {
    read_header();
  } catch (...) {
    ::munmap(mapping_, size);
    throw;
  }
}

GgufFile::GgufFile(std::span<const std::byte> bytes, std::string where) : where_(std::move(where)), bytes_(bytes) {
  read_header();
}

GgufFile::~GgufFile() {
  if (mapping_ != nullptr) ::munmap(mapping_, bytes_.size());
}

void GgufFile::refuse(const std::string& message) const { throw UserError::bad_file(where_, message); }

void GgufFile::read_header() {
  Walk walk(bytes_, where_);
  const auto [num_tensors, num_pairs] = read_counts(walk, where_);
  for (uint64_t i = 0; i < num_pairs; ++i) {
    const std::string key(walk.string("a key", kMaxKey));
    if (key.empty()) refuse(fmt::format("the key of pair {} is empty", i));
    const GgufValue value = walk.value(key);
    if (!values_.emplace(key, value).second) refuse(fmt::format("key '{}' stands twice", printable(key)));
  }
  if (const auto count = unsigned_at("split.count", 65535); count.value_or(0) > 1)
    refuse(fmt::format("is one of {} files of a split model: merge them first (llama-gguf-split --merge FIRST OUT)",
                       *count));
  uint64_t alignment = kDefaultAlignment;
  if (const GgufValue* value = find_typed("general.alignment", {GgufType::u32}, "u32"); value != nullptr) {
    alignment = number_in<uint32_t>(value->bytes);
    if (!std::has_single_bit(alignment) || alignment > kMaxAlignment)
      refuse(fmt::format("general.alignment: got {}, expected a power of two up to {}", alignment, kMaxAlignment));
  }
  for (uint64_t i = 0; i < num_tensors; ++i) {
    GgufTensor tensor = read_tensor(walk, where_);
    if (!index_.emplace(tensor.name, i).second) refuse(fmt::format("tensor '{}' stands twice", tensor.name));
    tensors_.push_back(std::move(tensor));
  }
  const uint64_t data = checked_round_up(walk.at(), alignment, where_);
  uint64_t offset = 0;
  for (GgufTensor& tensor : tensors_) {
    if (tensor.offset != offset)
      refuse(fmt::format("tensor '{}': offset {}, expected {} behind the one before it", tensor.name, tensor.offset,
                         offset));
    tensor.offset = checked_add(data, offset, where_);
    if (const uint64_t end = checked_add(tensor.offset, tensor.bytes, where_); end > bytes_.size())
      refuse(fmt::format("tensor '{}' ends at byte {}, the file has {}", tensor.name, end, bytes_.size()));
    offset = checked_add(offset, checked_round_up(tensor.bytes, alignment, where_), where_);
  }
}

const GgufTensor* GgufFile::find_tensor(const std::string& name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

void GgufFile::drop(const GgufTensor& tensor) const {
  if (mapping_ == nullptr) return;
  const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  const uint64_t begin = tensor.offset / page * page;
  ::madvise(static_cast<char*>(mapping_) + begin, tensor.offset + tensor.bytes - begin, MADV_DONTNEED);
}

}  // namespace coppice
