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
     .of_columns = false,
     .compute = score_magnitude},
    {.name = "activation",
     .help = "mean absolute activation a sample, L2 norm over samples (Minitron)",
     .passes = 1,
     .of_columns = false,
     .compute = score_activation},
    {.name = "wanda_sp",
     .help = "mean |weight| times the RMS of the activation (Wanda-sp)",
     .passes = 1,
     .of_columns = true,
     .compute = score_wanda_sp},
    {.name = "flap",
     .help = "variance of the activation times the squared norm of its column (FLAP's WIFV, no bias)",
     .passes = 1,
     .of_columns = true,
     .compute = score_flap},
    {.name = "taylor",
     .help = "|sum over a sample's tokens of activation x gradient|, mean over samples",
     .passes = 2,
     .of_columns = false,
     .compute = score_taylor},
    {.name = "random", .help = "a seeded permutation", .passes = 0, .of_columns = false, .compute = score_random},
    {.name = "first_k", .help = "units 0 to K-1", .passes = 0, .of_columns = false, .compute = score_first_k},
};

std::vector<std::string> names(CutAxis axis = CutAxis::ffn) {
  std::vector<std::string> known;
  for (const ScoreRow& row : kScores)
    if (scores_axis(row, axis)) known.emplace_back(row.name);
  return known;
}

}  // namespace

std::span<const ScoreRow> score_table() { return kScores; }

bool scores_axis(const ScoreRow& row, CutAxis axis) { return !row.of_columns || row_of(axis).per_layer; }

std::string score_names(CutAxis axis) { return fmt::format("{}", fmt::join(names(axis), ", ")); }

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

at::Tensor score_by_row(const ScoreInput& input, const std::function<at::Tensor(int64_t)>& score) {
  const std::vector<int64_t> widths = units_of(input.model->config, input.axis);
  const auto other = std::ranges::find_if(widths, [&](int64_t width) { return width != widths.front(); });
  if (other != widths.end() && !input.pad)
    throw UserError::recipe(
        "scores",
        fmt::format("layers of different FFN widths cannot be scored together: layer 0 has {}, layer {} has {}",
                    widths.front(), other - widths.begin(), *other));
  at::Tensor scores_RU = at::full({static_cast<int64_t>(widths.size()), std::ranges::max(widths)},
                                  -std::numeric_limits<float>::infinity(), at::kFloat);
  for (int64_t row = 0; row < scores_RU.size(0); ++row)
    scores_RU[row].narrow(0, 0, widths[static_cast<size_t>(row)]).copy_(score(row));
  return scores_RU;
}

at::Tensor score_of_row(const at::Tensor& score_U) { return score_U.to(at::kCPU, at::kFloat).unsqueeze(0); }

at::Tensor score_by_columns(const ScoreInput& input, const std::function<at::Tensor(int64_t)>& score_of_columns) {
  const std::vector<int64_t> units = units_of(input.model->config, input.axis);
  return score_by_row(input, [&](int64_t layer) {
    const at::Tensor score_C = score_of_columns(layer);
    const int64_t count = units[static_cast<size_t>(layer)];
    return score_C.size(0) == count ? score_C : score_C.view({count, -1}).norm(2, 1);
  });
}

at::Tensor writer_weight(const ScoreInput& input, int64_t layer) {
  const char* name = input.axis == CutAxis::ffn ? "mlp.down_proj" : "self_attn.o_proj";
  return input.model->arena->read_master()[fmt::format("layers.{}.{}.weight", layer, name)].to(at::kDouble);
}

void for_each_batch(const ScoreInput& input, const std::function<void(const Batch& batch)>& look) {
  COPPICE_CHECK(!input.batches.empty(), "this score needs calibration batches");
  for (size_t done = 0; done < input.batches.size();) {
    look(input.batches[done++]);
    if (input.after_batch) input.after_batch(done);
  }
}

void walk_hidden(const ScoreInput& input, const HiddenTap& tap) {
  c10::NoGradGuard no_grad;
  for_each_batch(input, [&](const Batch& batch) {
    const at::Tensor live_BT = batch.true_label_BT.ne(kIgnoredLabel);
    const DecoderTap of_layer = [&](int layer, const at::Tensor& hidden_NC) { tap(layer, hidden_NC, live_BT); };
    DecoderTaps taps;
    (input.axis == CutAxis::ffn ? taps.ffn_hidden : taps.attention_hidden) = of_layer;
    decoder_hidden(*input.model, batch.input(), {}, taps);
  });
}

}  // namespace coppice
