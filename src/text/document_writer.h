// Documents out: JSON lines, committed by rename.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>

#include "src/text/documents.h"

namespace coppice {

/// Writes documents as lines of JSON, plain in a .jsonl and zstd otherwise:
/// {"id","source","text","metadata":{"license"}}; commit() renames into place.
class DocumentWriter {
 public:
  explicit DocumentWriter(std::filesystem::path path);
  ~DocumentWriter();
  void write(const Document& document);
  void commit();
  uint64_t text_bytes() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace coppice
