// What a file's name says of its content; capitals are the same.
#pragma once

#include <filesystem>
#include <string_view>

#include "src/text/byte_source.h"

namespace coppice {

struct FileEnding {
  enum class Kind { text, lines, json };  // .txt; .jsonl and .ndjson; .json: an array, or one object a line
  std::string_view name;                  // ".jsonl.zst"
  Kind kind;
  ByteSource::Coding coding;
};

/// nullptr: none of them.
const FileEnding* ending_of(const std::filesystem::path& path);

}  // namespace coppice
