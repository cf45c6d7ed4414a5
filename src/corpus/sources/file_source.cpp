// Files that are one document each: pages, texts, and source code as it stands.
#include <fmt/format.h>
#include <simdjson.h>

#include <nlohmann/json.hpp>

#include "src/base/errors.h"
#include "src/corpus/sources/reading.h"
#include "src/corpus/sources/source_kinds.h"
#include "src/text/charset.h"
#include "src/text/document_metadata.h"
#include "src/text/text_encoding.h"

namespace coppice {

namespace {

/// Everything, or nothing for more than the limit.
std::optional<std::string> whole(const SourceFile& file, uint64_t max_bytes) {
  ByteSource bytes(file.path, coding_of(file.path));
  std::string text;
  for (std::string_view block; !(block = bytes.next()).empty();) {
    if (text.size() + block.size() > max_bytes) return std::nullopt;
    text.append(block);
  }
  return text;
}

/// Of a text: by where its zeros are, UTF-8 where it is valid, CP1252 where it is mostly ASCII; nullptr: not to be
/// told.
const char* charset_of_text(std::string_view bytes) {
  if (const char* wide = wide_encoding(bytes)) return wide;
  if (simdjson::validate_utf8(bytes.data(), bytes.size())) return "UTF-8";
  const char* narrow = narrow_encoding(bytes);
  return narrow != nullptr && std::string_view(narrow) == "WINDOWS-1252" ? "CP1252" : nullptr;
}

void read_document(SourceReading& reading, const SourceFile& file) {
  constexpr size_t kLook = 8192;
  reading.begin_record();
  std::optional<std::string> bytes;
  try {
    bytes = whole(file, reading.limits.max_document_bytes);
  } catch (const UserError& error) {
    return reading.damage("cut short", 0, error.what());
  }
  if (!bytes)
    return reading.damage("too long", 0,
                          fmt::format("{} is longer than {} bytes", file.name, reading.limits.max_document_bytes));
  const bool is_page = file.kind == "html";
  const char* charset = is_page ? charset_of_page(*bytes, "") : charset_of_text(*bytes);
  if (charset == nullptr)
    return reading.damage("invalid UTF-8", valid_utf8_bytes(*bytes), file.name + " is not valid UTF-8");
  Document document;
  document.id = file.name;
  document.file = std::make_shared<const std::string>(file.name);
  document.is_page = is_page;
  document.text = decode_text(*bytes, charset).text;
  if (document.text.substr(0, kLook).find('\0') != std::string::npos) return reading.pass("binary");
  if (file.kind == "code") set_metadata(document, "path", file.name.substr(reading.source.name.size() + 1));
  reading.take(std::move(document));
}

}  // namespace

void read_file_source(SourceReading& reading) {
  if (reading.file.members.empty()) {
    read_document(reading, reading.file);
    return reading.set_bytes_read(stored_bytes(reading.file));
  }
  uint64_t bytes = 0;
  for (const SourceFile& member : reading.file.members) {
    read_document(reading, member);
    reading.set_bytes_read(bytes += stored_bytes(member));
  }
}

}  // namespace coppice
