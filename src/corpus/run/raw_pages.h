// Pages as they were fetched must become texts before anything reads them as such.
#pragma once

#include <vector>

#include "src/corpus/run/corpus_settings.h"

namespace coppice {

/// UserError::recipe for a source with files of pages (WARC, HTML) which meet a step that reads texts, or no step that
/// turns them into texts. Pages among JSON lines are found when they come (DocumentChain).
void check_raw_pages(const CorpusSettings& settings, const std::vector<SourceFile>& files);

}  // namespace coppice
