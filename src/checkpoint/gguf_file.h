// A GGUF file, read with distrust and without torch: mapped, its header walked once, every number checked against the
// bytes that exist before it is believed. Metadata and tensors stay views into the mapping.
//   "GGUF" | u32 version | u64 tensors | u64 pairs | pairs: key, u32 type, value | tensors: name, u32 dims, u64 ne[],
//   u32 type, u64 offset | padding to the alignment | tensor bytes, each padded
// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "src/checkpoint/ggml_types.h"

namespace coppice {

/// Types of metadata values; the numbers are the file's.
enum class GgufType : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };

struct GgufTypeRow {
  const char* name;
  uint64_t bytes;  // 0: not fixed
};
const GgufTypeRow& gguf_type_row(GgufType type);

struct GgufValue {
  GgufType type = GgufType::u8;
  GgufType element = GgufType::u8;  // of an array
  uint64_t count = 1;               // elements of an array
  std::string_view bytes;           // of the value; strings with their lengths
};

struct GgufTensor {
  std::string name;
  std::vector<int64_t> shape;      // row-major: [out, in]
  uint32_t type = 0;               // find_ggml_type() has a row for it
  uint64_t offset = 0, bytes = 0;  // within the file
};

class GgufFile {
 public:
  /// Maps the file and checks its header: every rule of gguf_file.cpp, UserError::bad_file naming the broken one.
  explicit GgufFile(const std::filesystem::path& path);
  /// The same over bytes that stay where they are, `where` for messages.
  GgufFile(std::span<const std::byte> bytes, std::string where);
  ~GgufFile();
  GgufFile(const GgufFile&) = delete;
  GgufFile& operator=(const GgufFile&) = delete;

  const std::string& where() const { return where_; }

  // Metadata (gguf_values.cpp). Nothing where the key is absent; UserError::bad_file where its type or range is
  // another.
  bool has(const std::string& key) const { return values_.contains(key); }
  const GgufValue* find(const std::string& key) const;
  std::optional<std::string> string_at(const std::string& key) const;
  std::optional<bool> boolean_at(const std::string& key) const;
  /// Any integer type, 0 to max.
  std::optional<uint64_t> unsigned_at(const std::string& key, uint64_t max) const;
  /// f32 (as the shortest decimal number that is it) or f64; finite.
  std::optional<double> number_at(const std::string& key) const;
  std::optional<std::vector<std::string>> strings_at(const std::string& key) const;
  std::optional<std::vector<float>> floats_at(const std::string& key) const;
  /// An array of any integer type, each 0 to max.
  std::optional<std::vector<int64_t>> unsigned_list_at(const std::string& key, uint64_t max) const;
  const std::unordered_map<std::string, GgufValue>& values() const { return values_; }

  const std::vector<GgufTensor>& tensors() const { return tensors_; }  // in the file's order
  const GgufTensor* find_tensor(const std::string& name) const;
  std::span<const std::byte> bytes_of(const GgufTensor& tensor) const {
    return bytes_.subspan(tensor.offset, tensor.bytes);
  }
  /// Gives back the memory of a tensor's pages once it has been read; they can be read again.
  void drop(const GgufTensor& tensor) const;

 private:
  void read_header();
  [[noreturn]] void refuse(const std::string& message) const;
  const GgufValue* find_typed(const std::string& key, std::initializer_list<GgufType> types,
                              const char* expected) const;
  const GgufValue* find_array(const std::string& key, std::initializer_list<GgufType> elements,
                              const char* expected) const;

  std::string where_;
  std::span<const std::byte> bytes_;
  void* mapping_ = nullptr;
  std::unordered_map<std::string, GgufValue> values_;
  std::vector<GgufTensor> tensors_;
  std::unordered_map<std::string, size_t> index_;  // name -> tensor
};

}  // namespace coppice
