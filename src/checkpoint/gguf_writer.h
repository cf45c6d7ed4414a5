// Writing a GGUF file: metadata and the list of tensors first, then their bytes one after the other, so that no more
// than a piece of one is held. The file is written under the name given; whoever writes commits it by rename.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "src/base/files.h"
#include "src/checkpoint/gguf_file.h"

namespace coppice {

class GgufWriter {
 public:
  // Metadata, in the order in which it shall stand; InternalError for a key that stands already.
  void add(const std::string& key, std::string_view value);
  void add(const std::string& key, bool value);
  void add(const std::string& key, uint32_t value);
  void add(const std::string& key, float value);
  void add(const std::string& key, std::span<const std::string> values);
  void add(const std::string& key, std::span<const float> values);
  void add(const std::string& key, std::span<const int32_t> values);
  void add(const std::string& key, std::span<const uint32_t> values);
  /// shape is row-major, its last size whole blocks of the type.
  void add_tensor(const std::string& name, const std::vector<int64_t>& shape, GgmlType type);

  /// Reserves the whole file (a full disk stops here) and writes its header. IoError.
  void start(const std::filesystem::path& path);
  /// The next bytes of the tensors, in the order of add_tensor(); a tensor may come in several pieces.
  void write(std::span<const std::byte> bytes);
  /// Syncs and closes; returns the file's size. InternalError unless every byte has come.
  uint64_t finish();

 private:
  struct Tensor {
    std::string name;
    std::vector<int64_t> shape;
    GgmlType type;
    uint64_t offset, bytes;  // within the data
  };
  void add_key(const std::string& key, GgufType type);
  template <class T>
  void add_number(const std::string& key, GgufType type, T value);
  template <class T>
  void add_list(const std::string& key, GgufType type, std::span<const T> values);

  std::vector<std::string> keys_;
  std::string pairs_;
  std::vector<Tensor> tensors_;
  std::optional<OutputFile> file_;
  uint64_t data_ = 0, end_ = 0;  // where the tensors begin; where the padded last one ends
  size_t tensor_ = 0;            // that the next byte belongs to
  uint64_t written_ = 0;         // bytes of it
};

}  // namespace coppice
