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
/// magnitude, random, activation, first_k.
std::span<const ScoreRow> score_table();
/// UserError::recipe(where) with the nearest name when unknown.
const ScoreRow& find_score(const std::string& name, const std::string& where);

}  // namespace coppice
