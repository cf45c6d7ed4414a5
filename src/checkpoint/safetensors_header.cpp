#include "src/checkpoint/safetensors_header.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <system_error>
#include <tuple>

#include "src/base/checked.h"
#include "src/base/errors.h"
#include "src/base/json.h"

namespace coppice {

namespace fs = std::filesystem;

namespace {

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

SafetensorsSizes safetensors_sizes(const fs::path& path) {
  const OpenFile file = open_checked(path);
  return {.file_bytes = file.file_bytes, .header_bytes = file.header_bytes};
}

}  // namespace coppice
