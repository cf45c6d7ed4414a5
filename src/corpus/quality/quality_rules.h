// The quality rules: what each measures and within which limits a document stays, in the order in which they drop.
// Gopher (arXiv 2112.11446, table A1), C4 (JMLR 21-140), FineWeb (arXiv 2406.17557) with the formulas of datatrove
// 0.10; lines of DCLM (arXiv 2406.11794); ratios of NeMo Curator; lists of addresses.
#pragma once

#include <cstddef>
#include <limits>
#include <span>

namespace coppice {

inline constexpr double kNoLimit = std::numeric_limits<double>::infinity();

/// A value of a document. It stays where least <= value <= most, or where the value is not defined.
struct QualityRule {
  const char* name;
  const char* about;
  double least = -kNoLimit, most = kNoLimit;                   // as the papers have them
  const char *least_option = nullptr, *most_option = nullptr;  // the options that set them; none: always so
};

enum class QualitySet { gopher_repetition, gopher_quality, c4, fineweb, dclm_lines, ratios, url };

struct QualityRuleSet {
  QualitySet set;
  const char* name;
  bool by_default;
  std::span<const QualityRule> rules;
};
/// All of them: those by default in FineWeb's order first.
std::span<const QualityRuleSet> quality_rule_sets();

/// How many options the rules have: two for a rule with two limits.
size_t num_quality_limits();

}  // namespace coppice
