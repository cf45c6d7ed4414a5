// What the tests of the refit share: calibration text, and the least-squares solution by another way.
#pragma once

#include "tests/pruning/tiny.h"

#include <numeric>

#include "pruning/plan.h"

namespace coppice::test {

/// Windows of 12 tokens that differ from each other, as many as live_BT has rows.
inline Batch batch_of(const at::Tensor& live_BT, int64_t first = 0) {
  const int64_t rows = live_BT.size(0), seq_len = live_BT.size(1);
  const at::Tensor place_N = at::arange(first, first + rows * seq_len, at::kLong);
  Batch batch;
  batch.token_BT = (place_N * place_N * 3 + place_N * 17 + 5).remainder(1009).remainder(37).view({rows, seq_len});
  batch.position_BT = at::arange(seq_len, at::kLong).expand({rows, seq_len}).contiguous();
  batch.true_label_BT = at::where(live_BT, batch.token_BT, at::full_like(batch.token_BT, kIgnoredLabel));
  batch.num_live = live_BT.sum().item<int64_t>();
  return batch;
}

inline std::vector<Batch> calibration() {
  at::Tensor live_BT = at::ones({6, 12}, at::kBool);
  live_BT[2].narrow(0, 7, 5).fill_(false);
  return {batch_of(live_BT), batch_of(at::ones({5, 12}, at::kBool), 1000)};
}

inline PrunePlan plan_of(std::vector<std::vector<int64_t>> kept) {
  return {.source_sha256 = "", .scores = "by hand", .kept = std::move(kept)};
}

inline std::vector<int64_t> first(int64_t count) {
  std::vector<int64_t> channels(static_cast<size_t>(count));
  std::iota(channels.begin(), channels.end(), 0);
  return channels;
}

inline Model copy_of(const Model& model) {
  Model copy = make_model(model.config);
  const MasterReader from = model.arena->read_master();
  const MasterEditor into = copy.arena->edit_master();
  for (const Parameter& row : parameter_table(model.config)) into[row.name].copy_(from[row.name]);
  return copy;
}

/// V^T as the least-squares solution of [X; sqrt(lambda) I] V^T = [Y; sqrt(lambda) W^T], by QR: no normal equations.
inline at::Tensor by_qr(const at::Tensor& x_NM, const at::Tensor& y_ND, const at::Tensor& w_DM, double damping) {
  const double root = std::sqrt(damping * x_NM.square().sum(0).mean().item<double>());
  const at::Tensor rows = at::cat({x_NM, root * at::eye(x_NM.size(1), at::kDouble)}),
                   targets = at::cat({y_ND, root * w_DM.to(at::kDouble).t()});
  return std::get<0>(at::linalg_lstsq(rows, targets, {}, "gels")).t();
}

inline double missed(const at::Tensor& x_NM, const at::Tensor& y_ND, const at::Tensor& v_DM) {
  return ((y_ND - x_NM.mm(v_DM.to(at::kDouble).t())).norm() / y_ND.norm()).item<double>();
}

}  // namespace coppice::test
