// Documents out: JSON lines, committed by rename.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>

#include "src/text/documents.h"

namespace coppice {

/// Writes documents as lines of JSON, plain into a .jsonl and zstd otherwise: {"id","source","text",<fields>,
/// "metadata":{"license",<metadata>,"scores"?}}. What a reader has kept of a line comes out as it went in.
class DocumentWriter {
 public:
  explicit DocumentWriter(std::filesystem::path path);
  ~DocumentWriter();
  void write(const Document& document);
  void commit();  // renames into place
  uint64_t text_bytes() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace coppice
