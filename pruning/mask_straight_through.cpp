// straight_through: the hard top-k set forward, the identity backward (Bengio et al. 2013, arXiv 1308.3432): d mask / d
// s = 1 for kept and dropped channels alike. Epsilon and mask_form have no part in it.
#include <ATen/ATen.h>

#include "pruning/mask_methods.h"

namespace coppice {

std::unique_ptr<LearnedMask> make_straight_through(const MaskTask& task) {
  return std::make_unique<ScoreMask>(
      task,
      [](const ScoreMask::Row& row, const MaskOptions&) {
        return row.top_RN + (row.scaled_RN - row.scaled_RN.detach());
      },
      /*needs_top=*/true);
}

}  // namespace coppice
