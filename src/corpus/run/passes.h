// The steps of a corpus, cut into passes over its documents.
#pragma once

#include <vector>

#include "src/corpus/run/corpus_settings.h"

namespace coppice {

/// Numbers of steps, in their order. A file is read once a pass: what the group steps in front have decided, the steps
/// that look at documents, what the group steps behind note.
struct Pass {
  std::vector<size_t> decided, mapped, noted;
};

/// At least one pass; one more behind every run of group steps, and behind a group step that changes texts.
std::vector<Pass> cut_into_passes(const std::vector<CorpusStep>& steps);

}  // namespace coppice
