#include "src/base/nearest.h"

#include <algorithm>
#include <limits>

namespace coppice {

std::string nearest(std::string_view word, const std::vector<std::string>& known) {
  // Edit distance with swaps of neighbours as one edit (optimal string alignment): rows[i][j] = distance of the first i
  // and j letters.
  const auto distance = [&](std::string_view other) {
    std::vector<std::vector<size_t>> rows(word.size() + 1, std::vector<size_t>(other.size() + 1));
    for (size_t i = 0; i <= word.size(); ++i) {
      for (size_t j = 0; j <= other.size(); ++j) {
        if (i == 0 || j == 0) {
          rows[i][j] = i + j;
          continue;
        }
        rows[i][j] = std::min(
            {rows[i - 1][j] + 1, rows[i][j - 1] + 1, rows[i - 1][j - 1] + (word[i - 1] == other[j - 1] ? 0 : 1)});
        const bool swapped = i > 1 && j > 1 && word[i - 1] == other[j - 2] && word[i - 2] == other[j - 1];
        if (swapped) rows[i][j] = std::min(rows[i][j], rows[i - 2][j - 2] + 1);
      }
    }
    return rows[word.size()][other.size()];
  };
  word = word.substr(0, 200);  // a name from a file may be a megabyte
  std::string best;
  size_t best_distance = std::numeric_limits<size_t>::max();
  for (const std::string& other : known) {
    const size_t d = distance(other);
    if (d >= best_distance) continue;
    best = other;
    best_distance = d;
  }
  return best;
}

}  // namespace coppice
