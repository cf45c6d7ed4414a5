// Documents of a complete corpus, file by file.
#pragma once

#include <functional>
#include <vector>

#include "src/corpus/report/complete_corpus.h"
#include "src/text/documents.h"

namespace coppice {

/// Calls `take` for what the corpus has kept of a file; with their fields. UserError::bad_file naming the line.
void read_kept(const CompleteCorpus& corpus, const SourceFile& file, const std::function<void(Document&&)>& take);

/// At most `most` files, those whose names have the lowest hashes, in the order of names: what a report looks at of a
/// corpus that is too large to be read again.
std::vector<SourceFile> sampled_files(const CompleteCorpus& corpus, size_t most);

}  // namespace coppice
