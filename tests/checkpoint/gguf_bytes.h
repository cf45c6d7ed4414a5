// GGUF files put together field by field, so that each field can be wrong.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace coppice::test {

template <class T>
std::string raw(T value) {
  std::string bytes(sizeof(T), '\0');
  std::memcpy(bytes.data(), &value, sizeof(T));
  return bytes;
}
inline std::string text(std::string_view value) { return raw<uint64_t>(value.size()) + std::string(value); }
/// A pair of any type; `value` are its bytes.
inline std::string pair(std::string_view key, uint32_t type, const std::string& value) {
  return text(key) + raw(type) + value;
}
inline std::string pair_u32(std::string_view key, uint32_t value) { return pair(key, 4, raw(value)); }
inline std::string pair_f32(std::string_view key, float value) { return pair(key, 6, raw(value)); }
inline std::string pair_bool(std::string_view key, bool value) {
  return pair(key, 7, value ? "\1" : std::string(1, '\0'));
}
inline std::string pair_text(std::string_view key, std::string_view value) { return pair(key, 8, text(value)); }
inline std::string array(uint32_t element, uint64_t count, const std::string& values) {
  return raw(element) + raw(count) + values;
}
inline std::string pair_texts(std::string_view key, const std::vector<std::string>& values) {
  std::string bytes;
  for (const std::string& value : values) bytes += text(value);
  return pair(key, 9, array(8, values.size(), bytes));
}
template <class T>
std::string pair_list(std::string_view key, uint32_t element, const std::vector<T>& values) {
  std::string bytes;
  for (const T value : values) bytes += raw(value);
  return pair(key, 9, array(element, values.size(), bytes));
}
/// ne[0] (the length of a row) first.
inline std::string tensor(std::string_view name, const std::vector<uint64_t>& ne, uint32_t type, uint64_t offset) {
  std::string bytes = text(name) + raw<uint32_t>(static_cast<uint32_t>(ne.size()));
  for (const uint64_t size : ne) bytes += raw(size);
  return bytes + raw(type) + raw(offset);
}

struct GgufBytes {
  std::string magic = "GGUF";
  uint32_t version = 3;
  std::vector<std::string> pairs = {}, tensors = {};
  std::string data = {};
  size_t alignment = 32;

  std::string bytes() const { return bytes(tensors.size(), pairs.size()); }
  std::string bytes(uint64_t num_tensors, uint64_t num_pairs) const {
    std::string all = magic + raw(version) + raw(num_tensors) + raw(num_pairs);
    for (const std::string& pair : pairs) all += pair;
    for (const std::string& tensor : tensors) all += tensor;
    while (all.size() % alignment != 0) all += '\0';
    return all + data;
  }
};

}  // namespace coppice::test
