// Where a stage computes, in which element type, and with which attention: keys of the recipe, and of each stage that
// computes, whose own come first. They round results otherwise and decide none: no part of an identity.
#pragma once

#include <string>

#include "src/base/option_mark.h"

namespace coppice {

class OptionTable;
struct Placement;  // src/tensors/device.h

struct PlacementOptions {
  std::string device = "auto";
  std::string compute = "auto";
  std::string attention = "repeatable";

  template <class Field>
  void visit_fields(Field& field) {
    field(
        "device", device, Mark::rounding,
        "cpu, cuda (the first one), cuda:N, or auto: cuda where program and machine have it, otherwise cpu; a stage's "
        "empty one is the recipe's, as with the next two");
    field("compute", compute, Mark::rounding,
          "of activations and products: fp32, bf16, or auto: bf16 on cuda, fp32 on cpu");
    field("attention", attention, Mark::rounding,
          "on cuda: repeatable (a run repeats bit for bit), or fast (it does not)");
  }
};

/// The keys of a recipe; UserError::recipe for what they cannot be.
PlacementOptions read_placement(OptionTable& root);
/// The keys of a stage; what it leaves empty is the recipe's.
PlacementOptions read_placement(OptionTable& stage, const PlacementOptions& recipes);

/// What they come to on this machine. Asks the CUDA driver where `device` is "auto" (src/tensors/cuda_devices.h), and
/// not whether a device that is named is there.
Placement place(const PlacementOptions& options);
/// "fp32", "bf16": its element type as `compute` names it.
std::string compute_name(const Placement& placement);

}  // namespace coppice
