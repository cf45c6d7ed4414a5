// Distillation from top-k probabilities with the temperature on their shares alone (LFM2, arXiv 2511.23404).
#pragma once

#include "src/tensors/ops.h"

namespace coppice {

/// (1 - w) ce + w [KL of the two masses, the k ids and all others, at temperature 1, + the teacher's mass of the k ids
/// tau^2 KL within them at tau] + z_loss lse^2 for the training step, as mixed_cross_entropy_step; tau = `temperature`.
/// `top` holds probabilities at temperature 1. At tau = 1 it is top_k_cross_entropy_step.
LinearLoss decoupled_top_k_step(const HeadRows& rows, const TopK& top, double teacher_weight, double temperature,
                                double z_loss);

}  // namespace coppice
