// The article of a page as Mozilla's Readability finds it: paragraphs vote for their ancestors, the best ancestor and
// what is like it beside it are the article, and what looks like lists of links, forms and buttons is cleaned out.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "src/text/html/page_measures.h"
#include "src/text/html/page_tree.h"

namespace coppice {

/// By node: whether its characters belong to the article. `title` is the page's: a heading that repeats it goes.
std::vector<uint8_t> reader_mode(const PageTree& tree, const PageMeasures& measures, std::string_view title);

}  // namespace coppice
