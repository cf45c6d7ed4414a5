// A recipe's stages on one device that need not be there: how each would be run so that it fits, and how long it would
// take. Predictions, all of them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "recipes/run/device_cost.h"

namespace coppice {

/// One stage, or several whose work is the same.
struct DeviceStage {
  StageCost cost;
  int64_t times = 1;
  std::optional<DeviceSettings> training;  // as chosen, where the stage trains
  DeviceMemory memory;
  bool fits = true;
  double seconds = 0, repeatable_seconds = 0;  // of one of them, with the fastest attention and with a repeatable one
  double tokens_per_s = 0, mfu = 0;            // of a step, causal; 0 where the stage does not train
};

struct DevicePlan {
  const DeviceRow* device = nullptr;
  std::vector<DeviceStage> stages;  // those that compute on a device
};

/// Micro-batch, recompute and master of each training stage: the least memory among what is within a hundredth of the
/// fastest that fits; a whole master unless a split one is faster by more. Where nothing fits, what comes nearest.
DevicePlan plan_device(const std::vector<StageCost>& stages, const DeviceRow& device);
/// Whether a stage that trains on a device of so many bytes needs a split master: with so many sequences a micro-batch
/// and nothing computed again, a whole one does not fit.
bool needs_split_master(const StageCost& cost, int64_t micro_rows, double device_bytes);
/// What `coppice plan --device` prints of it: how each stage runs, its memory by kind, the sums.
std::string device_table(const std::string& recipe_name, const DevicePlan& plan);
/// Refuses what does not fit, with the numbers and what to change (exit 7).
void check_fits(const DevicePlan& plan);

}  // namespace coppice
