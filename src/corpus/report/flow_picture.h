// The flow of text through a corpus: a band from what came in to what is left, and for each step a branch as wide as
// the bytes that it takes out, in the colours of their sources.
#pragma once

#include "src/base/svg.h"
#include "src/corpus/report/complete_corpus.h"

namespace coppice {

/// From top to bottom, so that what is said of each step has a line of its own. The sources beyond the largest six are
/// one.
Svg flow_picture(const CompleteCorpus& corpus);

}  // namespace coppice
