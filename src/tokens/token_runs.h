// Some tokens of a shard, as runs: what a label stage is asked for and what a label file holds.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace coppice {

/// Tokens [begin, end) of a shard.
struct TokenRun {
  uint64_t begin = 0, end = 0;
  uint64_t size() const { return end - begin; }
  bool operator==(const TokenRun&) const = default;
};
using TokenRuns = std::vector<TokenRun>;

/// In order; runs that overlap or touch become one.
inline TokenRuns merge_runs(TokenRuns runs) {
  std::ranges::sort(runs, {}, &TokenRun::begin);
  size_t kept = 0;
  for (const TokenRun& run : runs) {
    if (run.size() == 0) continue;
    if (kept > 0 && run.begin <= runs[kept - 1].end) {
      runs[kept - 1].end = std::max(runs[kept - 1].end, run.end);
    } else {
      runs[kept++] = run;
    }
  }
  runs.resize(kept);
  return runs;
}

inline uint64_t count_tokens(const TokenRuns& runs) {
  uint64_t count = 0;
  for (const TokenRun& run : runs) count += run.size();
  return count;
}

}  // namespace coppice
