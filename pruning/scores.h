// One-shot importance scores of FFN channels: a function each, a row each in the table.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <string>

#include "src/data/loader.h"
#include "src/model/decoder.h"

namespace coppice {

struct ScoreInput {
  const Model* model = nullptr;
  std::span<const Batch> batches;  // calibration, only for rows that need them
  uint64_t seed = 1;
};

struct ScoreRow {
  const char* name;
  const char* help;
  bool needs_batches;
  at::Tensor (*compute)(const ScoreInput&);  // [L, F] float32, higher = keep
};
/// magnitude, activation, random, first_k. All need layers of one width: UserError::recipe otherwise.
std::span<const ScoreRow> score_table();
/// UserError::recipe(where) with the nearest name when unknown.
const ScoreRow& find_score(const std::string& name, const std::string& where);

/// One batch's part of the activation score, [F] in double: sum over samples of (mean over live tokens of |hidden|)^2. live_BT is bool.
at::Tensor activation_squares(const at::Tensor& hidden_NF, const at::Tensor& live_BT);

}  // namespace coppice
