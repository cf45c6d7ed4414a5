// `coppice data diff`: two corpora beside each other. Documents are told apart by their ids.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "src/corpus/report/complete_corpus.h"

namespace coppice {

/// Documents that one corpus keeps and the other does not.
struct OnlyThere {
  uint64_t documents = 0;
  std::map<std::pair<std::string, std::string>, uint64_t> removed_by;  // step and rule of the other corpus
  uint64_t unseen = 0;                                                 // that the other never had
};

struct CorpusDiff {
  Amount kept_a, kept_b;
  uint64_t both = 0;
  OnlyThere only_a, only_b;
  std::vector<std::string> settings;  // what differs, a line each: "quality.char_dup_ratio: > 0.01, > 0.05"
};

/// Takes 8 bytes of memory for each document that either keeps.
CorpusDiff diff_corpora(const CompleteCorpus& a, const CompleteCorpus& b);
std::string diff_text(const CorpusDiff& diff);

}  // namespace coppice
