// soft_top_k: lambda = min(1, exp((s + a)/epsilon)) with the one a per row at which it sums to k, exact, gradient in
// closed form (CoDA, arXiv 2304.04947).
#include <ATen/core/Tensor.h>

#include "pruning/mask_methods.h"
#include "src/tensors/ops.h"

namespace coppice {

std::unique_ptr<LearnedMask> make_soft_top_k(const MaskTask& task) {
  return std::make_unique<ScoreMask>(task, [](const ScoreMask::Row& row, const MaskOptions&) {
    return soft_top_k(row.scaled_RN, row.k, row.epsilon);
  });
}

}  // namespace coppice
