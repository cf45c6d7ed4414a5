// What stages cost on this machine as it is: whose models lie on a device here is not held to the host's memory but to
// that device's, and takes the time that is predicted for it.
#pragma once

#include "recipes/run/cost.h"
#include "recipes/run/device_plan.h"
#include "src/tensors/cuda_devices.h"

namespace coppice {

/// The row of a device that is here, with the memory that it has; of one that devices.h does not know only that is to
/// be believed. Valid as long as `here`.
DeviceRow row_of(const CudaDevice& here);

/// memory_bytes becomes what the host holds where the stage computes on a device, and seconds what is predicted for
/// that device (0 where devices.h does not know it). On the CPU nothing changes. Asks the CUDA driver unless the
/// stage's `device` is "cpu".
StageCost placed_cost(const Stage& stage, const StageCost& cost);
/// The same of every stage of the recipe, with memory added up anew; the largest stage counts.
RecipeCost placed_cost(const Recipe& recipe, RecipeCost cost);
/// Refuses (exit 7) a stage that the device which it computes on cannot hold, however it is run there.
void check_device_fits(const Stage& stage, const StageCost& cost);

}  // namespace coppice
