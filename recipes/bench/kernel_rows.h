// The rows of the table of docs/performance.md, each through the door of its operation: `coppice bench --kernels`
// measures them beside what is predicted.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "recipes/folder/devices.h"
#include "src/tensors/device.h"

namespace coppice {

namespace bench {
struct Ceilings;
}

struct MeasuredKernels {
  const PredictedRow* row = nullptr;
  std::string skipped;  // why nothing was measured; the rest is empty then
  bool tiny = false;    // the row's shape made small: its bytes and its prediction are those of the row no more
  int64_t calls = 0;
  double median_s = 0, p20_s = 0, p80_s = 0;  // of all the row's kernels
  double gbs = 0, share_of_copy = 0;
  double predicted_s = 0;  // 0: for no such device
  bool repeats = false;    // the same call from the same state left the same bits
};

/// On a device at the row's shape in bf16, on a CPU at a tiny one by the executor. Each call finds nothing of its
/// inputs in the device's cache, and the device busy, so that no time passes between a kernel's events but its own.
/// InternalError for a result that is not finite; a row for which memory is short is skipped. `device`: nullptr for
/// none that is known.
MeasuredKernels measure_kernels(const PredictedRow& row, const Placement& on, const bench::Ceilings& roof,
                                const DeviceRow* device);

/// "residual_rms_norm", or the names of several.
std::string kernel_names(const PredictedRow& row);
nlohmann::ordered_json kernels_json(const MeasuredKernels& measured);
/// The same for people.
std::string kernels_table(const std::vector<MeasuredKernels>& rows, const DeviceRow* device);

}  // namespace coppice
