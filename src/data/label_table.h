// Which row of a label file belongs to which token. A file with labels of few tokens is packed: its table /runs u64 [m,
// 3] holds (begin, length, place) - tokens [begin, begin + length) of the shard have rows [place, place + length) - in
// the order of tokens, without overlap, rows one after the other. A file without a table has a row for every token.
// Private to src/data.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "src/tokens/columns.h"
#include "src/tokens/token_runs.h"

namespace coppice {

inline constexpr const char* kRunsDataset = "/runs";

/// Tokens [begin, begin + length) have rows [place, place + length).
struct LabelRun {
  uint64_t begin = 0, length = 0, place = 0;
  uint64_t end() const { return begin + length; }
};

class LabelTable {
 public:
  static constexpr uint64_t kNoRow = ~uint64_t{0};
  /// A row for each of a shard's tokens.
  static LabelTable whole(uint64_t tokens) { return {tokens, {{.begin = 0, .length = tokens, .place = 0}}}; }
  /// The table of a file that holds labels of these runs (in order, apart from each other): a gap is stored where its
  /// rows cost no more than a run does, so that a few holes leave a file whole.
  static LabelTable packed(const TokenRuns& labelled, uint64_t tokens, uint64_t row_bytes);
  /// What a file of `file_bytes` says of its `rows`; UserError::bad_file for runs out of order, overlapping, empty,
  /// beyond the shard's tokens or the file's rows.
  static LabelTable read(const Hdf5Reader& file, uint64_t file_bytes, uint64_t rows, uint64_t tokens);

  bool is_whole() const { return runs_.size() == 1 && runs_[0].length == tokens_; }
  uint64_t tokens() const { return tokens_; }
  uint64_t rows() const { return runs_.empty() ? 0 : runs_.back().place + runs_.back().length; }
  const std::vector<LabelRun>& runs() const { return runs_; }
  /// To be written; its bytes stay here.
  PackedColumn column() const;
  /// The token that a row belongs to.
  uint64_t token_of(uint64_t row) const;
  /// Tokens [begin, begin + count) part by part, in order: visit(tokens behind `begin`, tokens, row of the first, or
  /// kNoRow where the file holds none). O(log runs), and the runs that are touched.
  void visit(uint64_t begin, uint64_t count,
             const std::function<void(uint64_t at, uint64_t count, uint64_t row)>& visit) const;

 private:
  LabelTable(uint64_t tokens, std::vector<LabelRun> runs) : tokens_(tokens), runs_(std::move(runs)) {}
  uint64_t tokens_;
  std::vector<LabelRun> runs_;
};

}  // namespace coppice
