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
     .per_layer = true,
     .unit = "channel",
     .units = "FFN channels",
     .units_of_row = "FFN channels a layer",
     .mask = "the FFN mask"},
    {.axis = CutAxis::heads,
     .name = "heads",
     .size_key = "num_key_value_heads",
     .per_layer = true,
     .unit = "group",
     .units = "groups of attention heads",
     .units_of_row = "groups of attention heads a layer",
     .mask = "the mask of heads"},
    {.axis = CutAxis::layers,
     .name = "layers",
     .size_key = "num_hidden_layers",
     .per_layer = false,
     .unit = "layer",
     .units = "layers",
     .units_of_row = "layers",
     .mask = "the mask of layers"},
    {.axis = CutAxis::hidden,
     .name = "hidden",
     .size_key = "hidden_size",
     .per_layer = false,
     .unit = "dimension",
     .units = "dimensions of the residual stream",
     .units_of_row = "dimensions of the residual stream",
     .mask = "the mask of the residual stream"},
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
    case CutAxis::layers:
      return {config.num_hidden_layers};
    case CutAxis::hidden:
      return {config.hidden_size};
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
    case CutAxis::layers:
      config.num_hidden_layers = num_kept.front();
      config.intermediate_size.resize(static_cast<size_t>(num_kept.front()), config.intermediate_size.back());
      break;
    case CutAxis::hidden:
      config.rms_norm_eps *= static_cast<double>(config.hidden_size) / static_cast<double>(num_kept.front());
      config.hidden_size = num_kept.front();
      break;
  }
  return config;
}

ModelConfig with_units(const ModelConfig& config, CutAxis axis, int64_t units) {
  return cut_config(config, axis, std::vector<int64_t>(units_of(config, axis).size(), units));
}

int64_t step_of(const ModelConfig& config, CutAxis axis) {
  const bool is_width = axis == CutAxis::ffn || axis == CutAxis::hidden;
  return is_width ? std::clamp<int64_t>(units_of(config, axis).front() / 8, 1, kWidthGrid) : 1;
}

int64_t least_units(int64_t units, int64_t step) { return (units + 8 * step - 1) / (8 * step) * step; }

int64_t most_units(const ModelConfig& config, CutAxis axis, int64_t step,
                   const std::function<bool(const ModelConfig&)>& fits) {
  int64_t below = 0, above = units_of(config, axis).front() / step + 1;  // in steps: fits, fits not
  while (above - below > 1) {
    const int64_t middle = (below + above) / 2;
    (fits(with_units(config, axis, middle * step)) ? below : above) = middle;
  }
  return below * step;
}

DecoderMasks masks_on(CutAxis axis, std::vector<at::Tensor> rows, const ModelConfig& config) {
  COPPICE_CHECK(rows.size() == units_of(config, axis).size(), "one vector of multipliers a row");
  switch (axis) {
    case CutAxis::ffn:
      return {.multiplier_F = std::move(rows)};
    case CutAxis::heads:
      return {.multiplier_F = {}, .multiplier_G = std::move(rows)};
    case CutAxis::layers: {
      DecoderMasks masks;  // a layer adds what its heads and its channels give: both times its multiplier
      for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
        const at::Tensor multiplier = rows.front()[layer];
        masks.multiplier_F.push_back(
            multiplier.expand({config.intermediate_size[static_cast<size_t>(layer)]}).contiguous());
        masks.multiplier_G.push_back(multiplier.expand({config.num_key_value_heads}).contiguous());
      }
      return masks;
    }
    case CutAxis::hidden:
      return {.multiplier_F = {}, .multiplier_D = rows.front()};
  }
  throw InternalError("an axis without masks");
}

DecoderMasks masks_on(CutAxis axis, const at::Tensor& mask_RU, const ModelConfig& config) {
  const std::vector<int64_t> units = units_of(config, axis);
  check_shape(mask_RU, {static_cast<int64_t>(units.size()), -1}, "mask_RU");
  std::vector<at::Tensor> rows = mask_RU.unbind(0);
  for (size_t row = 0; row < units.size(); ++row) rows[row] = rows[row].narrow(0, 0, units[row]);
  return masks_on(axis, std::move(rows), config);
}

}  // namespace coppice
