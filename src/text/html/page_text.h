// The article of a web page as text, by two readers over one tree: reader mode for pages made of nested elements, the
// block classifier for those that are not (arXiv 2602.19548 on what each of them loses).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "src/text/html/page_metadata.h"
#include "src/text/html/page_tree.h"

namespace coppice {

enum class PageJoin {
  reader_or_boilerpipe,  // the reader's, unless it is shorter than 0.3 of the other's
  reader,
  boilerpipe,
  intersection,  // text that both have, in the order of the page
  all,           // text that one of them has
};
/// By its name in recipes, where the last one is `union`; nothing for another name.
std::optional<PageJoin> find_page_join(std::string_view name);

struct PageOptions {
  PageJoin join = PageJoin::reader_or_boilerpipe;
  bool comments = false;  // what readers wrote below the page
  bool formulas = true;   // as TeX between $ signs
  bool respects_opt_out = true;
  PageLimits limits = {};
};

struct PageText {
  std::string text;  // without the title, composed (NFC) as that is; "" when there is a refusal
  PageMetadata metadata;
  uint64_t chars = 0;     // of the text: code points
  uint64_t replaced = 0;  // U+FFFD in it: what had been no character
  Refusal refusal = Refusal::none;
};

/// Reads a page of any bytes; nothing in it makes this throw. Linear in its size; what is still not ready after
/// limits.seconds is refused.
PageText extract_page(std::string_view html_utf8, const PageOptions& options = {});

/// The same text by each reader alone: for those who take the first that passes their filters.
struct PageTexts {
  PageText reader, boilerpipe;
};
PageTexts extract_page_by_both(std::string_view html_utf8, const PageOptions& options = {});

}  // namespace coppice
