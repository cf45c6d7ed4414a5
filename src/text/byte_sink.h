// Bytes as a stream into a plain or zstd file (with content checksums) that appears by rename. ByteSource reads it
// back, however often its content repeats itself.
#pragma once

#include <filesystem>
#include <memory>
#include <string_view>

namespace coppice {

class ByteSink {
 public:
  enum class Coding { plain, zstd };
  /// `level` of zstd: 3 for what stays, 1 for what lives an hour.
  ByteSink(std::filesystem::path path, Coding coding, int level = 3);
  ~ByteSink();  // without commit(): nothing is left
  void write(std::string_view bytes);
  void commit();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace coppice
