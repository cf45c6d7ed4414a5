// Tables of a corpus for a terminal (`coppice data stats`), and those that the page shows as well.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "src/corpus/report/complete_corpus.h"

namespace coppice {

/// Of steps that mask personal data, a row for each kind that was found: step, kind, documents, spans, spans per
/// million words.
inline const std::vector<std::string> kPersonalHeader = {"step", "kind", "documents", "found", "per million words"};
std::vector<std::vector<std::string>> personal_rows(const CompleteCorpus& corpus);
/// Totals, personal data and drop table.
std::string stats_text(const CompleteCorpus& corpus);
/// overlap_table() of each step that looked for benchmarks; UserError::recipe where none did.
std::string overlap_tables(const CompleteCorpus& corpus);
/// The `name count` of reasons, the most frequent first.
std::string reasons_text(const std::map<std::string, uint64_t>& counts);

}  // namespace coppice
