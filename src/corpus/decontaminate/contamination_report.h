// What a corpus holds of each benchmark, and what became of it: contamination.json of the step, and the coverage of
// every item, from which scores on clean items can be taken (`coppice data overlap`).
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "src/corpus/decontaminate/verdict.h"

namespace coppice {

/// What came to the step.
struct CorpusSize {
  uint64_t documents = 0, words = 0;
};

class ContaminationReport {
 public:
  ContaminationReport(const NgramIndex& index, const std::vector<NgramCount>& counts, const Verdict& verdict);
  /// A document of a source, and the items that it holds.
  void add(const std::string& source, const std::vector<HeldItem>& held);
  /// {"documents", "words", "documents_hit", "benchmarks": [{"name", "items", "not_covered", "hit", "documents":
  /// {source: n}, "report_only", "ngrams", "ngrams_found", "ngrams_exempt", "items_all_exempt", "windows": [{"item",
  /// "ngram", "count"}]}]}: windows are the ten most frequent that are not exempt, which false hits are among.
  Json json(const CorpusSize& size) const;

 private:
  struct Row {
    std::map<std::string, uint64_t> documents;  // by source
    std::set<uint32_t> items;
  };
  const NgramIndex& index_;
  const std::vector<NgramCount>& counts_;
  const Verdict& verdict_;
  std::vector<Row> rows_;
  uint64_t documents_hit_ = 0;
};

/// overlap.jsonl.zst: {"benchmark", "item", "ngrams", "found", "exempt"} of every item, in the order of benchmarks and
/// items; found and exempt count n-grams that stand in what the step leaves; without n-grams the item is too short to
/// say. `stands`: of each n-gram.
void write_overlap(const std::filesystem::path& file, const NgramIndex& index, const std::vector<bool>& stands,
                   const Verdict& verdict);
/// What `coppice data overlap` prints of it: per benchmark the items, those not covered, clean, and by coverage.
/// UserError::bad_file for a file that is missing or damaged.
std::string overlap_table(const std::filesystem::path& file);

}  // namespace coppice
