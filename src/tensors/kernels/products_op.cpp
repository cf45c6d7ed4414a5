#include "src/tensors/kernels/products.h"

#include <ATen/ATen.h>

namespace coppice {

namespace {

/// float32 operands, and those of a device, go to ATen as they are.
bool is_widened(const at::Tensor& tensor) { return tensor.is_cpu() && tensor.scalar_type() != at::kFloat; }

}  // namespace

at::Tensor widened(const at::Tensor& tensor) { return tensor.to(at::kFloat); }

at::Tensor product(const at::Tensor& a, const at::Tensor& b, const at::Tensor& bias) {
  const at::Tensor own_bias = bias.defined() ? bias.to(a.scalar_type()) : bias;
  if (is_widened(a)) {
    const at::Tensor wide_a = widened(a), wide_b = widened(b);
    return (bias.defined() ? at::addmm(widened(own_bias), wide_a, wide_b) : wide_a.mm(wide_b)).to(a.scalar_type());
  }
  return bias.defined() ? at::addmm(own_bias, a, b) : a.mm(b);
}

void product_out(at::Tensor& out, const at::Tensor& a, const at::Tensor& b) {
  if (is_widened(a))
    out.copy_(widened(a).mm(widened(b)));
  else if (out.scalar_type() == a.scalar_type())
    at::mm_out(out, a, b);
  else
    at::mm_out(out, a, b, out.scalar_type());
}

void add_product(const at::Tensor& sum, const at::Tensor& a, const at::Tensor& b) {
  if (is_widened(a))
    sum.addmm_(widened(a), widened(b));
  else if (a.scalar_type() == at::kFloat)
    sum.addmm_(a, b);
  else {
    at::Tensor out = sum;
    at::addmm_out(out, sum, a, b, at::kFloat);  // accumulates in place: self is out
  }
}

}  // namespace coppice
