// Metadata of a GGUF file as values of ours, their types and ranges checked.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>

#include "src/base/errors.h"
#include "src/checkpoint/gguf_file.h"

namespace coppice {
namespace {

constexpr GgufTypeRow kTypes[] = {
    {"u8", 1},   {"i8", 1},     {"u16", 2},   {"i16", 2}, {"u32", 4}, {"i32", 4}, {"f32", 4},
    {"bool", 1}, {"string", 0}, {"array", 0}, {"u64", 8}, {"i64", 8}, {"f64", 8},
};
constexpr std::initializer_list<GgufType> kIntegers = {GgufType::u8,  GgufType::i8,  GgufType::u16, GgufType::i16,
                                                       GgufType::u32, GgufType::i32, GgufType::u64, GgufType::i64};

std::string type_text(const GgufValue& value) {
  if (value.type != GgufType::array) return gguf_type_row(value.type).name;
  return fmt::format("array of {} {}", value.count, gguf_type_row(value.element).name);
}

template <class T>
T number_in(std::string_view bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof(T));
  return value;
}

/// An integer of the file; nothing when it is negative.
std::optional<uint64_t> unsigned_in(GgufType type, std::string_view bytes) {
  const auto checked = [](int64_t value) {
    return value < 0 ? std::nullopt : std::optional(static_cast<uint64_t>(value));
  };
  switch (type) {
    case GgufType::u8:
      return number_in<uint8_t>(bytes);
    case GgufType::i8:
      return checked(number_in<int8_t>(bytes));
    case GgufType::u16:
      return number_in<uint16_t>(bytes);
    case GgufType::i16:
      return checked(number_in<int16_t>(bytes));
    case GgufType::u32:
      return number_in<uint32_t>(bytes);
    case GgufType::i32:
      return checked(number_in<int32_t>(bytes));
    case GgufType::u64:
      return number_in<uint64_t>(bytes);
    default:
      return checked(number_in<int64_t>(bytes));
  }
}

/// The number with the fewest digits that is this float: 1e-5 stays 1e-5, as in the config.json that it came from.
double shortest_double(float value) {
  double number = 0;
  const std::string text = fmt::format("{}", value);
  std::from_chars(text.data(), text.data() + text.size(), number);
  return std::isfinite(value) ? number : double{value};
}

}  // namespace

const GgufTypeRow& gguf_type_row(GgufType type) { return kTypes[static_cast<size_t>(type)]; }

const GgufValue* GgufFile::find(const std::string& key) const {
  const auto found = values_.find(key);
  return found == values_.end() ? nullptr : &found->second;
}

const GgufValue* GgufFile::find_typed(const std::string& key, std::initializer_list<GgufType> types,
                                      const char* expected) const {
  const GgufValue* value = find(key);
  if (value != nullptr && std::ranges::find(types, value->type) == types.end())
    refuse(fmt::format("{}: got {}, expected {}", key, type_text(*value), expected));
  return value;
}

const GgufValue* GgufFile::find_array(const std::string& key, std::initializer_list<GgufType> elements,
                                      const char* expected) const {
  const GgufValue* value = find_typed(key, {GgufType::array}, expected);
  if (value != nullptr && std::ranges::find(elements, value->element) == elements.end())
    refuse(fmt::format("{}: got {}, expected {}", key, type_text(*value), expected));
  return value;
}

std::optional<std::string> GgufFile::string_at(const std::string& key) const {
  const GgufValue* value = find_typed(key, {GgufType::string}, "a string");
  return value == nullptr ? std::nullopt : std::optional(std::string(value->bytes.substr(8)));
}

std::optional<bool> GgufFile::boolean_at(const std::string& key) const {
  const GgufValue* value = find_typed(key, {GgufType::boolean}, "a bool");
  return value == nullptr ? std::nullopt : std::optional(value->bytes[0] != 0);
}

std::optional<uint64_t> GgufFile::unsigned_at(const std::string& key, uint64_t max) const {
  const GgufValue* value = find_typed(key, kIntegers, "an integer");
  if (value == nullptr) return std::nullopt;
  const std::optional<uint64_t> number = unsigned_in(value->type, value->bytes);
  if (!number || *number > max)
    refuse(
        fmt::format("{}: got {}, expected 0 to {}", key, number ? std::to_string(*number) : "a negative number", max));
  return number;
}

std::optional<double> GgufFile::number_at(const std::string& key) const {
  const GgufValue* value = find_typed(key, {GgufType::f32, GgufType::f64}, "f32");
  if (value == nullptr) return std::nullopt;
  const double number =
      value->type == GgufType::f32 ? shortest_double(number_in<float>(value->bytes)) : number_in<double>(value->bytes);
  if (!std::isfinite(number)) refuse(fmt::format("{}: is not finite", key));
  return number;
}

std::optional<std::vector<std::string>> GgufFile::strings_at(const std::string& key) const {
  const GgufValue* value = find_array(key, {GgufType::string}, "an array of strings");
  if (value == nullptr) return std::nullopt;
  std::vector<std::string> strings;
  strings.reserve(value->count);
  for (std::string_view rest = value->bytes; !rest.empty();) {
    const auto length = number_in<uint64_t>(rest);
    strings.emplace_back(rest.substr(8, length));
    rest.remove_prefix(8 + length);
  }
  return strings;
}

std::optional<std::vector<float>> GgufFile::floats_at(const std::string& key) const {
  const GgufValue* value = find_array(key, {GgufType::f32}, "an array of f32");
  if (value == nullptr) return std::nullopt;
  std::vector<float> floats(value->count);
  if (!floats.empty()) std::memcpy(floats.data(), value->bytes.data(), value->bytes.size());
  if (!std::ranges::all_of(floats, [](float number) { return std::isfinite(number); }))
    refuse(fmt::format("{}: holds numbers that are not finite", key));
  return floats;
}

std::optional<std::vector<int64_t>> GgufFile::unsigned_list_at(const std::string& key, uint64_t max) const {
  const GgufValue* value = find_array(key, kIntegers, "an array of integers");
  if (value == nullptr) return std::nullopt;
  std::vector<int64_t> numbers;
  numbers.reserve(value->count);
  const uint64_t size = gguf_type_row(value->element).bytes;
  for (uint64_t i = 0; i < value->count; ++i) {
    const std::optional<uint64_t> number = unsigned_in(value->element, value->bytes.substr(i * size, size));
    if (!number || *number > max)
      refuse(fmt::format("{}: element {} is {}, expected 0 to {}", key, i,
                         number ? std::to_string(*number) : "negative", max));
    numbers.push_back(static_cast<int64_t>(*number));
  }
  return numbers;
}

}  // namespace coppice
