// One JSON object to a document.
// What nobody reads is looked at only as far as it takes to find its end: NaN, Infinity, 1e999, lone surrogates and
// escapes of no meaning do no harm there. Where fields are kept, it is kept as it stands.
#pragma once

#include <simdjson.h>

#include <stdexcept>
#include <string>
#include <string_view>

#include "src/text/documents.h"

namespace coppice {

/// Why a record is no document.
struct BadRecord : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class RecordParser {
 public:
  /// `text_option`: how messages call what names the field of the text.
  explicit RecordParser(std::string text_key, bool keep_fields = false, std::string text_option = "text_key")
      : text_key_(std::move(text_key)), text_option_(std::move(text_option)), keep_fields_(keep_fields) {}
  /// Behind the record lie LineReader::kPadding readable bytes. Throws BadRecord. An id may be a string or a number
  /// (kept as it is written); null stands for none.
  Document parse(std::string_view record);

 private:
  Document read(std::string_view record);
  void read_metadata(simdjson::ondemand::value value, Document& document);
  void pass_over(const char* begin, simdjson::ondemand::value value, int depth, std::string& members);
  std::string names_in(std::string_view record);

  std::string text_key_, text_option_;
  bool keep_fields_;
  simdjson::ondemand::parser parser_;
  simdjson::ondemand::document document_;  // the record at hand
};

}  // namespace coppice
