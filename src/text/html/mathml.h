// MathML that comes without TeX.
#pragma once

#include <cstdint>
#include <string>

#include "src/text/html/page_tree.h"

namespace coppice {

/// A <math> element in a plain form that reads as TeX: x^{2}, \frac{a}{b}, \sqrt{x}; characters stay what they are.
std::string linear_mathml(const PageTree& tree, uint32_t math);

}  // namespace coppice
