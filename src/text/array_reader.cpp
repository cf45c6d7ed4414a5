#include "src/text/array_reader.h"

#include <fmt/format.h>

#include <algorithm>

#include "src/base/errors.h"

namespace coppice {

namespace {

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

}  // namespace

JsonLayout json_layout(const std::filesystem::path& path, ByteSource::Coding coding) {
  ByteSource source(path, coding);
  std::string_view bytes = source.next();
  if (bytes.starts_with(kByteOrderMark)) bytes.remove_prefix(kByteOrderMark.size());
  const size_t first = std::min(bytes.find_first_not_of(" \t\r\n"), bytes.size());
  bytes.remove_prefix(first);
  if (bytes.starts_with('[')) return JsonLayout::array;
  if (!bytes.starts_with('{')) return JsonLayout::lines;
  const size_t second = bytes.find_first_not_of(" \t\r", 1);
  return second != std::string_view::npos && bytes[second] == '\n' ? JsonLayout::object : JsonLayout::lines;
}

ArrayReader::ArrayReader(std::filesystem::path path, ByteSource::Coding coding, uint64_t max_element_bytes)
    : path_(path), source_(std::move(path), coding), max_element_bytes_(max_element_bytes) {}

void ArrayReader::fail(const std::string& message) const {
  throw UserError::bad_file(fmt::format("{}:{}", path_.string(), line_), message);
}

char ArrayReader::look() {
  while (place_ == buffer_.size() && !at_end_) {
    buffer_.erase(0, begin_);
    place_ -= begin_;
    begin_ = 0;
    const std::string_view block = source_.next();
    at_end_ = block.empty();
    if (buffer_.capacity() < buffer_.size() + block.size() + LineReader::kPadding)
      buffer_.reserve(2 * (buffer_.size() + block.size()) + LineReader::kPadding);
    buffer_.append(block);
  }
  return place_ < buffer_.size() ? buffer_[place_] : '\0';
}

void ArrayReader::skip_blanks(bool commas) {
  for (char c = look(); is_blank(c) || (commas && c == ','); c = look()) {
    line_ += c == '\n';
    begin_ = ++place_;
  }
}

bool ArrayReader::next(std::string_view& element) {
  if (!inside_) {
    if (look() != '\0' && std::string_view(buffer_).starts_with(kByteOrderMark))
      begin_ = place_ = kByteOrderMark.size();
    skip_blanks(false);
    if (look() != '[') fail("expected an array of documents");
    begin_ = ++place_;
    inside_ = true;
  }
  skip_blanks(true);
  element_line_ = line_;
  if (look() == ']') {
    begin_ = ++place_;
    skip_blanks(false);
    if (look() != '\0' || !at_end_) fail("text after the array of documents");
    return false;
  }
  too_long_ = false;
  bool in_string = false;
  uint64_t depth = 0;
  for (bool ended = false; !ended; ++place_) {
    const char c = look();
    if (at_end_ && place_ == buffer_.size())
      fail(
          fmt::format("the array of documents does not end: it is cut off, or a quote or bracket is missing in the "
                      "document of line {}",
                      element_line_));
    line_ += c == '\n';
    if (in_string) {
      in_string = c != '"';
      if (c == '\\') {
        ++place_;
        if (look() == '\n') ++line_;
        if (at_end_ && place_ == buffer_.size()) --place_;
      }
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      ++depth;
    } else if (depth > 0 && (c == '}' || c == ']')) {
      ended = --depth == 0;
    } else if (depth == 0 && (c == ',' || c == ']')) {  // behind a word or a number
      break;
    }
    if (place_ - begin_ > max_element_bytes_) {
      too_long_ = true;
      begin_ = place_;
    }
  }
  buffer_.reserve(buffer_.size() + LineReader::kPadding);
  element = too_long_ ? std::string_view() : std::string_view(buffer_).substr(begin_, place_ - begin_);
  begin_ = place_;
  return true;
}

}  // namespace coppice
