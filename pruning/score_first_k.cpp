// first_k: the first channels are kept; shows that their order carries nothing.
#include <ATen/ATen.h>

#include "pruning/scores.h"

namespace coppice {

at::Tensor score_first_k(const ScoreInput& input) {
  return score_by_layer(input, [&](int64_t layer) {
    return at::arange(0, -input.model->config.intermediate_size[static_cast<size_t>(layer)], -1, at::kLong);
  });
}

}  // namespace coppice
