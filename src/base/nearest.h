// "Did you mean": the known name that a misspelt one was most likely meant to be.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace coppice {

/// The name among `known` with the smallest edit distance (swapped neighbours are one edit); the first of equals, empty
/// when nothing is known.
std::string nearest(std::string_view word, const std::vector<std::string>& known);

}  // namespace coppice
