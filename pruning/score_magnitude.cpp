// magnitude: sqrt(sum_i W_ij^2). No data. It changes when a factor moves between up and down, though the function does
// not. A layer: the norm of all that writes to the residual stream, o_proj and down_proj.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cmath>

#include "pruning/scores.h"

namespace coppice {

at::Tensor score_magnitude(const ScoreInput& input) {
  if (input.axis != CutAxis::layers)
    return score_by_columns(input, [&](int64_t layer) { return writer_weight(input, layer).norm(2, 0); });
  const MasterReader master = input.model->arena->read_master();
  at::Tensor score_1U = at::zeros({1, input.model->config.num_hidden_layers});
  for (int64_t layer = 0; layer < score_1U.size(1); ++layer) {
    double squares = 0;
    for (const char* writer : {"self_attn.o_proj", "mlp.down_proj"})
      squares +=
          master[fmt::format("layers.{}.{}.weight", layer, writer)].to(at::kDouble).square().sum().item<double>();
    score_1U[0][layer] = std::sqrt(squares);
  }
  return score_1U;
}

}  // namespace coppice
