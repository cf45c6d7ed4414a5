// The phases of the optimizer's update (src/tensors/kernels/optimizer_step.h) where the parameters lie.
#pragma once

#include <ATen/core/Tensor.h>

#include "src/tensors/kernels/optimizer_step.h"

namespace coppice {

enum class OptimizerPhase { square_sums, vote, adastar_square_sums, adastar_inverse_rms, adastar_move, adamw_move };

/// Enqueues the kernel of a phase as execution_of(where) says; not for cpu. DeviceError where the launch fails.
void run_optimizer_phase(OptimizerPhase phase, const OptimizerKernelParams& params, const at::Tensor& where);

}  // namespace coppice
