// What the losses must be, written with ATen in double, logits and all, and differentiated by autograd: what the
// self-test compares them with.
#pragma once

#include <ATen/core/Tensor.h>

#include "student/targets.h"

namespace coppice {

/// Sums over live rows and the gradients of scale (ce (1-w) + kd w + z).
struct PlainLoss {
  double ce = 0, kd = 0, z = 0;
  at::Tensor hidden_grad_ND, head_grad_VD;
};
PlainLoss plain_loss(const at::Tensor& hidden_ND, const at::Tensor& head_VD, const Targets& targets, double scale);

}  // namespace coppice
