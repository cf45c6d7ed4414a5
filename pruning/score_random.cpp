// random: a seeded permutation of the units of each row; the expected overlap with any other choice is K/U.
#include <ATen/ATen.h>

#include "pruning/scores.h"
#include "src/base/random.h"

namespace coppice {

at::Tensor score_random(const ScoreInput& input) {
  const std::vector<int64_t> units = units_of(input.model->config, input.axis);
  return score_by_row(input, [&](int64_t row) {
    const auto num_units = static_cast<uint64_t>(units[static_cast<size_t>(row)]);
    at::Tensor rank_U = at::empty({static_cast<int64_t>(num_units)}, at::kLong);
    for (uint64_t u = 0; u < num_units; ++u)
      rank_U.mutable_data_ptr<int64_t>()[u] =
          static_cast<int64_t>(permute(u, num_units, input.seed, Purpose::random_scores, static_cast<uint64_t>(row)));
    return rank_U;
  });
}

}  // namespace coppice
