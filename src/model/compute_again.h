// A stretch of a decoder layer, from a norm's output to the output of a linear, that keeps nothing of what it computes
// but the residual stream at its beginning, which its norm keeps anyway, and runs again in the backward pass.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

#include "src/model/decoder.h"
#include "src/tensors/ops.h"

namespace coppice {

/// Multipliers of one layer; undefined = dense.
struct LayerMasks {
  at::Tensor ffn_F, heads_G, stream_D;
};

/// What goes into the stretch's linear, and the residual stream behind the stretch (undefined: what it began with).
struct StretchOutput {
  at::Tensor entering_NI, residual_ND;
};

/// Owns all that it reads, since it runs a second time when the forward pass is long over.
struct Stretch {
  std::function<StretchOutput(const ResidualNorm& norm, const LayerMasks& masks)> run;  // up to its linear
  Weight linear, bias;                                                                  // bias undefined = none
  at::Tensor norm_weight_D;
  double eps = 0;
  bool norm_adds = true;  // the norm at its beginning added a delta to the stream
};

/// What follows a stretch.
struct StretchEnd {
  at::Tensor out_NO, residual_ND;
};
/// Runs the stretch behind `norm`, the ordinary way: autograd keeps what each operation needs.
StretchEnd run_and_keep(const Stretch& stretch, const ResidualNorm& norm, const LayerMasks& masks);
/// The same numbers, and in the backward pass the same gradients to the bit, from norm.residual_ND alone. The linear's
/// product is not among what is made again.
StretchEnd run_to_run_again(const Stretch& stretch, const ResidualNorm& norm, const LayerMasks& masks);

}  // namespace coppice
