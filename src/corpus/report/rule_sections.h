// The part of a corpus' page that shows, rule by rule, what its threshold cuts off.
#pragma once

#include <string>
#include <vector>

#include "src/corpus/report/complete_corpus.h"

namespace coppice {

/// Of each rule that has a threshold: a histogram of its values in `files`, the share removed at seven other
/// thresholds, and the five documents nearest to the threshold on either side. Empty for a corpus without values.
std::string rules_html(const CompleteCorpus& corpus, const std::vector<SourceFile>& files);

}  // namespace coppice
