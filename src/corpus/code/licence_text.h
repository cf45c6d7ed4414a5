// Licences by their texts. A text and a licence are compared by the word pairs of their normal forms, without the lines
// that say whose copyright it is and the numbers of list items: Dice coefficient = 2 |A and B| / (|A| + |B|) of the two
// sets. The known licences are rows of licence_prints.inc, which scripts/licence-prints writes.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace coppice {

struct LicenceMatch {
  std::string id;  // SPDX; empty where nothing is alike
  double dice = 0;
  bool has_additions = false;  // more than 12 word pairs in a row that the licence does not hold, or one with a word
                               // such as `commercial` or `research`: a clause of a few words hardly moves the Dice
                               // coefficient
};

/// The most alike of the known licences, whatever the likeness; the first of equals.
LicenceMatch match_licence_text(std::string_view text);
/// Ids of the known licences, each once.
std::vector<std::string> known_licences();

/// The expression behind `SPDX-License-Identifier:` in the first 4 kB, up to the end of its line or comment; empty
/// where there is none.
std::string find_spdx_line(std::string_view text);

}  // namespace coppice
