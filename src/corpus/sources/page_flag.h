// Pages among JSON lines: "is_page" opens the fields of a document whose text is HTML, so that a converted crawl is
// still known for what it is.
#pragma once

#include "src/text/documents.h"

namespace coppice {

inline constexpr std::string_view kPageField = "\"is_page\":true";

/// Into the fields of a document that is_page, before it is written.
inline void put_page_flag(Document& document) {
  if (document.is_page)
    document.fields = std::string(kPageField) + (document.fields.empty() ? "" : ",") + document.fields;
}

/// Out of them again, after it was read.
inline void take_page_flag(Document& document) {
  std::string& fields = document.fields;
  if (!fields.starts_with(kPageField) || (fields.size() > kPageField.size() && fields[kPageField.size()] != ','))
    return;
  document.is_page = true;
  fields.erase(0, kPageField.size() + (fields.size() > kPageField.size()));
}

}  // namespace coppice
