// What labels of a file are refused for as they come in: log-probabilities that are none, places that are not theirs.
// Private to src/data.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "src/data/label_alignment.h"
#include "src/data/label_import.h"
#include "src/data/label_line.h"

namespace coppice {

/// What a file's log-probabilities are of, judged by the mass that they add up to at a token.
class MassCheck {
 public:
  /// `ours`: a file with our first line, whose numbers were rounded as its fingerprint says, and say everything. What
  /// becomes codes may have been some.
  MassCheck(const LabelFingerprint& fingerprint, bool ours, bool low_mass);
  /// UserError::bad_file naming line and most likely cause for a mass above 1.
  void add(const LinePlace& line, const TokenLabels& token);
  /// After the last line: the same where most tokens hold less than kLeastMass and no tail says so.
  void finish() const;

 private:
  double tolerance_;  // of the mass with a given tail
  double most_;
  bool judges_low_;
  uint64_t tokens_ = 0, low_ = 0, fits_base_2_ = 0;
  LinePlace first_low_;
};

/// Whether a file's draws weigh what they should: drawn from r, weights q / r average 1, however far q and r are apart.
class WeightCheck {
 public:
  void add(const LinePlace& line, const TokenLabels& token);
  /// After the last line: UserError::bad_file naming the first line where their average is 1 neither nearly nor within
  /// its error.
  void finish() const;

 private:
  uint64_t tokens_ = 0;
  double sum_ = 0, squares_ = 0;  // over tokens of the mean over their draws
  LinePlace first_;
};

/// Where a file's labels stand, judged part by part, so that a part that is moved is not outvoted; the parts share the
/// error rate: 1/2, 1/6, 1/12, ... of it.
class PlaceCheck {
 public:
  PlaceCheck(const TokenShards& shards, const LabelImport& options);
  /// Neighbouring tokens of one document and their first choices. UserError::bad_file naming the lines, stage and
  /// domain when a part is full and stands beside its tokens.
  void add(const LinePlace& line, const std::vector<int64_t>& tokens, const std::vector<int64_t>& labels);
  /// The last part, up to this line.
  void judge(const LinePlace& last);

 private:
  LabelSample sample_;
  std::string whose_;  // stage and domain, for messages
  LinePlace first_;
  uint64_t part_ = 0;
};

}  // namespace coppice
