#include "src/text/document_record.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "src/base/errors.h"
#include "src/text/byte_source.h"
#include "src/text/text_encoding.h"

namespace coppice {

namespace {

namespace ondemand = simdjson::ondemand;

constexpr int kMaxDepth = 64;

std::string_view trimmed(std::string_view token) {
  const size_t end = token.find_last_not_of(" \t\r\n");
  return end == std::string_view::npos ? std::string_view() : token.substr(0, end + 1);
}

/// Numbers of any size, and those that Python and others write beside JSON: NaN, Infinity, -inf.
bool is_any_number(std::string_view token) {
  double ignored = 0;
  const auto [end, error] = std::from_chars(token.data(), token.data() + token.size(), ignored);
  return error != std::errc::invalid_argument && end == token.data() + token.size();
}

/// Walks a value that is not kept: brackets must match, words must be some, depth is limited.
void check_value(ondemand::value value, int depth) {
  if (depth > kMaxDepth) throw simdjson::simdjson_error(simdjson::DEPTH_ERROR);
  ondemand::json_type type = ondemand::json_type::number;
  if (value.type().get(type) == simdjson::SUCCESS) {
    if (type == ondemand::json_type::array) {
      for (ondemand::value element : value.get_array()) check_value(element, depth + 1);
      return;
    }
    if (type == ondemand::json_type::object) {
      for (auto field : value.get_object()) check_value(field.value(), depth + 1);
      return;
    }
    if (type == ondemand::json_type::string) {  // taken, or a colon behind it would make a name of it, in an array too
      (void)value.get_raw_json_string().value();
      return;
    }
  }
  const std::string_view token = trimmed(value.raw_json_token());
  if (token != "true" && token != "false" && token != "null" && !is_any_number(token))
    throw BadRecord(fmt::format("bad JSON: '{}' is no value", printable(token.substr(0, 40))));
}

void set_once(bool& seen, std::string_view name) {
  if (seen) throw BadRecord(fmt::format("\"{}\" occurs twice", printable(name)));
  seen = true;
}

std::string string_of(ondemand::value value, std::string_view name) {
  switch (value.type()) {
    case ondemand::json_type::string:
      break;
    case ondemand::json_type::null:
      throw BadRecord(fmt::format("\"{}\" is null", printable(name)));
    default:
      throw BadRecord(fmt::format("\"{}\" is no string", printable(name)));
  }
  std::string_view text;
  if (value.get_string().get(text) == simdjson::SUCCESS) return std::string(text);
  throw BadRecord(
      fmt::format("\"{}\" holds half of a surrogate pair or an escape that JSON does not have", printable(name)));
}

/// A number as it is written, so that 7 and "7" are one id: whoever refers to it has only text.
std::string id_of(ondemand::value value) {
  switch (value.type()) {
    case ondemand::json_type::null:
      return {};
    case ondemand::json_type::number: {
      const std::string token(trimmed(value.raw_json_token()));
      (void)double(value.get_double());
      return token;
    }
    case ondemand::json_type::string:
      return string_of(value, "id");
    default:
      throw BadRecord("\"id\" is neither a string nor a number");
  }
}

bool is_string(ondemand::value value) { return value.type() == ondemand::json_type::string; }

/// The place of a member in its record: the quote that opens its name. Before the name is read.
template <class Field>
const char* begin_of(Field& field) {
  return field.key().value().raw() - 1;
}

/// Numbers by name, or false and none of them.
bool take_scores(ondemand::value value, std::vector<Score>& scores) {
  bool all = true;
  for (auto field : value.get_object()) {
    std::string_view name;
    const bool readable = field.unescaped_key().get(name) == simdjson::SUCCESS;
    ondemand::value entry = field.value();
    double score = 0;
    if (readable && entry.get_double().get(score) == simdjson::SUCCESS) {
      scores.push_back({std::string(name), score});
    } else {
      check_value(entry, 4);
      all = false;
    }
  }
  if (!all) scores.clear();
  return all;
}

/// The member [begin, end) behind those that are there; line ends between its parts become blanks.
void append_member(std::string& members, const char* begin, const char* end) {
  while (std::string_view(" \t\r\n").find(end[-1]) != std::string_view::npos) --end;
  if (!members.empty()) members += ',';
  const size_t at = members.size();
  members.append(begin, end);
  std::replace_if(
      members.begin() + static_cast<std::ptrdiff_t>(at), members.end(), [](char c) { return c == '\n' || c == '\r'; },
      ' ');
}

}  // namespace

/// A member that nobody reads: checked, and kept where members are.
void RecordParser::pass_over(const char* begin, ondemand::value value, int depth, std::string& members) {
  const std::string_view token = value.raw_json_token();  // of an array or object its first sign
  const bool nested = token.starts_with('[') || token.starts_with('{');
  check_value(value, depth);
  if (!keep_fields_) return;
  append_member(members, begin, nested ? document_.current_location().value() : token.data() + token.size());
}

void RecordParser::read_metadata(ondemand::value value, Document& document) {
  for (auto entry : value.get_object()) {
    const char* const begin = begin_of(entry);
    std::string_view name;
    const bool readable = entry.unescaped_key().get(name) == simdjson::SUCCESS;
    ondemand::value field = entry.value();
    if (readable && name == "license" && is_string(field)) {
      document.license = string_of(field, "license");
    } else if (keep_fields_ && readable && name == "scores" && field.type() == ondemand::json_type::object) {
      if (!take_scores(field, document.scores))
        append_member(document.metadata, begin, document_.current_location().value());
    } else {
      pass_over(begin, field, 3, document.metadata);
    }
  }
}

Document RecordParser::read(std::string_view record) {
  document_ = parser_.iterate(record.data(), record.size(), record.size() + LineReader::kPadding);
  if (document_.type() != ondemand::json_type::object)
    throw BadRecord("expected one JSON object on the line (an array of documents belongs into a file ending in .json)");
  Document document;
  bool has_text = false, has_id = false, has_source = false, has_metadata = false;
  for (auto field : document_.get_object()) {
    const char* const begin = begin_of(field);
    std::string_view key;  // a name that cannot be read is none of ours
    const bool readable = field.unescaped_key().get(key) == simdjson::SUCCESS;
    ondemand::value value = field.value();
    if (readable && key == text_key_) {
      set_once(has_text, text_key_);
      document.text = string_of(value, text_key_);
    } else if (readable && key == "id") {
      set_once(has_id, "id");
      document.id = id_of(value);
    } else if (readable && key == "source") {
      set_once(has_source, "source");
      if (is_string(value))
        document.source = string_of(value, "source");
      else
        pass_over(begin, value, 2, document.metadata);
    } else if (readable && key == "metadata" && value.type() == ondemand::json_type::object) {
      set_once(has_metadata, "metadata");
      read_metadata(value, document);
    } else {  // among metadata, where its name would meet one that is written
      const bool is_taken = readable && (key == "metadata" || key == "text");
      pass_over(begin, value, 2, is_taken ? document.metadata : document.fields);
    }
  }
  if (document_.current_location().error() != simdjson::OUT_OF_BOUNDS) throw BadRecord("text after the JSON object");
  if (!has_text) throw BadRecord(fmt::format("no field \"{}\"{}", printable(text_key_), names_in(record)));
  return document;
}

/// ` among "content", "url" (text_key names the field that holds the text)`: of a record that was read to its end.
std::string RecordParser::names_in(std::string_view record) {
  constexpr int kNames = 6;
  ondemand::document json = parser_.iterate(record.data(), record.size(), record.size() + LineReader::kPadding);
  std::string names;
  int count = 0;
  for (auto field : json.get_object()) {
    std::string_view name;
    if (field.unescaped_key().get(name) != simdjson::SUCCESS) continue;
    if (++count <= kNames) names += fmt::format("{}\"{}\"", names.empty() ? "" : ", ", printable(name.substr(0, 40)));
  }
  return names.empty() ? ""
                       : fmt::format(" among {}{} ({} names the field that holds the text)", names,
                                     count > kNames ? ", ..." : "", text_option_);
}

Document RecordParser::parse(std::string_view record) {
  try {
    return read(record);
  } catch (const simdjson::simdjson_error& error) {
    if (error.error() != simdjson::UTF8_ERROR) throw BadRecord(fmt::format("bad JSON: {}", error.what()));
    throw BadRecord(fmt::format(
        "byte {} is not valid UTF-8{}", valid_utf8_bytes(record) + 1,
        narrow_encoding(record) != nullptr ? " (the line seems to be Latin-1, Windows-1252 or the like)" : ""));
  }
}

}  // namespace coppice
