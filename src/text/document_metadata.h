// Members of a document that steps write and read: url, date, language, copies, pii. What they write is in "metadata";
// what a record brings along may stand there or beside its text.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include "src/base/json.h"
#include "src/text/documents.h"

namespace coppice {

/// Replaces or appends one member of document.metadata; the others stay as they are written.
void set_metadata(Document& document, std::string_view name, const Json& value);
/// A member of document.metadata (read with keep_fields), or nothing; nor for NaN and 1e400, which JSON does not have.
std::optional<Json> find_metadata(const Document& document, std::string_view name);
/// The same where it is a string; "" otherwise.
std::string metadata_text(const Document& document, std::string_view name);

/// What a record says under the first of the names that it has: in its metadata, or else beside its text, where others'
/// JSON lines have url, date and license. Members that are null are not there.
std::optional<Json> find_member(const Document& document, std::initializer_list<std::string_view> names);
/// The first string that stands there under the name and is not empty; "" where there is none.
std::string member_text(const Document& document, std::string_view name);

}  // namespace coppice
