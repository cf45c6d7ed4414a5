#include "pruning/scores.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <functional>
#include <vector>

#include "src/base/errors.h"
#include "src/base/nearest.h"
#include "src/base/random.h"
#include "src/model/parameters.h"

namespace coppice {
namespace {

/// L and F of a model whose layers are equally wide: scores are a matrix.
std::pair<int64_t, int64_t> score_shape(const ModelConfig& config) {
  const std::vector<int64_t>& widths = config.intermediate_size;
  const auto other = std::ranges::find_if(widths, [&](int64_t width) { return width != widths.front(); });
  if (other != widths.end())
    throw UserError::recipe("scores", fmt::format("layers of different FFN widths cannot be scored together: layer 0 has {}, layer {} has {}", widths.front(),
                                                  other - widths.begin(), *other));
  return {static_cast<int64_t>(widths.size()), widths.front()};
}

/// Rows computed layer by layer by `score(layer)`, each [F].
at::Tensor by_layer(const ModelConfig& config, const std::function<at::Tensor(int64_t)>& score) {
  const auto [num_layers, num_channels] = score_shape(config);
  at::Tensor scores_LF = at::empty({num_layers, num_channels}, at::kFloat);
  for (int64_t layer = 0; layer < num_layers; ++layer) scores_LF[layer].copy_(score(layer));
  return scores_LF;
}

/// L2 norm of the channel's column of down_proj. It changes when a factor moves between up and down.
at::Tensor magnitude(const ScoreInput& input) {
  c10::NoGradGuard no_grad;
  std::vector<std::string> down(input.model->config.intermediate_size.size());
  for (const Parameter& row : parameter_table(input.model->config))
    if (row.axes.size() == 2 && row.axes[1] == Axis::ffn) down[static_cast<size_t>(row.layer)] = row.name;
  return by_layer(input.model->config,
                  [&](int64_t layer) { return input.model->arena->parameter(down[static_cast<size_t>(layer)]).to(at::kDouble).norm(2, 0); });
}

/// A seeded permutation of the channels: expected overlap with any other set is K/F.
at::Tensor random_order(const ScoreInput& input) {
  return by_layer(input.model->config, [&](int64_t layer) {
    const int64_t num_channels = input.model->config.intermediate_size.front();
    at::Tensor rank_F = at::empty({num_channels}, at::kLong);
    for (int64_t f = 0; f < num_channels; ++f)
      rank_F.mutable_data_ptr<int64_t>()[f] = static_cast<int64_t>(
          permute(static_cast<uint64_t>(f), static_cast<uint64_t>(num_channels), input.seed, Purpose::random_scores, static_cast<uint64_t>(layer)));
    return rank_F;
  });
}

/// The first channels are kept: shows that their order carries nothing.
at::Tensor first_k(const ScoreInput& input) {
  return by_layer(input.model->config, [&](int64_t) { return at::arange(0, -input.model->config.intermediate_size.front(), -1, at::kLong); });
}

/// Minitron: sqrt(sum over samples of (mean over live tokens of |x|)^2), x = silu(gate) * up as it enters down_proj; a sample is a row of a batch.
at::Tensor activation(const ScoreInput& input) {
  c10::NoGradGuard no_grad;
  const auto [num_layers, num_channels] = score_shape(input.model->config);
  COPPICE_CHECK(!input.batches.empty(), "activation scores need calibration batches");
  at::Tensor squares_LF = at::zeros({num_layers, num_channels}, at::kDouble);
  for (const Batch& batch : input.batches) {
    const at::Tensor live_BT = batch.true_label_BT.ne(kIgnoredLabel);
    const FfnTap tap = [&](int layer, const at::Tensor& hidden_NF) { squares_LF[layer].add_(activation_squares(hidden_NF, live_BT)); };
    decoder_hidden(*input.model, {.token_BT = batch.token_BT, .position_BT = batch.position_BT, .document_BT = batch.document_BT}, {}, tap);
  }
  return squares_LF.sqrt().to(at::kFloat);
}

constexpr ScoreRow kScores[] = {
    {.name = "magnitude", .help = "L2 norm of the channel's column of down_proj", .needs_batches = false, .compute = magnitude},
    {.name = "activation", .help = "mean absolute activation a sample, L2 norm over samples (Minitron)", .needs_batches = true, .compute = activation},
    {.name = "random", .help = "a seeded permutation", .needs_batches = false, .compute = random_order},
    {.name = "first_k", .help = "channels 0 to K-1", .needs_batches = false, .compute = first_k},
};

}  // namespace

at::Tensor activation_squares(const at::Tensor& hidden_NF, const at::Tensor& live_BT) {
  const int64_t num_samples = live_BT.size(0), seq_len = live_BT.size(1);
  const at::Tensor live_BT1 = live_BT.to(at::kDouble).unsqueeze(2);
  const at::Tensor sum_BF = (hidden_NF.abs().to(at::kDouble).view({num_samples, seq_len, -1}) * live_BT1).sum(1);
  return (sum_BF / live_BT1.sum(1).clamp_min(1.0)).square().sum(0);  // a sample without live tokens adds nothing
}

std::span<const ScoreRow> score_table() { return kScores; }

const ScoreRow& find_score(const std::string& name, const std::string& where) {
  std::vector<std::string> known;
  for (const ScoreRow& row : kScores) {
    if (row.name == name) return row;
    known.emplace_back(row.name);
  }
  throw UserError::recipe(
      where, fmt::format("scores: unknown score '{}'; did you mean '{}'? (masks, {})", printable(name), nearest(name, known), fmt::join(known, ", ")));
}

}  // namespace coppice
