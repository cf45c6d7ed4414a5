#include "recipes/language/placement_options.h"

#include "recipes/language/recipe_reading.h"
#include "src/base/errors.h"
#include "src/tensors/cuda_devices.h"
#include "src/tensors/device.h"

namespace coppice {
namespace {

void check_placement(const OptionTable& table, const PlacementOptions& options) {
  if (!find_device(options.device))
    check_choice(options.device, {"auto", "cpu", "cuda", "cuda:1"}, table.where("device"), "device");
  check_choice(options.compute, {"auto", "fp32", "bf16"}, table.where("compute"), "compute");
  check_choice(options.attention, {"repeatable", "fast"}, table.where("attention"), "attention");
}

}  // namespace

PlacementOptions read_placement(OptionTable& root) {
  PlacementOptions options;
  root.read(options);
  check_placement(root, options);
  return options;
}

PlacementOptions read_placement(OptionTable& stage, const PlacementOptions& recipes) {
  PlacementOptions own{.device = "", .compute = "", .attention = ""};
  stage.read(own);
  if (own.device.empty()) own.device = recipes.device;
  if (own.compute.empty()) own.compute = recipes.compute;
  if (own.attention.empty()) own.attention = recipes.attention;
  check_placement(stage, own);
  return own;
}

Placement place(const PlacementOptions& options) {
  Placement placement;
  if (options.device != "auto")
    placement.device = find_device(options.device).value();
  else if (num_cuda_devices() > 0)
    placement.device = find_device("cuda").value();
  const bool bf16 = options.compute == "bf16" || (options.compute == "auto" && placement.device.is_cuda());
  placement.compute = bf16 ? at::kBFloat16 : at::kFloat;
  return placement;
}

std::string compute_name(const Placement& placement) { return placement.compute == at::kBFloat16 ? "bf16" : "fp32"; }

}  // namespace coppice
