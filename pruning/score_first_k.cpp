// first_k: the first units of each row are kept; shows that their order carries nothing.
#include <ATen/ATen.h>

#include "pruning/scores.h"

namespace coppice {

at::Tensor score_first_k(const ScoreInput& input) {
  const std::vector<int64_t> units = units_of(input.model->config, input.axis);
  return score_by_row(input,
                      [&](int64_t row) { return at::arange(0, -units[static_cast<size_t>(row)], -1, at::kLong); });
}

}  // namespace coppice
