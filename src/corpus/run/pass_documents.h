// Documents between two passes: everything that a Document holds, in binary, zstd 1. They live as long as the run.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "src/text/byte_sink.h"
#include "src/text/documents.h"

namespace coppice {

class PassWriter {
 public:
  explicit PassWriter(const std::filesystem::path& path) : sink_(path, ByteSink::Coding::zstd, /*level=*/1) {}
  /// `number` is the document's place among those of the source file.
  void write(uint32_t number, const Document& document);
  void commit();  // appears by rename

 private:
  ByteSink sink_;
  std::string record_;
  uint64_t count_ = 0;
};

/// Calls `take` for every document in its order. UserError::bad_file for a file that is damaged or cut short.
/// `bytes_read`, where given, grows up to the size of the file.
void read_pass(const std::filesystem::path& path, const std::function<void(uint32_t number, Document&&)>& take,
               uint64_t* bytes_read = nullptr);

}  // namespace coppice
