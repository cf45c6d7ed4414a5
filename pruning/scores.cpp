#include "pruning/scores.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "src/base/errors.h"
#include "src/base/nearest.h"

namespace coppice {
namespace {

constexpr ScoreRow kScores[] = {
    {.name = "magnitude",
     .help = "L2 norm of the channel's column of down_proj",
     .passes = 0,
     .compute = score_magnitude},
    {.name = "activation",
     .help = "mean absolute activation a sample, L2 norm over samples (Minitron)",
     .passes = 1,
     .compute = score_activation},
    {.name = "wanda_sp",
     .help = "mean |weight| times the RMS of the activation (Wanda-sp)",
     .passes = 1,
     .compute = score_wanda_sp},
    {.name = "flap",
     .help = "variance of the activation times the squared norm of its column (FLAP's WIFV, no bias)",
     .passes = 1,
     .compute = score_flap},
    {.name = "taylor",
     .help = "|sum over a sample's tokens of activation x gradient|, mean over samples",
     .passes = 2,
     .compute = score_taylor},
    {.name = "random", .help = "a seeded permutation", .passes = 0, .compute = score_random},
    {.name = "first_k", .help = "channels 0 to K-1", .passes = 0, .compute = score_first_k},
};

std::vector<std::string> names() {
  std::vector<std::string> known;
  for (const ScoreRow& row : kScores) known.emplace_back(row.name);
  return known;
}

}  // namespace

std::span<const ScoreRow> score_table() { return kScores; }

std::string score_names() { return fmt::format("{}", fmt::join(names(), ", ")); }

const ScoreRow& find_score(const std::string& name, const std::string& where) {
  for (const ScoreRow& row : kScores)
    if (row.name == name) return row;
  if (name == "flap_with_bias")
    throw UserError::recipe(where,
                            "scores: FLAP with its bias needs a bias in down_proj to hold the mean of what was cut, "
                            "and these models have none; use 'flap', "
                            "its score without the bias");
  throw UserError::recipe(where, fmt::format("scores: unknown score '{}'; did you mean '{}'? (masks, {})",
                                             printable(name), nearest(name, names()), score_names()));
}

at::Tensor score_by_layer(const ScoreInput& input, const std::function<at::Tensor(int64_t)>& score) {
  const std::vector<int64_t>& widths = input.model->config.intermediate_size;
  const auto other = std::ranges::find_if(widths, [&](int64_t width) { return width != widths.front(); });
  if (other != widths.end() && !input.pad)
    throw UserError::recipe(
        "scores",
        fmt::format("layers of different FFN widths cannot be scored together: layer 0 has {}, layer {} has {}",
                    widths.front(), other - widths.begin(), *other));
  at::Tensor scores_LF = at::full({static_cast<int64_t>(widths.size()), std::ranges::max(widths)},
                                  -std::numeric_limits<float>::infinity(), at::kFloat);
  for (int64_t layer = 0; layer < scores_LF.size(0); ++layer)
    scores_LF[layer].narrow(0, 0, widths[static_cast<size_t>(layer)]).copy_(score(layer));
  return scores_LF;
}

at::Tensor down_weight(const Model& model, int64_t layer) {
  return model.arena->read_master()[fmt::format("layers.{}.mlp.down_proj.weight", layer)].to(at::kDouble);
}

void walk_hidden(const ScoreInput& input, const HiddenTap& tap) {
  c10::NoGradGuard no_grad;
  COPPICE_CHECK(!input.batches.empty(), "this score needs calibration batches");
  for (const Batch& batch : input.batches) {
    const at::Tensor live_BT = batch.true_label_BT.ne(kIgnoredLabel);
    const DecoderTap of_layer = [&](int layer, const at::Tensor& hidden_NF) { tap(layer, hidden_NF, live_BT); };
    decoder_hidden(*input.model, batch.input(), {}, {.ffn_hidden = of_layer});
  }
}

}  // namespace coppice
