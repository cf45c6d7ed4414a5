#include "pruning/plan.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "pruning/mask_budget.h"
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

/// How many entries of an axis of a parameter each unit owns, side by side; 0 = the cut leaves that axis alone.
int64_t entries_of_unit(const ModelConfig& config, CutAxis cut, Axis role) {
  switch (role) {
    case Axis::ffn:
      return cut == CutAxis::ffn ? 1 : 0;
    case Axis::kv_heads:
      return cut == CutAxis::heads ? config.head_dim : 0;
    case Axis::heads:
      return cut == CutAxis::heads ? config.num_attention_heads / config.num_key_value_heads * config.head_dim : 0;
    default:
      return 0;
  }
}

/// The plan's lists ascend, lie within their rows and there is one a row.
void check_plan_fits(const PrunePlan& plan, const ModelConfig& config) {
  const std::vector<int64_t> units = units_of(config, plan.axis);
  if (plan.kept.size() != units.size())
    throw UserError::recipe("prune plan",
                            fmt::format("made for {} layers, the model has {}", plan.kept.size(), units.size()));
  for (size_t row = 0; row < plan.kept.size(); ++row) {
    const std::vector<int64_t>& kept = plan.kept[row];
    COPPICE_CHECK(
        !kept.empty() && kept.front() >= 0 && std::ranges::adjacent_find(kept, std::greater_equal<>()) == kept.end(),
        fmt::format("layer {}: kept channels are not ascending", row));
    if (kept.back() >= units[row])
      throw UserError::recipe("prune plan", fmt::format("layer {} keeps channel {}, the model has {} {} there", row,
                                                        kept.back(), units[row], row_of(plan.axis).units));
  }
}

/// A parameter with the multipliers of the units on its axis 0 merged in; others as they are.
at::Tensor merged(const ModelConfig& config, CutAxis cut, const Parameter& row, const at::Tensor& weight,
                  const at::Tensor& multiplier_RU) {
  const char* merges = cut == CutAxis::ffn ? ".mlp.up_proj." : ".self_attn.v_proj.";
  if (!multiplier_RU.defined() || row.layer < 0 || row.name.find(merges) == std::string::npos) return weight;
  const int64_t entries = entries_of_unit(config, cut, row.axes[0]);
  const at::Tensor factor_O =
      multiplier_RU.detach()[row.layer].narrow(0, 0, weight.size(0) / entries).repeat_interleave(entries);
  return weight * (weight.dim() == 2 ? factor_O.unsqueeze(1) : factor_O);
}

/// Logits of the masked model with its units in reverse order: the same products, added up in another order.
at::Tensor reversed_logits(const Model& source, const at::Tensor& mask_RU, const DecoderInput& input, CutAxis axis) {
  const auto flipped = [&](const at::Tensor& value, const std::vector<Axis>& axes) {
    at::Tensor left = value;
    for (int64_t dim = 0; dim < std::ssize(axes); ++dim) {
      const int64_t entries = entries_of_unit(source.config, axis, axes[static_cast<size_t>(dim)]);
      if (entries > 0) left = left.unflatten(dim, {-1, entries}).flip(dim).flatten(dim, dim + 1);
    }
    return left;
  };
  const Model reversed = make_model(source.config);
  {
    const MasterReader from = source.arena->read_master();
    const MasterEditor into = reversed.arena->edit_master();
    for (const Parameter& row : parameter_table(source.config)) into[row.name].copy_(flipped(from[row.name], row.axes));
  }
  std::vector<at::Tensor> rows = mask_RU.unbind(0);
  const std::vector<int64_t> units = units_of(source.config, axis);
  for (size_t r = 0; r < rows.size(); ++r) rows[r] = rows[r].narrow(0, 0, units[r]).flip(0);
  return decoder_logits(reversed, input, masks_on(axis, std::move(rows), source.config));
}

}  // namespace

PrunePlan make_plan(const at::Tensor& scores_RU, const std::vector<int64_t>& num_kept, std::string scores_name,
                    std::string source_sha256, const std::vector<int64_t>& units, CutAxis axis) {
  check_shape(scores_RU, {static_cast<int64_t>(num_kept.size()), -1}, "scores_RU");
  COPPICE_CHECK(units.empty() || units.size() == num_kept.size(), "one number of units a row");
  PrunePlan plan{.source_sha256 = std::move(source_sha256), .scores = std::move(scores_name), .kept = {}, .axis = axis};
  for (size_t row = 0; row < num_kept.size(); ++row) {
    const int64_t num_units = units.empty() ? scores_RU.size(1) : units[row];
    const std::string where = fmt::format("prune by {}, layer {}", plan.scores, row);
    if (num_kept[row] < 1 || num_kept[row] > num_units)
      throw UserError::recipe(where, fmt::format("{}: got {}, expected 1 to {} (the source's {})",
                                                 row_of(axis).size_key, num_kept[row], num_units, row_of(axis).units));
    const at::Tensor row_1U = scores_RU.detach().narrow(0, static_cast<int64_t>(row), 1).narrow(1, 0, num_units);
    const at::Tensor bad = row_1U.isfinite().logical_not().nonzero();
    if (bad.size(0) > 0) {
      const int64_t unit = bad[0][1].item<int64_t>();
      throw UserError::recipe(where, fmt::format("{} of {} scores are not finite, the first is channel {}: {}",
                                                 bad.size(0), num_units, unit, row_1U[0][unit].item<double>()));
    }
    const at::Tensor kept = hard_top_k(row_1U, num_kept[row]).squeeze(0).nonzero().squeeze(1).to(at::kCPU).contiguous();
    plan.kept.emplace_back(kept.const_data_ptr<int64_t>(), kept.const_data_ptr<int64_t>() + kept.numel());
  }
  return plan;
}

void save_plan(const std::filesystem::path& path, const PrunePlan& plan) {
  Json layers = Json::array();
  for (size_t layer = 0; layer < plan.kept.size(); ++layer)
    layers.push_back({{"layer", layer}, {"kept", plan.kept[layer]}});
  Json object = {{"format", kFormat},     {"version", kVersion}, {"source", plan.source_sha256},
                 {"scores", plan.scores}, {"rule", kRule},       {"layers", layers}};
  if (plan.axis != CutAxis::ffn) object["axis"] = row_of(plan.axis).name;
  write_file_atomically(path, seal(object));
}

PrunePlan load_plan(const std::filesystem::path& path) {
  const Json object = read_sealed(path, kFormat, kVersion);
  PrunePlan plan{.source_sha256 = string_at(object, "source", path.string()),
                 .scores = string_at(object, "scores", path.string()),
                 .kept = {}};
  if (object.contains("axis")) {
    const std::string name = string_at(object, "axis", path.string());
    const std::optional<CutAxis> axis = find_axis(name);
    if (!axis)
      throw UserError::bad_file(
          path.string(), fmt::format("axis: got '{}', expected {}", printable(name), fmt::join(axis_names(), ", ")));
    plan.axis = *axis;
  }
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

at::Tensor plan_mask(const PrunePlan& plan, int64_t num_units, const at::Tensor& soft_RU) {
  const int64_t num_rows = static_cast<int64_t>(plan.kept.size());
  at::Tensor mask_RU = at::zeros({num_rows, num_units}, at::kFloat);
  for (int64_t row = 0; row < num_rows; ++row) {
    const std::vector<int64_t>& kept = plan.kept[static_cast<size_t>(row)];
    COPPICE_CHECK(kept.empty() || kept.back() < num_units,
                  fmt::format("layer {} keeps channel {} of {}", row, kept.back(), num_units));
    mask_RU[row].index_fill_(0, index_of(kept), 1.0);
  }
  if (!soft_RU.defined()) return mask_RU;
  check_shape(soft_RU, {num_rows, num_units}, "soft_RU");
  return mask_RU * soft_RU.detach();
}

at::Tensor slice_parameter(const ModelConfig& source, const Parameter& row, const at::Tensor& value,
                           const PrunePlan& plan) {
  at::Tensor left = value;
  for (size_t dim = 0; dim < row.axes.size(); ++dim) {
    const int64_t entries = entries_of_unit(source, plan.axis, row.axes[dim]);
    if (entries == 0) continue;
    const at::Tensor unit_K1 = index_of(plan.kept[static_cast<size_t>(row.layer)]).unsqueeze(1);
    left = left.index_select(static_cast<int64_t>(dim), (unit_K1 * entries + at::arange(entries)).flatten());
  }
  return left;
}

Model prune_model(const Model& source, const PrunePlan& plan, const at::Tensor& multiplier_RU) {
  check_plan_fits(plan, source.config);
  if (multiplier_RU.defined())
    check_shape(multiplier_RU, {static_cast<int64_t>(plan.kept.size()), -1}, "multiplier_RU");
  std::vector<int64_t> num_kept;
  for (const std::vector<int64_t>& kept : plan.kept) num_kept.push_back(std::ssize(kept));
  Model pruned = make_model(cut_config(source.config, plan.axis, num_kept));

  c10::NoGradGuard no_grad;
  const MasterReader from = source.arena->read_master();
  const MasterEditor into = pruned.arena->edit_master();
  for (const Parameter& row : parameter_table(source.config)) {
    const at::Tensor weight = merged(source.config, plan.axis, row, from[row.name], multiplier_RU);
    into[row.name].copy_(slice_parameter(source.config, row, weight, plan));
  }
  return pruned;
}

MaskedPruned masked_pruned_difference(const Model& source, const at::Tensor& hard_cut_mask_RU, const Model& pruned,
                                      const DecoderInput& input, CutAxis axis) {
  c10::NoGradGuard no_grad;
  const at::Tensor masked_NV = decoder_logits(source, input, masks_on(axis, hard_cut_mask_RU, source.config));
  const double largest = masked_NV.abs().max().item<double>();
  const auto distance = [&](const at::Tensor& other_NV) {
    return (masked_NV - other_NV).abs().max().item<double>() / largest;
  };
  MaskedPruned result{.difference = distance(decoder_logits(pruned, input)), .limit = kMaskedPrunedLimit};
  if (result.difference > kMaskedPrunedLimit)  // a deep model with large channels rounds more: how much, it says itself
    result.limit =
        std::max(kMaskedPrunedLimit, kRoundings * distance(reversed_logits(source, hard_cut_mask_RU, input, axis)));
  if (!(result.difference <= result.limit))  // so that a NaN fails
    throw InternalError(
        fmt::format("pruned model differs from the masked one: largest relative logit difference {:.3g}, limit {:.3g}",
                    result.difference, result.limit));
  return result;
}

}  // namespace coppice
