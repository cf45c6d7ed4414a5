#include "src/evaluate/copying.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "src/base/errors.h"
#include "src/base/random.h"
#include "src/tensors/ops.h"

namespace coppice {
namespace {

constexpr int64_t kFirstDistance = 8, kPredictions = 512, kLeastRuns = 4;
constexpr uint64_t kSeed = 1;

int64_t num_runs(int64_t distance) { return std::max(kLeastRuns, kPredictions / distance); }

}  // namespace

std::vector<int64_t> copying_distances(int64_t seq_len) {
  std::vector<int64_t> distances;
  for (int64_t distance = kFirstDistance; distance <= seq_len / 2; distance *= 2) distances.push_back(distance);
  return distances;
}

double copying_tokens(int64_t seq_len) {
  double tokens = 0;
  for (const int64_t distance : copying_distances(seq_len))
    tokens += static_cast<double>(num_runs(distance)) * static_cast<double>(2 * distance - 1);
  return tokens;
}

at::Tensor copying_runs(std::span<const int64_t> ids, int64_t distance) {
  COPPICE_CHECK(ids.size() >= 2, "runs of fewer than two different tokens");
  const at::Tensor run_RD = at::empty({num_runs(distance), distance}, at::kLong);
  int64_t* const run = run_RD.mutable_data_ptr<int64_t>();
  const auto length = static_cast<uint64_t>(distance), size = uint64_t{ids.size()},
             permutations = (length + size - 1) / size;  // of a run
  for (uint64_t r = 0; r < static_cast<uint64_t>(run_RD.size(0)); ++r)
    for (uint64_t i = 0; i < length; ++i) {
      const uint64_t permutation = r * permutations + i / size;
      run[r * length + i] = ids[permute(i % size, size, kSeed, Purpose::copying, length << 24 | permutation)];
    }
  return run_RD;
}

std::vector<CopyingScore> score_copying(const Model& model, std::span<const int64_t> ids, int64_t seq_len,
                                        int64_t batch_tokens, const std::function<void()>& before_batch) {
  const at::NoGradGuard no_grad;
  std::vector<CopyingScore> scores;
  if (ids.size() < 2) return scores;
  for (const int64_t distance : copying_distances(seq_len)) {
    const at::Tensor run_RD = copying_runs(ids, distance).to(model.arena->placement().device),
                     sequence_RT = at::cat({run_RD, run_RD}, 1);
    const int64_t length = 2 * distance - 1,  // the last token is only predicted
        rows = std::max<int64_t>(1, batch_tokens / length);
    LinearLossSums sums;
    for (int64_t first = 0; first < run_RD.size(0); first += rows) {
      if (before_batch) before_batch();
      const at::Tensor own_RT = sequence_RT.narrow(0, first, std::min(rows, run_RD.size(0) - first));
      const at::Tensor hidden_ND =
          decoder_hidden(model, {.token_BT = own_RT.narrow(1, 0, length).contiguous(),
                                 .position_BT = at::arange(length, own_RT.options()).expand({own_RT.size(0), length}),
                                 .document_BT = {},
                                 .largest_position = length - 1});
      const LinearLossSums batch =
          mixed_cross_entropy_step(
              {.hidden_ND =
                   hidden_ND.view({own_RT.size(0), length, -1}).narrow(1, distance, distance - 1).flatten(0, 1),
               .head_VD = output_head(model),
               .true_label_N = own_RT.narrow(1, distance + 1, distance - 1).flatten().contiguous(),
               .argmax = true},
              {}, 0, 0)
              .read();
      sums.num_live += batch.num_live;
      sums.ce += batch.ce;
      sums.correct += batch.correct;
    }
    const auto live = static_cast<double>(sums.num_live);
    scores.push_back({.distance = distance,
                      .positions = sums.num_live,
                      .accuracy = static_cast<double>(sums.correct) / live,
                      .loss = sums.ce / live});
  }
  return scores;
}

}  // namespace coppice
