// `coppice data stats`: totals and drop table for a terminal.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "src/corpus/report/complete_corpus.h"

namespace coppice {

std::string stats_text(const CompleteCorpus& corpus);
/// overlap_table() of each step that looked for benchmarks; UserError::recipe where none did.
std::string overlap_tables(const CompleteCorpus& corpus);
/// The `name count` of reasons, the most frequent first.
std::string reasons_text(const std::map<std::string, uint64_t>& counts);

}  // namespace coppice
