// The article of a page by the shallow features of its blocks (Kohlschuetter, Fankhauser, Nejdl: "Boilerplate Detection
// using Shallow Text Features", WSDM 2010): how many words a block has, how many of them are links, and the same of the
// blocks before and behind it.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "src/text/html/page_measures.h"
#include "src/text/html/page_tree.h"

namespace coppice {

/// By node: whether its characters belong to the article.
std::vector<uint8_t> boilerpipe(const PageTree& tree, const PageMeasures& measures, std::string_view title);

}  // namespace coppice
