// A plan applied: what stays of every parameter by its layer and the roles of its axes, the multipliers merged in, and
// the proof that what is left is the masked model.
// Where dimensions of the residual stream go, D -> D', the masked model's RMSNorm still takes its mean over D places,
// of which D - D' are 0. With S the sum of squares of those that stay,
//   w x / sqrt(S/D + e) = w' x / sqrt(S/D' + e'),   w' = w sqrt(D/D'),   e' = e D/D'
// so that each norm's weight and the model's one eps change. QK-norm shares that eps over a head's K places, where
// nothing went: with q and k times sqrt(D/D') it gives what it gave, q_norm(c q, c^2 e) = q_norm(q, e).
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "pruning/plan.h"
#include "src/base/errors.h"
#include "src/tensors/shape.h"

namespace coppice {
namespace {

constexpr double kRoundings = 4;  // a cut may round so many times as much as another order does

/// How many entries of an axis of a parameter each unit owns, side by side; 0 = the cut leaves that axis alone.
int64_t entries_of_unit(const ModelConfig& config, CutAxis cut, Axis role) {
  switch (role) {
    case Axis::ffn:
      return cut == CutAxis::ffn ? 1 : 0;
    case Axis::hidden:
      return cut == CutAxis::hidden ? 1 : 0;
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
  const CutAxisRow& axis = row_of(plan.axis);
  const std::vector<int64_t> units = units_of(config, plan.axis);
  if (plan.kept.size() != units.size())
    throw UserError::recipe("prune plan",
                            fmt::format("made for {} layers, the model has {}", plan.kept.size(), units.size()));
  for (size_t row = 0; row < plan.kept.size(); ++row) {
    const std::vector<int64_t>& kept = plan.kept[row];
    COPPICE_CHECK(
        !kept.empty() && kept.front() >= 0 && std::ranges::adjacent_find(kept, std::greater_equal<>()) == kept.end(),
        fmt::format("row {}: kept {} are not ascending", row, axis.units));
    if (kept.back() >= units[row])
      throw UserError::recipe(
          "prune plan",
          fmt::format("{}keeps {} {}, the model has {} {}{}", axis.per_layer ? fmt::format("layer {} ", row) : "",
                      axis.unit, kept.back(), units[row], axis.units, axis.per_layer ? " there" : ""));
  }
}

/// A parameter with the multipliers of the units on its axis 0, or of its layer, merged in; others as they are.
at::Tensor merged(const ModelConfig& config, CutAxis cut, const Parameter& row, const at::Tensor& weight,
                  const at::Tensor& multiplier_RU) {
  const auto is = [&](const char* part) { return row.name.find(part) != std::string::npos; };
  const bool merges =
      (cut != CutAxis::heads && is(".mlp.up_proj.")) || (cut != CutAxis::ffn && is(".self_attn.v_proj."));
  if (!multiplier_RU.defined() || !merges) return weight;
  if (cut == CutAxis::layers) return weight * multiplier_RU.detach()[0][row.layer];
  const int64_t entries = entries_of_unit(config, cut, row.axes[0]);
  const at::Tensor factor_O = multiplier_RU.detach()[row.layer]
                                  .narrow(0, 0, weight.size(0) / entries)
                                  .repeat_interleave(entries)
                                  .to(weight.device());
  return weight * (weight.dim() == 2 ? factor_O.unsqueeze(1) : factor_O);
}

/// What is scaled where the residual stream narrows: the weights of its norms, and q and k in front of theirs.
bool goes_with_width(const Parameter& row, const ModelConfig& config) {
  if (row.kind == ParameterKind::norm) return row.axes.front() == Axis::hidden;
  return config.qk_norm &&
         (row.name.find(".q_proj.") != std::string::npos || row.name.find(".k_proj.") != std::string::npos);
}

/// How many entries of an axis of a parameter change places together where the source is turned around; 0 = none do.
/// With heads and layers all that a layer adds up turns, query heads one by one: of a single group there is one order
/// only.
int64_t turned_entries(const ModelConfig& config, CutAxis cut, Axis role) {
  if (cut != CutAxis::heads && cut != CutAxis::layers) return entries_of_unit(config, cut, role);
  if (role == Axis::heads || role == Axis::kv_heads) return config.head_dim;
  return role == Axis::ffn ? 1 : 0;
}

/// Logits of the masked model turned around: the same products, added up in another order.
at::Tensor reversed_logits(const Model& source, const at::Tensor& mask_RU, const DecoderInput& input, CutAxis axis) {
  const auto flipped = [&](const at::Tensor& value, const std::vector<Axis>& axes) {
    at::Tensor left = value;
    for (int64_t dim = 0; dim < std::ssize(axes); ++dim) {
      const int64_t entries = turned_entries(source.config, axis, axes[static_cast<size_t>(dim)]);
      if (entries > 0) left = left.unflatten(dim, {-1, entries}).flip(dim).flatten(dim, dim + 1);
    }
    return left;
  };
  const Model reversed = make_model(source.config, source.arena->placement());
  {
    const MasterReader from = source.arena->read_master();
    const MasterEditor into = reversed.arena->edit_master();
    for (const Parameter& row : parameter_table(source.config)) into[row.name].copy_(flipped(from[row.name], row.axes));
  }
  DecoderMasks masks = masks_on(axis, mask_RU, source.config);
  for (const auto member : {&DecoderMasks::multiplier_F, &DecoderMasks::multiplier_G})
    for (at::Tensor& multiplier : masks.*member) multiplier = multiplier.flip(0);  // of a layer that is cut: all alike
  if (masks.multiplier_D.defined()) masks.multiplier_D = masks.multiplier_D.flip(0);
  return decoder_logits(reversed, input, masks);
}

}  // namespace

at::Tensor slice_parameter(const ModelConfig& source, const Parameter& row, const at::Tensor& value,
                           const PrunePlan& plan) {
  at::Tensor left = value;
  for (size_t dim = 0; dim < row.axes.size(); ++dim) {
    const int64_t entries = entries_of_unit(source, plan.axis, row.axes[dim]);
    if (entries == 0) continue;
    const std::vector<int64_t>& kept = plan.kept[row_of(plan.axis).per_layer ? static_cast<size_t>(row.layer) : 0];
    const at::Tensor unit_K1 = at::tensor(kept, at::kLong).unsqueeze(1);
    left = left.index_select(static_cast<int64_t>(dim),
                             (unit_K1 * entries + at::arange(entries)).flatten().to(value.device()));
  }
  return left;
}

Model prune_model(const Model& source, const PrunePlan& plan, const at::Tensor& multiplier_RU) {
  check_plan_fits(plan, source.config);
  if (multiplier_RU.defined())
    check_shape(multiplier_RU, {static_cast<int64_t>(plan.kept.size()), -1}, "multiplier_RU");
  COPPICE_CHECK(!multiplier_RU.defined() || plan.axis != CutAxis::hidden,
                "multipliers of the residual stream are not offered");
  std::vector<int64_t> num_kept;
  for (const std::vector<int64_t>& kept : plan.kept) num_kept.push_back(std::ssize(kept));
  ModelConfig config = cut_config(source.config, plan.axis, num_kept);
  std::vector<Parameter> left = parameter_table(source.config);  // those that stay, in the order of the new table
  if (plan.axis == CutAxis::layers) {
    const std::vector<int64_t>& kept = plan.kept.front();
    for (size_t layer = 0; layer < kept.size(); ++layer)
      config.intermediate_size[layer] = source.config.intermediate_size[static_cast<size_t>(kept[layer])];
    std::erase_if(left,
                  [&](const Parameter& row) { return row.layer >= 0 && !std::ranges::binary_search(kept, row.layer); });
  }
  Model pruned = make_model(config, source.arena->placement());
  const std::vector<Parameter> table = parameter_table(config);
  COPPICE_CHECK(table.size() == left.size(), "a parameter for each that stays");

  c10::NoGradGuard no_grad;
  const MasterReader from = source.arena->read_master();
  const MasterEditor into = pruned.arena->edit_master();
  for (size_t i = 0; i < table.size(); ++i) {
    at::Tensor weight = merged(source.config, plan.axis, left[i], from[left[i].name], multiplier_RU);
    if (plan.axis == CutAxis::hidden && goes_with_width(left[i], config))
      weight =
          weight * std::sqrt(static_cast<double>(source.config.hidden_size) / static_cast<double>(config.hidden_size));
    into[table[i].name].copy_(slice_parameter(source.config, left[i], weight, plan));
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
