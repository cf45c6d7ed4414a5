// Members of a document's "metadata" that steps write and read: url, date, language, copies, pii.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "src/base/json.h"
#include "src/text/documents.h"

namespace coppice {

/// Replaces or appends one member of document.metadata.
void set_metadata(Document& document, std::string_view name, const Json& value);
/// A member of document.metadata (read with keep_fields), or nothing.
std::optional<Json> find_metadata(const Document& document, std::string_view name);
/// The same where it is a string; "" otherwise.
std::string metadata_text(const Document& document, std::string_view name);

}  // namespace coppice
