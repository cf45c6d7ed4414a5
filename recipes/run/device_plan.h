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
  struct {
    DeviceSettings settings;
    bool fits = false;
    double times_as_long = 1;  // as what is chosen
  } own;                       // the best with the recipe's micro-batch
  DeviceMemory memory;
  double snapshot_bytes = 0;  // of the host, where the stage trains
  bool fits = true;
  double seconds = 0, repeatable_seconds = 0;  // of one of them, with the fastest attention and with a repeatable one
  double tokens_per_s = 0, mfu = 0;            // of a step, causal; 0 where the stage does not train
};

struct DevicePlan {
  const DeviceRow* device = nullptr;
  std::vector<DeviceStage> stages;  // those that compute on a device
};

/// Micro-batch, recompute and master of each training stage: the recipe's own micro-batch where it fits and is within a
/// hundredth of the fastest that fits, otherwise the least memory among what is; a whole master unless a split one is
/// faster by more. Where nothing fits, what comes nearest.
DevicePlan plan_device(const std::vector<StageCost>& stages, const DeviceRow& device);
/// What `coppice plan --device` prints of it: how each stage runs, its memory by kind, the sums.
std::string device_table(const std::string& recipe_name, const DevicePlan& plan);

/// How a run's stage trains where its recipe leaves it open.
struct TrainingChoice {
  DeviceSettings settings;
  bool fits = true;
  std::string why;  // for the log
};
/// The same rule on a device of which so much is free before the stage's models are read, with the recipe's
/// micro-batch.
TrainingChoice choose_training(const StageCost& cost, double free_bytes);

/// Refuses what does not fit, with the numbers and what to change (exit 7).
void check_fits(const DevicePlan& plan);

}  // namespace coppice
