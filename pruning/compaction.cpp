#include "pruning/compaction.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "pruning/mask_budget.h"
#include "pruning/plan.h"
#include "src/base/errors.h"
#include "src/tensors/transfers.h"

namespace coppice {
namespace {

constexpr int64_t kWidthMultiple = 16;  // whole vectors in the products

at::Tensor index_of(const std::vector<int64_t>& channels) { return at::tensor(channels, at::kLong); }

std::vector<int64_t> list_of(const at::Tensor& index_N) {
  const at::Tensor index = index_N.to(at::kLong).contiguous();
  return {index.const_data_ptr<int64_t>(), index.const_data_ptr<int64_t>() + index.numel()};
}

}  // namespace

Compaction::Compaction(int64_t num_layers, int64_t num_channels, int64_t after_steps)
    : after_steps_(after_steps), dead_steps_LF_(at::zeros({num_layers, num_channels}, at::kFloat)) {
  std::vector<int64_t> all(static_cast<size_t>(num_channels));
  std::iota(all.begin(), all.end(), 0);
  living_.assign(static_cast<size_t>(num_layers), all);
}

void Compaction::watch(const at::Tensor& mask_LF) {
  if (after_steps_ == 0) return;
  c10::NoGradGuard no_grad;
  dead_steps_LF_.add_(1).mul_(mask_LF.lt(kDeadMask).to(at::kFloat));
}

bool Compaction::compact(Model& model, Optimizer& optimizer, const at::Tensor& raw_LF, const at::Tensor& hard_LF) {
  if (after_steps_ == 0) return false;
  c10::NoGradGuard no_grad;
  const at::Tensor stays_LF = dead_steps_LF_.lt(static_cast<double>(after_steps_)).logical_or(hard_LF.gt(0));
  std::vector<std::vector<int64_t>> left;
  bool removes = false;
  for (size_t layer = 0; layer < living_.size(); ++layer) {
    const at::Tensor living_A = index_of(living_[layer]);
    const at::Tensor stays_A = stays_LF[static_cast<int64_t>(layer)].index_select(0, living_A);
    const int64_t width = std::min(
        living_A.numel(), (stays_A.sum().item<int64_t>() + kWidthMultiple - 1) / kWidthMultiple * kWidthMultiple);
    // those that stay, and the best of the dead up to a round width
    const at::Tensor raw_A = raw_LF[static_cast<int64_t>(layer)].index_select(0, living_A);
    const at::Tensor rank_A = raw_A - raw_A.max() + stays_A.to(at::kFloat) * (raw_A.max() - raw_A.min() + 1);
    left.push_back(
        list_of(living_A.index_select(0, hard_top_k(rank_A.unsqueeze(0), width).squeeze(0).nonzero().squeeze(1))));
    removes = removes || width < living_A.numel();
  }
  if (removes) cut(left, model, optimizer);
  return removes;
}

void Compaction::restore(std::vector<std::vector<int64_t>> living, Model& model, Optimizer& optimizer,
                         const std::string& path) {
  const int64_t channels = dead_steps_LF_.size(1);
  bool fits = living.size() == living_.size();
  for (const std::vector<int64_t>& layer : living)
    fits = fits && !layer.empty() && layer.front() >= 0 && layer.back() < channels &&
           std::ranges::adjacent_find(layer, std::greater_equal<>()) == layer.end();
  if (!fits)
    throw UserError::bad_file(path, fmt::format("living: expected ascending channels below {} for each of {} layers",
                                                channels, living_.size()));
  if (living != living_) cut(living, model, optimizer);
}

void Compaction::cut(const std::vector<std::vector<int64_t>>& living, Model& model, Optimizer& optimizer) {
  PrunePlan plan{
      .source_sha256 = "", .scores = "compaction", .kept = {}};  // in places of the channels that are there now
  for (size_t layer = 0; layer < living.size(); ++layer) {
    std::vector<int64_t>& places = plan.kept.emplace_back();
    for (const int64_t channel : living[layer])
      places.push_back(std::ranges::lower_bound(living_[layer], channel) - living_[layer].begin());
  }
  Model smaller = prune_model(model, plan);
  smaller.arena->enable_gradient();
  Optimizer its_optimizer(optimizer, *smaller.arena);
  for (const std::string& slot : optimizer.slot_names())
    for (const Parameter& row : parameter_table(model.config))
      its_optimizer.slot(slot, row.name)
          .copy_(slice_parameter(model.config, row, optimizer.slot(slot, row.name), plan));
  model = std::move(smaller);
  optimizer = std::move(its_optimizer);
  living_ = living;
  has_removed_ = true;
}

DecoderMasks Compaction::masks(const at::Tensor& mask_LF) const {
  DecoderMasks masks{.multiplier_F = mask_LF.unbind(0)};
  if (!has_removed_) return masks;
  std::vector<at::Tensor> living_A;
  for (const std::vector<int64_t>& layer : living_) living_A.push_back(index_of(layer));
  std::vector<at::Tensor*> all;
  for (at::Tensor& index_A : living_A) all.push_back(&index_A);
  send(all, mask_LF.device());
  for (size_t layer = 0; layer < living_.size(); ++layer)
    masks.multiplier_F[layer] = masks.multiplier_F[layer].index_select(0, living_A[layer]);
  return masks;
}

void Compaction::expand(const Model& compacted, Model& whole) const {
  c10::NoGradGuard no_grad;
  const MasterReader small = compacted.arena->read_master();
  const MasterEditor large = whole.arena->edit_master();
  for (const Parameter& row : parameter_table(whole.config)) {
    at::Tensor into = large[row.name];
    const at::Tensor from = small[row.name];
    const auto axis = std::ranges::find(row.axes, Axis::ffn);
    if (axis == row.axes.end())
      into.copy_(from);
    else
      into.index_copy_(axis - row.axes.begin(), index_of(living_[static_cast<size_t>(row.layer)]).to(into.device()),
                       from);
  }
}

double Compaction::mean_width() const {
  double sum = 0;
  for (const std::vector<int64_t>& layer : living_) sum += static_cast<double>(layer.size());
  return sum / static_cast<double>(living_.size());
}

int64_t Compaction::count_removed(const at::Tensor& hard_LF) const {
  double there = 0;
  for (size_t layer = 0; layer < living_.size(); ++layer)
    there += hard_LF[static_cast<int64_t>(layer)].index_select(0, index_of(living_[layer])).sum().item<double>();
  return static_cast<int64_t>(hard_LF.sum().item<double>() - there);
}

}  // namespace coppice
