// Learned FFN masks by exact Soft-Top-K (CoDA, arXiv 2304.04947): raw scores r per channel, standardised per layer, become a mask that sums to k.
//   s = (r - mean r)/(std r + 1e-6);  lambda = soft_top_k(s, k(p), epsilon(p));  optionally lambda * Top(lambda, K) for the last tenth
// p in [0, 1] is the share of mask steps done. L layers, F channels of the source, K kept. Other methods: mask_methods.h.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "pruning/mask_budget.h"
#include "pruning/mask_options.h"
#include "src/model/decoder.h"

namespace coppice {

/// Raw scores r ~ N(0, std^2), [L, F]; a function of the seed alone.
at::Tensor initial_scores(int64_t num_layers, int64_t num_channels, double std, uint64_t seed);
/// (r - mean)/(std + 1e-6) per row, std of the population, differentiable; a row of equal scores gives zeros and a zero gradient.
at::Tensor standardise_scores(const at::Tensor& raw_LF);
/// The soft mask of one step [L, F], differentiable with respect to raw_LF. Under `top` the channels outside the ceil(max(k, num_kept)) best raw scores are
/// zero, a constant for the gradient; while k still ramps, so does that set.
at::Tensor soft_mask(const at::Tensor& raw_LF, const MaskSchedule& schedule, int64_t num_kept);
/// One row per layer, as the decoder takes it.
FfnMasks masks_of(const at::Tensor& mask_LF);

}  // namespace coppice
