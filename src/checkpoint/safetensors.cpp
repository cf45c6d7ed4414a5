// safetensors, written and read with distrust: https://github.com/huggingface/safetensors (format section of its
// README).
//   u64 N | N bytes of JSON {"name":{"dtype","shape","data_offsets":[begin,end]},...} padded with spaces | tensor bytes
#include "src/checkpoint/safetensors.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <system_error>
#include <tuple>

#include "src/base/checked.h"
#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/json.h"

namespace coppice {

namespace fs = std::filesystem;

namespace {

static_assert(std::endian::native == std::endian::little, "tensor bytes are written as they lie in memory");
constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr size_t kMaxNameBytes = 512;

struct DtypeRow {
  const char* name;
  uint64_t bits;
};
// All types of the format: sizes are checked for each, values are read for the three that models here use.
constexpr DtypeRow kDtypes[] = {{"BOOL", 8}, {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},
                                {"I8", 8},   {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"I16", 16},
                                {"U16", 16}, {"F16", 16},    {"BF16", 16},   {"I32", 32},    {"U32", 32},
                                {"F32", 32}, {"C64", 64},    {"F64", 64},    {"I64", 64},    {"U64", 64}};

uint64_t bits_of(const std::string& dtype, const std::string& tensor, const std::string& path) {
  for (const DtypeRow& row : kDtypes)
    if (dtype == row.name) return row.bits;
  throw UserError::bad_file(path, fmt::format("tensor '{}': unknown dtype '{}'", printable(tensor), printable(dtype)));
}

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

/// A list of exactly `count` (0 = any) unsigned 64-bit integers.
std::vector<uint64_t> unsigned_list(const Json& object, const char* key, size_t count, const std::string& tensor,
                                    const std::string& path) {
  const auto found = object.find(key);
  const auto is_unsigned = [](const Json& value) { return value.is_number_unsigned(); };
  if (found == object.end() || !found->is_array() || (count != 0 && found->size() != count) ||
      !std::ranges::all_of(*found, is_unsigned))
    throw UserError::bad_file(
        path, fmt::format("tensor '{}': {} must be a list of non-negative 64-bit integers", printable(tensor), key));
  return found->get<std::vector<uint64_t>>();
}

void check_name(const std::string& name, const std::string& path) {
  if (name.empty() || name.size() >= kMaxNameBytes || printable(name) != name)
    throw UserError::bad_file(path, fmt::format("tensor name '{}' is empty, not printable or not below {} bytes",
                                                printable(name.substr(0, 80)), kMaxNameBytes));
}

SafetensorsEntry read_entry(const std::string& name, const Json& value, const std::string& path) {
  check_name(name, path);
  if (!value.is_object()) throw UserError::bad_file(path, fmt::format("tensor '{}': an object expected", name));
  for (const auto& [key, ignored] : value.items())
    if (key != "dtype" && key != "shape" && key != "data_offsets")
      throw UserError::bad_file(path, fmt::format("tensor '{}': unknown key '{}'", name, printable(key)));
  SafetensorsEntry entry{.name = name, .dtype = string_at(value, "dtype", path), .shape = {}};
  uint64_t bits = bits_of(entry.dtype, name, path);
  for (const uint64_t size : unsigned_list(value, "shape", 0, name, path)) {
    if (size > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
      throw UserError::bad_file(path, fmt::format("tensor '{}': dimension {} is absurd", name, size));
    bits = checked_multiply(bits, size, path);
    entry.shape.push_back(static_cast<int64_t>(size));
  }
  const std::vector<uint64_t> offsets = unsigned_list(value, "data_offsets", 2, name, path);
  entry.begin = offsets[0], entry.end = offsets[1];
  if (bits % 8 != 0)
    throw UserError::bad_file(path, fmt::format("tensor '{}': {} bits are no whole bytes", name, bits));
  if (entry.begin > entry.end || entry.end - entry.begin != bits / 8)
    throw UserError::bad_file(path, fmt::format("tensor '{}': data_offsets [{}, {}], expected {} bytes for its shape",
                                                name, entry.begin, entry.end, bits / 8));
  return entry;
}

void check_metadata(const Json& metadata, const std::string& path) {
  const bool strings =
      metadata.is_object() && std::ranges::all_of(metadata, [](const Json& value) { return value.is_string(); });
  if (!strings) throw UserError::bad_file(path, "__metadata__ must map names to strings");
}

struct OpenFile {
  std::ifstream stream;
  uint64_t file_bytes = 0, header_bytes = 0;
};

/// Check 1: the size word against the bytes that exist, before anything is allocated.
OpenFile open_checked(const fs::path& path) {
  std::error_code error;
  if (!fs::is_regular_file(path, error)) throw UserError::bad_file(path.string(), "no such regular file");
  OpenFile file{.stream = std::ifstream(path, std::ios::binary), .file_bytes = fs::file_size(path, error)};
  if (error || !file.stream) throw UserError::bad_file(path.string(), "cannot be opened");
  if (file.file_bytes < 8)
    throw UserError::bad_file(path.string(),
                              fmt::format("{} bytes, a safetensors file has at least 8", file.file_bytes));
  std::array<char, 8> word;
  if (!file.stream.read(word.data(), word.size())) throw UserError::bad_file(path.string(), "cannot be read");
  file.header_bytes = std::bit_cast<uint64_t>(word);
  if (file.header_bytes > kMaxHeaderBytes)
    throw UserError::bad_file(
        path.string(), fmt::format("header of {} bytes, at most {} allowed", file.header_bytes, kMaxHeaderBytes));
  if (file.header_bytes > file.file_bytes - 8)
    throw UserError::bad_file(
        path.string(), fmt::format("header of {} bytes in a file of {} bytes", file.header_bytes, file.file_bytes));
  return file;
}

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

std::vector<SafetensorsEntry> read_safetensors_header(const fs::path& path) {
  const std::string where = path.string();
  OpenFile file = open_checked(path);  // (1)
  std::string text(file.header_bytes, '\0');
  if (!file.stream.read(text.data(), static_cast<std::streamsize>(text.size())))
    throw UserError::bad_file(where, "the header cannot be read");
  const Json header = parse_json(text, where);  // (2) UTF-8, JSON; duplicate keys and depth
  if (!header.is_object()) throw UserError::bad_file(where, "the header is no JSON object");  // (3)
  std::vector<SafetensorsEntry> entries;
  for (const auto& [name, value] : header.items()) {
    if (name == "__metadata__")
      check_metadata(value, where);
    else
      entries.push_back(read_entry(name, value, where));  // (4), (7)
  }
  std::ranges::sort(entries,
                    [](const auto& a, const auto& b) { return std::tie(a.begin, a.end) < std::tie(b.begin, b.end); });
  uint64_t end = 0;
  for (const SafetensorsEntry& entry : entries) {  // (5)
    if (entry.begin != end)
      throw UserError::bad_file(where, fmt::format("tensor '{}' starts at {}, expected {} ({})", entry.name,
                                                   entry.begin, end, entry.begin < end ? "overlap" : "hole"));
    end = entry.end;
  }
  const uint64_t expected = checked_add(checked_add(8, file.header_bytes, where), end, where);  // (6)
  if (expected != file.file_bytes)
    throw UserError::bad_file(where, fmt::format("{} bytes, expected {} by its header", file.file_bytes, expected));
  return entries;
}

at::Tensor read_safetensors_tensor(const fs::path& path, const SafetensorsEntry& entry) {
  at::ScalarType type;
  if (entry.dtype == "F32")
    type = at::kFloat;
  else if (entry.dtype == "BF16")
    type = at::kBFloat16;
  else if (entry.dtype == "F16")
    type = at::kHalf;
  else
    throw UserError::bad_file(
        path.string(), fmt::format("tensor '{}' is {}, only F32, BF16 and F16 are read", entry.name, entry.dtype));
  OpenFile file = open_checked(path);
  const uint64_t data = 8 + file.header_bytes;
  if (entry.end > file.file_bytes - data)
    throw UserError::bad_file(path.string(), fmt::format("tensor '{}' ends beyond the file", entry.name));
  const at::Tensor raw = at::empty(entry.shape, type);
  COPPICE_CHECK(raw.nbytes() == entry.end - entry.begin, entry.name + ": entry of another file");
  file.stream.seekg(static_cast<std::streamoff>(data + entry.begin));
  if (raw.nbytes() > 0 &&
      !file.stream.read(static_cast<char*>(raw.mutable_data_ptr()), static_cast<std::streamsize>(raw.nbytes())))
    throw UserError::bad_file(path.string(), fmt::format("tensor '{}' cannot be read", entry.name));
  return raw.to(at::kFloat);
}

}  // namespace coppice
