// What masks learned from scores share: where raw scores r start and how they are scaled, s = (r - mean r)/(std r +
// 1e-6). L layers, F channels of the source. The methods: mask_methods.h.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace coppice {

/// Raw scores r ~ N(0, std^2), [L, F]; a function of the seed alone.
at::Tensor initial_scores(int64_t num_layers, int64_t num_channels, double std, uint64_t seed);
/// (r - mean)/(std + 1e-6) per row, std of the population, differentiable; a row of equal scores gives zeros and a zero
/// gradient.
at::Tensor standardise_scores(const at::Tensor& raw_LF);

}  // namespace coppice
