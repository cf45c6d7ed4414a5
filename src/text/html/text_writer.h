// The selected text of a page as a person would type it: paragraphs, lists, tables, preformatted text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "src/text/html/page_tree.h"

namespace coppice {

/// Blocks by LF, paragraphs by an empty line, items of lists by "- ", cells of tables by `cell`, <pre> verbatim, all
/// other runs of white space one blank. `selected` is by node: of texts and formulas; only what lies below `root` is
/// written.
std::string write_text(const PageTree& tree, const std::vector<uint8_t>& selected, std::string_view cell = " | ",
                       uint32_t root = 0);

/// In Unicode's normal form C. `text` is valid UTF-8.
std::string composed(std::string text);

}  // namespace coppice
