// The sums that reports are made of.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "src/corpus/run/corpus_folder.h"
#include "src/corpus/run/corpus_settings.h"
#include "src/corpus/run/passes.h"

namespace coppice {

struct FileTotals {
  InputIdentity input;
  SourceReport source;
  Amount before, behind;  // documents that it held, documents that the corpus has of it
};

struct SourceTotals {
  Amount before, behind;
  uint64_t records = 0, files = 0;
  std::map<std::string, uint64_t> passed, bad;
  double lost() const;  // share of its documents; 0 without any
};

struct CorpusTotals {
  std::vector<FileTotals> files;
  std::vector<SourceTotals> sources;
  Amount before, behind;
  std::map<std::string, StepCounts> steps;
  std::vector<std::map<std::string, StepCounts>> by_source;  // of each source
  std::vector<std::string> alarms, warnings;
};

CorpusTotals sum_corpus(const CorpusSettings& settings, const std::vector<SourceFile>& files,
                        const std::vector<Pass>& passes, const CorpusFolder& folder);

/// The rules of a step in the order in which they drop; those that every step has only where they removed something.
std::vector<Rule> told_rules(const CorpusStep& step, const StepCounts& counts);

}  // namespace coppice
