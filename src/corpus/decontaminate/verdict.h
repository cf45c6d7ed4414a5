// Whether a document holds a benchmark: from its n-grams, those that are exempt, and what the options ask for.
#pragma once

#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <unordered_set>
#include <vector>

#include "src/corpus/decontaminate/hits.h"
#include "src/corpus/decontaminate/ngram_index.h"

namespace coppice {

/// An item that a document holds, and the first of its n-grams there that is not exempt.
struct HeldItem {
  uint32_t item = 0, ngram = 0;
};

class Verdict {
 public:
  /// `exempt`: n-grams so common that they say nothing. `min_coverage`: the share of an item's n-grams, exempt ones
  /// among them, that a document must have. `report_only`: names of benchmarks that make no document go.
  Verdict(const NgramIndex& index, const std::vector<NgramCount>& exempt, double min_coverage,
          const std::vector<std::string>& report_only);

  bool is_exempt(uint32_t ngram) const { return exempt_.contains(ngram); }
  bool is_report_only(uint32_t item) const { return report_only_.contains(index_.items()[item].benchmark); }
  /// All items of one document's hits (sorted by n-gram), report-only ones among them; sorted by item.
  std::vector<HeldItem> held(std::span<const DocumentHit> hits) const;
  /// Those for which a document goes, or loses the passage: without report-only ones.
  std::vector<HeldItem> damning(std::span<const DocumentHit> hits) const;
  /// The n-grams whose passages go then: of those items, and not exempt.
  std::unordered_set<uint32_t> cut_ngrams(std::span<const DocumentHit> hits,
                                          const std::vector<HeldItem>& damning) const;

 private:
  const NgramIndex& index_;
  std::unordered_set<uint32_t> exempt_;
  double min_coverage_;
  std::set<uint32_t> report_only_;  // benchmarks
};

/// The text without every window of n-grams for which `goes` holds and 200 characters on both sides of it; where
/// something is cut a line ends. The number of cuts goes to `cuts`. Words are found in pieces between white space.
std::string without_windows(std::string_view text, NgramSearch& search, const std::unordered_set<uint32_t>& goes,
                            uint64_t& cuts);

}  // namespace coppice
