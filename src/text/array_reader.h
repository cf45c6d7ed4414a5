// The elements of one JSON array as a stream, in bounded memory: cut out by brackets and quotes alone, to be parsed by
// somebody else.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "src/text/byte_source.h"

namespace coppice {

/// How a .json file holds its documents, by its first bytes.
enum class JsonLayout { array, lines, object };  // object: one, over several lines
JsonLayout json_layout(const std::filesystem::path& path, ByteSource::Coding coding);

/// Of a file of layout `array`. UserError::bad_file when the array does not end or something follows it: what is torn
/// there tears everything behind it.
class ArrayReader {
 public:
  ArrayReader(std::filesystem::path path, ByteSource::Coding coding, uint64_t max_element_bytes);
  /// False at the end. The element is valid until the next call and is followed by LineReader::kPadding readable bytes.
  bool next(std::string_view& element);
  uint64_t line_number() const { return element_line_; }  // where the element begins
  bool too_long() const { return too_long_; }             // the element was passed over and is empty
  uint64_t bytes_read() const { return source_.bytes_read(); }

 private:
  /// The byte at place_, 0 at the end of the file.
  char look();
  void skip_blanks(bool commas);
  [[noreturn]] void fail(const std::string& message) const;

  std::filesystem::path path_;
  ByteSource source_;
  uint64_t max_element_bytes_;
  uint64_t line_ = 1, element_line_ = 0;
  bool too_long_ = false, inside_ = false, at_end_ = false;
  std::string buffer_;
  size_t begin_ = 0, place_ = 0;  // bytes before begin_ are no longer needed
};

}  // namespace coppice
