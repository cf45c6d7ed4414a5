#include "pruning/plan.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "pruning/mask_budget.h"
#include "pruning/soft_masks.h"
#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/tensors/shape.h"

namespace coppice {
namespace {

constexpr const char* kFormat = "coppice.prune_plan";
constexpr int kVersion = 1;
constexpr const char* kRule = "higher score, then lower index";
constexpr double kRoundings = 4;  // a cut may round so many times as much as another order does

at::Tensor index_of(const std::vector<int64_t>& kept) { return at::tensor(kept, at::kLong); }

bool is_up_projection(const Parameter& row) { return row.layer >= 0 && row.name.ends_with(".mlp.up_proj.weight"); }

/// The plan's lists ascend, lie within their layers and there is one a layer.
void check_plan_fits(const PrunePlan& plan, const ModelConfig& config) {
  if (plan.kept.size() != config.intermediate_size.size())
    throw UserError::recipe("prune plan", fmt::format("made for {} layers, the model has {}", plan.kept.size(),
                                                      config.intermediate_size.size()));
  for (size_t layer = 0; layer < plan.kept.size(); ++layer) {
    const std::vector<int64_t>& kept = plan.kept[layer];
    COPPICE_CHECK(
        !kept.empty() && kept.front() >= 0 && std::ranges::adjacent_find(kept, std::greater_equal<>()) == kept.end(),
        fmt::format("layer {}: kept channels are not ascending", layer));
    if (kept.back() >= config.intermediate_size[layer])
      throw UserError::recipe("prune plan",
                              fmt::format("layer {} keeps channel {}, the model has {} FFN channels there", layer,
                                          kept.back(), config.intermediate_size[layer]));
  }
}

/// Logits of the masked model with its channels in reverse order: the same products, added up in another order.
at::Tensor reversed_logits(const Model& source, const at::Tensor& mask_LF, const DecoderInput& input) {
  const auto flipped = [](const at::Tensor& value, const std::vector<Axis>& axes) {
    at::Tensor left = value;
    for (size_t axis = 0; axis < axes.size(); ++axis)
      if (axes[axis] == Axis::ffn) left = left.flip(static_cast<int64_t>(axis));
    return left;
  };
  const Model reversed = make_model(source.config);
  {
    const MasterReader from = source.arena->read_master();
    const MasterEditor into = reversed.arena->edit_master();
    for (const Parameter& row : parameter_table(source.config)) into[row.name].copy_(flipped(from[row.name], row.axes));
  }
  FfnMasks masks = masks_of(mask_LF, source.config.intermediate_size);
  for (at::Tensor& multiplier_F : masks.multiplier_F) multiplier_F = multiplier_F.flip(0);
  return decoder_logits(reversed, input, masks);
}

}  // namespace

PrunePlan make_plan(const at::Tensor& scores_LF, const std::vector<int64_t>& num_kept, std::string scores_name,
                    std::string source_sha256, const std::vector<int64_t>& widths) {
  check_shape(scores_LF, {static_cast<int64_t>(num_kept.size()), -1}, "scores_LF");
  COPPICE_CHECK(widths.empty() || widths.size() == num_kept.size(), "one width a layer");
  PrunePlan plan{.source_sha256 = std::move(source_sha256), .scores = std::move(scores_name), .kept = {}};
  for (size_t layer = 0; layer < num_kept.size(); ++layer) {
    const int64_t num_channels = widths.empty() ? scores_LF.size(1) : widths[layer];
    const std::string where = fmt::format("prune by {}, layer {}", plan.scores, layer);
    if (num_kept[layer] < 1 || num_kept[layer] > num_channels)
      throw UserError::recipe(
          where, fmt::format("intermediate_size: got {}, expected 1 to {} (the source's FFN channels)", num_kept[layer],
                             num_channels));
    const at::Tensor row_1F = scores_LF.detach().narrow(0, static_cast<int64_t>(layer), 1).narrow(1, 0, num_channels);
    const at::Tensor bad = row_1F.isfinite().logical_not().nonzero();
    if (bad.size(0) > 0) {
      const int64_t channel = bad[0][1].item<int64_t>();
      throw UserError::recipe(
          where, fmt::format("{} of {} scores are not finite, the first is channel {}: {}", bad.size(0), num_channels,
                             channel, row_1F[0][channel].item<double>()));
    }
    const at::Tensor kept =
        hard_top_k(row_1F, num_kept[layer]).squeeze(0).nonzero().squeeze(1).to(at::kCPU).contiguous();
    plan.kept.emplace_back(kept.const_data_ptr<int64_t>(), kept.const_data_ptr<int64_t>() + kept.numel());
  }
  return plan;
}

void save_plan(const std::filesystem::path& path, const PrunePlan& plan) {
  Json layers = Json::array();
  for (size_t layer = 0; layer < plan.kept.size(); ++layer)
    layers.push_back({{"layer", layer}, {"kept", plan.kept[layer]}});
  const Json object = {{"format", kFormat},     {"version", kVersion}, {"source", plan.source_sha256},
                       {"scores", plan.scores}, {"rule", kRule},       {"layers", layers}};
  write_file_atomically(path, seal(object));
}

PrunePlan load_plan(const std::filesystem::path& path) {
  const Json object = read_sealed(path, kFormat, kVersion);
  PrunePlan plan{.source_sha256 = string_at(object, "source", path.string()),
                 .scores = string_at(object, "scores", path.string()),
                 .kept = {}};
  if (const std::string rule = string_at(object, "rule", path.string()); rule != kRule)
    throw UserError::bad_file(path.string(), fmt::format("rule: got '{}', expected '{}'", printable(rule), kRule));
  for (const Json& entry : array_at(object, "layers", path.string())) {
    const size_t layer = plan.kept.size();
    if (!entry.is_object() || unsigned_at(entry, "layer", path.string()) != layer)
      throw UserError::bad_file(path.string(),
                                fmt::format("layers[{}]: expected an object whose layer is {}", layer, layer));
    std::vector<int64_t>& kept = plan.kept.emplace_back();
    for (const Json& channel : array_at(entry, "kept", path.string())) {
      const bool fits = channel.is_number_unsigned() && channel.get<uint64_t>() <= uint64_t{INT32_MAX};
      if (!fits || (!kept.empty() && channel.get<int64_t>() <= kept.back()))
        throw UserError::bad_file(path.string(),
                                  fmt::format("layer {}: kept[{}] is {}, expected ascending channel numbers", layer,
                                              kept.size(), channel.dump()));
      kept.push_back(channel.get<int64_t>());
    }
    if (kept.empty()) throw UserError::bad_file(path.string(), fmt::format("layer {} keeps no channel", layer));
  }
  return plan;
}

at::Tensor plan_mask(const PrunePlan& plan, int64_t num_channels, const at::Tensor& soft_LF) {
  const int64_t num_layers = static_cast<int64_t>(plan.kept.size());
  at::Tensor mask_LF = at::zeros({num_layers, num_channels}, at::kFloat);
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    const std::vector<int64_t>& kept = plan.kept[static_cast<size_t>(layer)];
    COPPICE_CHECK(kept.empty() || kept.back() < num_channels,
                  fmt::format("layer {} keeps channel {} of {}", layer, kept.back(), num_channels));
    mask_LF[layer].index_fill_(0, index_of(kept), 1.0);
  }
  if (!soft_LF.defined()) return mask_LF;
  check_shape(soft_LF, {num_layers, num_channels}, "soft_LF");
  return mask_LF * soft_LF.detach();
}

at::Tensor slice_parameter(const Parameter& row, const at::Tensor& value, const PrunePlan& plan) {
  at::Tensor left = value;
  for (size_t axis = 0; axis < row.axes.size(); ++axis)
    if (row.axes[axis] == Axis::ffn)
      left = left.index_select(static_cast<int64_t>(axis), index_of(plan.kept[static_cast<size_t>(row.layer)]));
  return left;
}

Model prune_model(const Model& source, const PrunePlan& plan, const at::Tensor& multiplier_LF) {
  check_plan_fits(plan, source.config);
  ModelConfig config = source.config;
  for (size_t layer = 0; layer < plan.kept.size(); ++layer)
    config.intermediate_size[layer] = static_cast<int64_t>(plan.kept[layer].size());
  Model pruned = make_model(config);

  c10::NoGradGuard no_grad;
  const MasterReader from = source.arena->read_master();
  const MasterEditor into = pruned.arena->edit_master();
  for (const Parameter& row : parameter_table(source.config)) {
    at::Tensor weight = from[row.name];
    if (is_up_projection(row) && multiplier_LF.defined()) {
      check_shape(multiplier_LF, {static_cast<int64_t>(plan.kept.size()), -1}, "multiplier_LF");
      weight = weight * multiplier_LF.detach()[row.layer].narrow(0, 0, weight.size(0)).unsqueeze(1);
    }
    into[row.name].copy_(slice_parameter(row, weight, plan));
  }
  return pruned;
}

MaskedPruned masked_pruned_difference(const Model& source, const at::Tensor& hard_cut_mask_LF, const Model& pruned,
                                      const DecoderInput& input) {
  c10::NoGradGuard no_grad;
  const std::vector<int64_t>& widths = source.config.intermediate_size;
  const at::Tensor masked_NV = decoder_logits(source, input, masks_of(hard_cut_mask_LF, widths));
  const double largest = masked_NV.abs().max().item<double>();
  const auto distance = [&](const at::Tensor& other_NV) {
    return (masked_NV - other_NV).abs().max().item<double>() / largest;
  };
  MaskedPruned result{.difference = distance(decoder_logits(pruned, input)), .limit = kMaskedPrunedLimit};
  if (result.difference > kMaskedPrunedLimit)  // a deep model with large channels rounds more: how much, it says itself
    result.limit =
        std::max(kMaskedPrunedLimit, kRoundings * distance(reversed_logits(source, hard_cut_mask_LF, input)));
  if (!(result.difference <= result.limit))  // so that a NaN fails
    throw InternalError(
        fmt::format("pruned model differs from the masked one: largest relative logit difference {:.3g}, limit {:.3g}",
                    result.difference, result.limit));
  return result;
}

}  // namespace coppice
