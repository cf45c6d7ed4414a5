// --device and --compute of a verb that reads models: what a recipe's keys of these names are to a run.
#pragma once

#include "recipes/language/placement_options.h"
#include "src/tensors/device.h"

namespace CLI {
class App;
}

namespace coppice {

/// Adds both flags; `options` must outlive the verb.
void add_placement(CLI::App* verb, PlacementOptions& options);
/// Where they say, by this build and machine; DeviceError::unavailable (exit 1) where nothing can be computed there.
Placement placed(const PlacementOptions& options);

}  // namespace coppice
