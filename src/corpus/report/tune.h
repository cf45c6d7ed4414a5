// `coppice data tune`: what other thresholds would have removed, from the values that were stored. No text is read.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "src/corpus/report/complete_corpus.h"

namespace coppice {

enum class Side { least, most };

struct OtherThreshold {
  double threshold = 0;
  uint64_t dropped = 0;
};

/// One side of a rule: documents that its threshold, and seven others, would have removed if it were alone.
struct ThresholdRow {
  std::string step, rule;
  Side side = Side::most;
  uint64_t measured = 0;
  OtherThreshold now;
  std::array<OtherThreshold, 7> others;
  void add(std::span<const float> values);  // NaN is not measured
};

/// The others are these times the threshold.
inline constexpr std::array<double, 7> kOtherThresholds = {0.25, 0.5, 0.75, 1.25, 1.5, 2, 4};

/// Of either side, none of a rule without a threshold; no document is counted yet.
std::vector<ThresholdRow> threshold_rows(const ToldStep& step, const ToldRule& rule);
/// Of every rule that has a threshold, over the values of `files`. UserError::recipe for a corpus without values.
std::vector<ThresholdRow> threshold_rows(const CompleteCorpus& corpus, const std::vector<SourceFile>& files);
std::string threshold_table(const std::vector<ThresholdRow>& rows);

struct ThresholdChange {
  std::string step;
  Rule before, after;
};

/// `quality.char_dup_ratio=0.05`; both sides, or either: `quality.words=30..200000`. UserError::recipe for a rule that
/// there is not, that has no threshold, and for a number that is none.
ThresholdChange parse_change(const CompleteCorpus& corpus, const std::string& text);

struct ChangedRule {
  ThresholdChange change;
  uint64_t measured = 0, before = 0, after = 0;  // documents that it would have removed if it were alone
};

/// What changes together do to the documents that the rules let go. A document that would come back has not been seen
/// by the group steps, nor by what lies behind them.
struct TuneOutcome {
  std::vector<ChangedRule> rules;
  uint64_t documents = 0;          // that have values
  uint64_t before = 0, after = 0;  // that some rule lets go
  uint64_t come_back = 0, go_too = 0;
};

TuneOutcome tune(const CompleteCorpus& corpus, const std::vector<ThresholdChange>& changes);
std::string tune_text(const TuneOutcome& outcome);

}  // namespace coppice
