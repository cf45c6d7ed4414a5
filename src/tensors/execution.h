// Who runs a fused operation: the loops of the CPU, or its CUDA kernels, on a device or on the host. What is torch's
// own (products, attention) follows its tensors.
#pragma once

#include <ATen/core/Tensor.h>

namespace coppice {

/// cpu: the vectorised float32 loops. emulated: the kernels, run on the host by src/tensors/executor, which makes
/// bfloat16 on the CPU the rehearsal of a run on a device. device: the kernels on a CUDA device.
enum class Execution { cpu, emulated, device };

/// Of an op that computes with this tensor: on CUDA device; on the CPU in bfloat16 emulated, in float32 cpu.
Execution execution_of(const at::Tensor& tensor);

/// While one lives, float32 on the CPU is emulated too: for tests of the kernels' float instances. Not nested.
class EmulatedFloat32 {
 public:
  EmulatedFloat32();
  ~EmulatedFloat32();
  EmulatedFloat32(const EmulatedFloat32&) = delete;
  EmulatedFloat32& operator=(const EmulatedFloat32&) = delete;
};

}  // namespace coppice
