// JSON lines and arrays: as for_each_document() reads them, with damage counted by reason and a file without documents
// allowed, which a step may well have left.
#include <fmt/format.h>

#include <array>
#include <utility>

#include "src/base/errors.h"
#include "src/corpus/sources/page_flag.h"
#include "src/corpus/sources/reading.h"
#include "src/corpus/sources/source_kinds.h"
#include "src/text/array_reader.h"
#include "src/text/byte_source.h"
#include "src/text/document_record.h"
#include "src/text/text_encoding.h"

namespace coppice {

namespace {

/// The reason behind what a RecordParser says.
std::string reason_of(std::string_view message) {
  constexpr std::array<std::pair<std::string_view, const char*>, 5> kReasons = {
      {{"is not valid UTF-8", "invalid UTF-8"},
       {"no field", "no text"},
       {"is null", "no text"},
       {"is no string", "no text"},
       {"\"id\" is", "bad id"}}};
  for (const auto& [part, reason] : kReasons)
    if (message.find(part) != std::string_view::npos) return reason;
  return "no JSON";
}

/// False at the end, and where the packed data is damaged and that is allowed.
template <class Records>
bool next_record(SourceReading& reading, Records& records, std::string_view& record) {
  try {
    return records.next(record);
  } catch (const UserError& error) {
    if (reading.limits.max_bad_share < 1) throw;
    reading.begin_record();
    reading.damage("cut short", records.line_number() + 1, error.what());
    return false;
  }
}

template <class Records>
void read_records(SourceReading& reading, Records records) {
  RecordParser parser(reading.source.text, /*keep_fields=*/true, reading.source.text_option);
  for (std::string_view record; !reading.is_hopeless() && next_record(reading, records, record);) {
    reading.set_bytes_read(records.bytes_read());
    const uint64_t line = records.line_number();
    if (line == 1 && record.starts_with(kByteOrderMark)) record.remove_prefix(kByteOrderMark.size());
    if (line == 1)
      if (const char* encoding = wide_encoding(record))
        throw UserError::bad_file(reading.file.path.string(),
                                  "is not UTF-8 and " + encoding_advice(encoding, reading.file.path));
    if (!records.too_long() && record.find_first_not_of(" \t") == std::string_view::npos) continue;
    reading.begin_record();
    if (records.too_long()) {
      reading.damage("too long", line, fmt::format("is longer than {} bytes", reading.limits.max_document_bytes));
      continue;
    }
    try {
      Document document = parser.parse(record);
      document.line = line;
      take_page_flag(document);
      reading.take(std::move(document));
    } catch (const BadRecord& error) {
      reading.damage(reason_of(error.what()), line, error.what());
    }
  }
}

}  // namespace

void read_json_source(SourceReading& reading) {
  const std::filesystem::path& path = reading.file.path;
  const ByteSource::Coding coding = coding_of(path);
  const uint64_t limit = reading.limits.max_document_bytes;
  std::filesystem::path inner = path.filename();
  if (coding != ByteSource::Coding::plain) inner = inner.stem();
  const JsonLayout layout = inner.extension() == ".json" ? json_layout(path, coding) : JsonLayout::lines;
  if (layout == JsonLayout::object)
    throw UserError::bad_file(path.string(),
                              "is one JSON object over several lines; expected an array of documents, or one a line");
  if (layout == JsonLayout::array)
    read_records(reading, ArrayReader(path, coding, limit));
  else
    read_records(reading, LineReader(path, coding, limit, LineReader::LongLines::pass_over));
}

}  // namespace coppice
