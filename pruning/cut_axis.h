// What a cut takes away, one row a choice: FFN channels, attention heads, layers, or dimensions of the residual stream.
// A unit is what stays or goes whole; heads go in groups of query heads that share a key/value head, so that the ratio
// of the two stays. The parameter table says by its layers and the roles of its axes what a unit owns
// (pruning/apply_plan.cpp); the model's size that counts the units is a key of [model.*]. Units in a table of scores or
// masks [R, U]: R rows of U units, a row a layer or one for the model.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "src/model/decoder.h"

namespace coppice {

enum class CutAxis { ffn, heads, layers, hidden };
/// The order of several cuts: layers while all have one width, channels, in the finest steps, last.
inline constexpr CutAxis kCutOrder[] = {CutAxis::layers, CutAxis::hidden, CutAxis::heads, CutAxis::ffn};

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

// -- how many of them may stay --

inline constexpr int64_t kWidthGrid = 32;  // rows of Q8_0 and Q4_0 hold whole blocks of so many channels
/// The same model with so many units in every row.
ModelConfig with_units(const ModelConfig& config, CutAxis axis, int64_t units);
/// The steps in which a budget chooses them: one head group or layer, kWidthGrid channels or dimensions; an eighth of
/// what there is where that is less.
int64_t step_of(const ModelConfig& config, CutAxis axis);
/// The fewest that a budget leaves: an eighth of the units, in steps.
int64_t least_units(int64_t units, int64_t step);
/// The most in steps, up to all that the model has, of which `fits` is true; 0 = none. What fits is what has few
/// enough.
int64_t most_units(const ModelConfig& config, CutAxis axis, int64_t step,
                   const std::function<bool(const ModelConfig&)>& fits);

/// Multipliers of the units as the decoder takes them: one vector a row, [units of the row]; differentiable.
DecoderMasks masks_on(CutAxis axis, std::vector<at::Tensor> rows, const ModelConfig& config);
/// The rows of a table [R, U], each cut to the units that it has.
DecoderMasks masks_on(CutAxis axis, const at::Tensor& mask_RU, const ModelConfig& config);

}  // namespace coppice
