// What the tests of pruning share: a tiny model with two layers, a fixed input, golden files.
#pragma once

#include <ATen/ATen.h>
#undef CHECK  // c10's, which aborts
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "pruning/mask_budget.h"
#include "pruning/mask_options.h"
#include "pruning/soft_masks.h"
#include "src/base/json.h"
#include "src/data/windows.h"
#include "src/model/decoder.h"
#include "src/model/parameters.h"
#include "src/tensors/ops.h"

namespace coppice::tiny {

inline ModelConfig config(std::vector<int64_t> widths = {24, 24}) {
  ModelConfig config;
  config.vocab_size = 37;
  config.hidden_size = 16;
  config.num_hidden_layers = static_cast<int64_t>(widths.size());
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = 8;
  config.intermediate_size = std::move(widths);
  config.max_position_embeddings = 64;
  return config;
}

inline Model model(std::vector<int64_t> widths = {24, 24}, uint64_t seed = 7, at::ScalarType compute = at::kFloat) {
  Model model = make_model(config(std::move(widths)), {.compute = compute});
  initialise_parameters(model.config, *model.arena, seed);
  return model;
}

inline DecoderInput input(int64_t rows = 2, int64_t seq_len = 9) {
  const at::Tensor token_BT = (at::arange(rows * seq_len, at::kLong) * 17 + 5).remainder(37).view({rows, seq_len});
  return {.token_BT = token_BT,
          .position_BT = at::arange(seq_len, at::kLong).expand({rows, seq_len}).contiguous(),
          .document_BT = {}};
}

/// Its tokens, with labels where `live_BT` is true.
inline Batch batch_of(const at::Tensor& live_BT) {
  const DecoderInput tokens = input(live_BT.size(0), live_BT.size(1));
  Batch batch;
  batch.token_BT = tokens.token_BT;
  batch.position_BT = tokens.position_BT;
  batch.true_label_BT = at::where(live_BT, tokens.token_BT, at::full_like(tokens.token_BT, kIgnoredLabel));
  batch.num_live = live_BT.sum().item<int64_t>();
  return batch;
}

inline Json golden(const std::string& name) {
  return read_json(std::string(COPPICE_SOURCE_DIR) + "/tests/golden/" + name);
}

inline at::Tensor vector_of(const Json& values, at::ScalarType type = at::kDouble) {
  return at::tensor(values.get<std::vector<double>>(), at::kDouble).to(type);
}
inline at::Tensor matrix_of(const Json& rows, at::ScalarType type = at::kDouble) {
  std::vector<at::Tensor> stack;
  for (const Json& row : rows) stack.push_back(vector_of(row, type));
  return at::stack(stack);
}
/// Exact Soft-Top-K of one step in one line of operations, to hold the method against: lambda = soft_top_k(s, k,
/// epsilon), times the set of the ceil(k) best.
inline at::Tensor soft_mask(const at::Tensor& raw_LF, const MaskSchedule& schedule, int64_t num_kept) {
  const at::Tensor soft_LF = soft_top_k(standardise_scores(raw_LF), schedule.k, schedule.epsilon);
  return schedule.top ? soft_LF * hard_top_k(raw_LF, std::max(num_kept, static_cast<int64_t>(std::ceil(schedule.k))))
                      : soft_LF;
}
inline double largest(const at::Tensor& difference) { return difference.abs().max().item<double>(); }

}  // namespace coppice::tiny
