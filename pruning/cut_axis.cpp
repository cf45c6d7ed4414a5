#include "pruning/cut_axis.h"

#include <ATen/ATen.h>
#include <algorithm>

#include "src/base/errors.h"
#include "src/tensors/shape.h"

namespace coppice {
namespace {

constexpr CutAxisRow kAxes[] = {
    {.axis = CutAxis::ffn,
     .name = "ffn",
     .size_key = "intermediate_size",
     .units = "FFN channels",
     .units_of_row = "FFN channels a layer",
     .mask = "the FFN mask"},
    {.axis = CutAxis::heads,
     .name = "heads",
     .size_key = "num_key_value_heads",
     .units = "groups of attention heads",
     .units_of_row = "groups of attention heads a layer",
     .mask = "the mask of heads"},
};

}  // namespace

const CutAxisRow& row_of(CutAxis axis) {
  for (const CutAxisRow& row : kAxes)
    if (row.axis == axis) return row;
  throw InternalError("an axis without a row");
}

std::optional<CutAxis> find_axis(const std::string& name) {
  for (const CutAxisRow& row : kAxes)
    if (row.name == name) return row.axis;
  return std::nullopt;
}

std::vector<std::string> axis_names() {
  std::vector<std::string> known;
  for (const CutAxisRow& row : kAxes) known.emplace_back(row.name);
  return known;
}

std::vector<int64_t> units_of(const ModelConfig& config, CutAxis axis) {
  switch (axis) {
    case CutAxis::ffn:
      return config.intermediate_size;
    case CutAxis::heads:
      return std::vector<int64_t>(static_cast<size_t>(config.num_hidden_layers), config.num_key_value_heads);
  }
  throw InternalError("an axis without units");
}

ModelConfig cut_config(ModelConfig config, CutAxis axis, const std::vector<int64_t>& num_kept) {
  switch (axis) {
    case CutAxis::ffn:
      config.intermediate_size = num_kept;
      break;
    case CutAxis::heads:
      COPPICE_CHECK(std::ranges::adjacent_find(num_kept, std::not_equal_to<>()) == num_kept.end(),
                    "layers of different numbers of heads");
      config.num_attention_heads = num_kept.front() * (config.num_attention_heads / config.num_key_value_heads);
      config.num_key_value_heads = num_kept.front();
      break;
  }
  return config;
}

FfnMasks masks_on(CutAxis axis, std::vector<at::Tensor> rows, const ModelConfig& config) {
  COPPICE_CHECK(rows.size() == units_of(config, axis).size(), "one vector of multipliers a row");
  switch (axis) {
    case CutAxis::ffn:
      return {.multiplier_F = std::move(rows)};
    case CutAxis::heads:
      return {.multiplier_F = {}, .multiplier_G = std::move(rows)};
  }
  throw InternalError("an axis without masks");
}

FfnMasks masks_on(CutAxis axis, const at::Tensor& mask_RU, const ModelConfig& config) {
  const std::vector<int64_t> units = units_of(config, axis);
  check_shape(mask_RU, {static_cast<int64_t>(units.size()), -1}, "mask_RU");
  std::vector<at::Tensor> rows = mask_RU.unbind(0);
  for (size_t row = 0; row < units.size(); ++row) rows[row] = rows[row].narrow(0, 0, units[row]);
  return masks_on(axis, std::move(rows), config);
}

}  // namespace coppice
