// removed/<step>/<file>.jsonl.zst: a line for each document that a step has removed.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>

#include "src/corpus/run/document_chain.h"
#include "src/text/byte_sink.h"

namespace coppice {

/// {"id","source","rule","value"?,"threshold"?,<details>,"text"?}. Without any there is no file.
class RemovalFile {
 public:
  explicit RemovalFile(std::filesystem::path path) : path_(std::move(path)) {}
  void write(const Document& document, const Removed& removed, bool with_text);
  void commit();

 private:
  std::filesystem::path path_;
  std::unique_ptr<ByteSink> sink_;
};

}  // namespace coppice
