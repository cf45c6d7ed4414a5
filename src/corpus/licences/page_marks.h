// What a page says of its own use: its licence, and whether robots and miners are welcome.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "src/base/json.h"
#include "src/text/documents.h"

namespace coppice {

struct PageMarks {
  std::vector<std::string> licences;  // SPDX ids, each once, in the order of the page; several: ambiguous
  std::string robots;                 // contents of <meta name="robots">, with `; ` between several
  std::string tdm_reservation;        // content of <meta name="tdm-reservation">
};

/// Of rel="license" links anywhere, Creative Commons addresses in the head, in a footer and in the last fifth of the
/// page, and <meta>. One pass over the tags.
PageMarks find_page_marks(std::string_view html);

/// How metadata.page_license holds them: a string, or a list of several.
Json page_license_json(const std::vector<std::string>& licences);

/// Into the metadata of what becomes of a page, where the steps licences and opt_out look when its markup is gone:
/// page_license, robots, tdm_reservation, each where the page says it. A reservation of the server's stays.
void keep_page_marks(const PageMarks& marks, Document& document);

}  // namespace coppice
