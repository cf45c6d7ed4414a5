// random: a seeded permutation of the channels of each layer; the expected overlap with any other choice is K/F.
#include <ATen/ATen.h>

#include "pruning/scores.h"
#include "src/base/random.h"

namespace coppice {

at::Tensor score_random(const ScoreInput& input) {
  return score_by_layer(input, [&](int64_t layer) {
    const auto num_channels = static_cast<uint64_t>(input.model->config.intermediate_size[static_cast<size_t>(layer)]);
    at::Tensor rank_F = at::empty({static_cast<int64_t>(num_channels)}, at::kLong);
    for (uint64_t f = 0; f < num_channels; ++f)
      rank_F.mutable_data_ptr<int64_t>()[f] = static_cast<int64_t>(
          permute(f, num_channels, input.seed, Purpose::random_scores, static_cast<uint64_t>(layer)));
    return rank_F;
  });
}

}  // namespace coppice
