// Where the op tests run: one body over a table of (device, element type). A row that this machine or build cannot
// compute on is passed over, and says why.
#pragma once

#include <doctest/doctest.h>

#include <functional>
#include <string>
#include <vector>

#include "src/tensors/cuda_devices.h"
#include "src/tensors/device.h"

namespace coppice {

/// Rows of every run, and rows of the suite "gpu".
inline std::vector<Placement> host_placements() { return {{.device = at::kCPU, .compute = at::kFloat}}; }
inline std::vector<Placement> device_placements() {
  return {{.device = at::Device(at::kCUDA, 0), .compute = at::kFloat}};
}

inline void on_each(const std::vector<Placement>& placements, const std::function<void(const Placement&)>& body) {
  for (const Placement& on : placements) {
    const std::string name = device_name(on.device) + " " + dtype_name(on.compute);
    CAPTURE(name);
    if (const std::string why = why_not_here(on.device); !why.empty()) {
      MESSAGE("skipped on " << name << ": " << why);
      CHECK(!why.empty());
      continue;
    }
    body(on);
  }
}

}  // namespace coppice
