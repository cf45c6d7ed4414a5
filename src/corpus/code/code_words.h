// Words of source code, for shingles of near duplicates.
#pragma once

#include <string_view>
#include <vector>

namespace coppice {

/// Identifiers and numbers (runs of letters, digits, `_` and all that is not ASCII), and each other sign alone; white
/// space and other control characters part them. `words` is overwritten with views into `code`.
void code_words(std::string_view code, std::vector<std::string_view>& words);

}  // namespace coppice
