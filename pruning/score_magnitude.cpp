// magnitude: sqrt(sum_i W_ij^2). No data. It changes when a factor moves between up and down, though the function does
// not. A layer: the norm of all that it writes with, o_proj and down_proj. A dimension of the residual stream: the norm
// of all that writes to it, the embedding and the rows of o_proj and down_proj.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include "pruning/scores.h"

namespace coppice {
namespace {

/// Squares of what a layer writes to each dimension, summed, [D] in double.
at::Tensor squares_written(const MasterReader& master, int64_t layer) {
  const auto rows = [&](const char* writer) {
    return master[fmt::format("layers.{}.{}.weight", layer, writer)].to(at::kDouble).square().sum(1);
  };
  return rows("self_attn.o_proj") + rows("mlp.down_proj");
}

}  // namespace

at::Tensor score_magnitude(const ScoreInput& input) {
  if (row_of(input.axis).per_layer)
    return score_by_columns(input, [&](int64_t layer) { return writer_weight(input, layer).norm(2, 0); });
  const MasterReader master = input.model->arena->read_master();
  std::vector<at::Tensor> squares_D;
  for (int64_t layer = 0; layer < input.model->config.num_hidden_layers; ++layer)
    squares_D.push_back(squares_written(master, layer));
  if (input.axis == CutAxis::layers) return score_of_row(at::stack(squares_D).sum(1).sqrt());
  squares_D.push_back(master["embed_tokens.weight"].to(at::kDouble).square().sum(0));
  return score_of_row(at::stack(squares_D).sum(0).sqrt());
}

}  // namespace coppice
