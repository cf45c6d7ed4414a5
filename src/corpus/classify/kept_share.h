// Keeping the best share of a corpus: scores of all documents are noted, a sample of them is sorted, and each document
// is told at which share of the sample it stands. Equal scores, of which a classifier may give many, are ordered by a
// hash of the id, so that the share is kept whatever the scores are. The rule is a number that stands in the recipe,
// and another share needs no new scores.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "src/corpus/classify/text_model.h"
#include "src/corpus/step.h"

namespace coppice {

/// Documents of the smallest hashes of their ids; of a larger corpus a share is known to 0.0015 (3 standard
/// deviations at a tenth: 0.003).
inline constexpr size_t kShareSample = 100000;

class KeptShareStep : public GroupStep {
 public:
  /// `name`: of the score in documents, and of the rule.
  KeptShareStep(std::shared_ptr<const TextModel> model, std::string name, double keep_share);
  std::vector<Rule> rules() const override;
  std::vector<std::string> inputs() const override { return {model_->identity()}; }
  std::unique_ptr<GroupNotes> note(const GroupPlace& place, uint32_t file) const override;
  uint32_t num_parts(const GroupPlace&) const override { return 0; }
  void reduce(const GroupPlace&, uint32_t) const override {}
  void settle(const GroupPlace& place) const override;
  std::unique_ptr<GroupDecisions> decide(const GroupPlace& place, uint32_t file) const override;

 private:
  std::shared_ptr<const TextModel> model_;
  std::string name_;
  double keep_share_;
};

}  // namespace coppice
