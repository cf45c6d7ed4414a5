// Where the op tests run: one body over a table of (execution, element type). A row that this machine or build cannot
// compute on is passed over, and says why.
#pragma once

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "src/tensors/cuda_devices.h"
#include "src/tensors/device.h"
#include "src/tensors/execution.h"

namespace coppice {

/// A row: where tensors lie and in which element type, and who computes. The executor takes its time: shapes that prove
/// nothing more are for the others.
struct OpPlacement : Placement {
  Execution execution = Execution::cpu;
  bool is_emulated() const { return execution == Execution::emulated; }
};

/// Rows of every run, and rows of the suite "gpu".
inline std::vector<OpPlacement> host_placements() {
  return {{{.device = at::kCPU, .compute = at::kFloat}, Execution::cpu},
          {{.device = at::kCPU, .compute = at::kFloat}, Execution::emulated},
          {{.device = at::kCPU, .compute = at::kBFloat16}, Execution::emulated}};
}
inline std::vector<OpPlacement> device_placements() {
  const at::Device cuda(at::kCUDA, 0);
  return {{{.device = cuda, .compute = at::kFloat}, Execution::device},
          {{.device = cuda, .compute = at::kBFloat16}, Execution::device}};
}

/// What an op stores in its element type before it goes on, in a composition: the gradient passes as it is.
inline at::Tensor stored(const at::Tensor& value, const Placement& on) {
  return value + (value.detach().to(on.compute).to(value.scalar_type()) - value.detach());
}

inline void on_each(const std::vector<OpPlacement>& placements, const std::function<void(const OpPlacement&)>& body) {
  for (const OpPlacement& on : placements) {
    const std::string name = (on.is_emulated() ? "emulated " : device_name(on.device) + " ") + dtype_name(on.compute);
    CAPTURE(name);
    if (const std::string why = why_not_here(on.device); !why.empty()) {
      MESSAGE("skipped on " << name << ": " << why);
      CHECK(!why.empty());
      continue;
    }
    std::optional<EmulatedFloat32> emulated;
    if (on.is_emulated() && on.compute == at::kFloat) emulated.emplace();
    body(on);
  }
}

}  // namespace coppice
