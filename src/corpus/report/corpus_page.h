// report.html and report.svg of a corpus: pages that stand alone, without script and network. Every text from outside
// is escaped, and personal data in it masked. The same bytes for the same corpus.
#pragma once

#include <string>

#include "src/corpus/report/complete_corpus.h"

namespace coppice {

/// What is looked at again of a large corpus: values and documents of 64 files, samples of 16, whose names have the
/// lowest hashes; the page says so.
std::string corpus_page(const CompleteCorpus& corpus);
void write_corpus_page(const CompleteCorpus& corpus);

}  // namespace coppice
