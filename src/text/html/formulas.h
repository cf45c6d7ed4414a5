// Formulas of a page as TeX: from MathML, from what MathJax and KaTeX read and draw, and from pictures of formulas.
#pragma once

#include "src/text/html/page_tree.h"

namespace coppice {

/// Makes every element that shows a formula a leaf with Tag::formula whose text is $...$, or $$...$$ for one on a line
/// of its own, and one without text of what draws the same formula once more. What stands between \( \), \[ \] or $$ in
/// the text is left alone.
void keep_formulas(PageTree& tree);

}  // namespace coppice
