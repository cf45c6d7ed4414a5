// The files that a corpus is made of.
#pragma once

#include <vector>

#include "src/corpus/run/run_corpus.h"

namespace coppice {

/// What CorpusRequest::list says. Of a complete corpus a source that has none of its files any more, or cannot be
/// listed, counts as it was when the corpus was made: with the files of that time, whose path is empty. A source of
/// which any file is left is listed like any other, so what is missing is seen. Errors as list_source_files(), for a
/// folder that check_output_apart() refuses, and for a report that is damaged.
std::vector<SourceFile> list_input_files(const CorpusSettings& settings, const CorpusRequest& request);

/// A file that a complete corpus was made of and that is there no more.
inline bool is_gone(const SourceFile& file) { return file.path.empty() && file.members.empty(); }

}  // namespace coppice
