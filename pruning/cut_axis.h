// What a cut takes away, one row a choice: FFN channels, attention heads, layers, or dimensions of the residual stream.
// A unit is what stays or goes whole; heads go in groups of query heads that share a key/value head, so that the ratio
// of the two stays. The parameter table says by its layers and the roles of its axes what a unit owns (pruning/plan.h);
// the model's size that counts the units is a key of [model.*]. Units in a table of scores or masks [R, U]: R rows of U
// units, a row a layer or one for the model.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "src/model/decoder.h"

namespace coppice {

enum class CutAxis { ffn, heads, layers, hidden };

struct CutAxisRow {
  CutAxis axis;
  const char* name;                         // of the option `axis`
  const char* size_key;                     // of [model.*]: how many units stay
  bool per_layer;                           // a choice for each layer; otherwise one for the model
  const char *unit, *units, *units_of_row;  // in words
  const char* mask;                         // what multiplies them
};
const CutAxisRow& row_of(CutAxis axis);
/// By the option's name; nothing when unknown.
std::optional<CutAxis> find_axis(const std::string& name);
std::vector<std::string> axis_names();

/// How many units each row of a table of scores or masks has.
std::vector<int64_t> units_of(const ModelConfig& config, CutAxis axis);
/// The shape of a model with so many units in each row; the other axes keep what they have. Heads: one number for all
/// layers, InternalError otherwise. Layers: the first ones' FFN widths. Hidden: rms_norm_eps goes with the width
/// (pruning/apply_plan.cpp).
ModelConfig cut_config(ModelConfig config, CutAxis axis, const std::vector<int64_t>& num_kept);

/// Multipliers of the units as the decoder takes them: one vector a row, [units of the row]; differentiable.
FfnMasks masks_on(CutAxis axis, std::vector<at::Tensor> rows, const ModelConfig& config);
/// The rows of a table [R, U], each cut to the units that it has.
FfnMasks masks_on(CutAxis axis, const at::Tensor& mask_RU, const ModelConfig& config);

}  // namespace coppice
