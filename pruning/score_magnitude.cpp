// magnitude: sqrt(sum_i W_ij^2). No data. It changes when a factor moves between up and down, though the function does
// not.
#include <ATen/ATen.h>

#include "pruning/scores.h"

namespace coppice {

at::Tensor score_magnitude(const ScoreInput& input) {
  return score_by_columns(input, [&](int64_t layer) { return writer_weight(input, layer).norm(2, 0); });
}

}  // namespace coppice
