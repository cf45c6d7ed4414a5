// What a stage that learns masks is held against: cheaper choices of as many units, and the signs that its mask has
// collapsed.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "pruning/cut_axis.h"
#include "src/data/windows.h"
#include "src/model/decoder.h"

namespace coppice {

/// What cheaper choices would keep, to compare the learned one with: one-shot scores of the source.
struct OtherChoices {
  struct Choice {
    const char* name;
    at::Tensor scores_LF;
  };
  std::vector<Choice> choices;

  OtherChoices(const Model& source, const std::vector<Batch>& batches, uint64_t seed, CutAxis axis);
  /// 0/1 of the same widths as the learned choice.
  at::Tensor hard(const char* name, const std::vector<int64_t>& widths) const;
};

/// Warns once of each kind of trouble, or ends the run (DivergedError). Suspicions never end it: a decision that came
/// early, and outside the FFN a random cut that is as good, for one draw of a few heads or layers may be the best there
/// is.
class CollapseWatch {
 public:
  enum Trouble { undecided, no_better_than_random, early };
  CollapseWatch(std::string stage, bool stops, CutAxis axis);
  void found(Trouble trouble, const std::string& reason);

 private:
  std::string stage_;
  bool stops_[3], warned_[3] = {};  // by trouble
};

}  // namespace coppice
