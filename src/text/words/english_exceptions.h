// Chunks that English cuts in a way of its own: contractions, abbreviations that keep their stop, emoticons (facts
// about spaCy 3.8's English rules). Private to src/text/words.
#pragma once

#include <string>
#include <vector>

namespace coppice {

/// Each with a blank where it is cut: `do n't`, `Mr.`. A straight apostrophe stands for a curly one as well. None
/// twice.
std::vector<std::string> english_exceptions();

}  // namespace coppice
