// Products of matrices, float32 or bfloat16 both; sums are float32 either way. bfloat16 on the CPU is what a device
// computes: operands widened, a float32 product, rounded where a device rounds.
#pragma once

#include <ATen/core/Tensor.h>

namespace coppice {

/// The tensor as float32; itself where it is.
at::Tensor widened(const at::Tensor& tensor);

/// a b, or bias + a b, in a's type; the bias (float32 [columns]; undefined: none) is rounded to it first.
at::Tensor product(const at::Tensor& a, const at::Tensor& b, const at::Tensor& bias = {});
/// The same into `out`, of a's type or float32.
void product_out(at::Tensor& out, const at::Tensor& a, const at::Tensor& b);
/// sum += a b; sum is float32.
void add_product(const at::Tensor& sum, const at::Tensor& a, const at::Tensor& b);

}  // namespace coppice
