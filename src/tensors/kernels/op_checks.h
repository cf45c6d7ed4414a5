// What the torch side of every op shares: the checks at its door and the two ways a gradient leaves it.
#pragma once

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "src/base/errors.h"
#include "src/tensors/device.h"
#include "src/tensors/execution.h"
#include "src/tensors/shape.h"

namespace coppice {

/// Where an op computes and in which element type: as its first tensor says, which is checked. Kernels exist for
/// float32 and bfloat16.
inline Placement placement_of(const at::Tensor& tensor, std::string_view name) {
  const bool narrow = tensor.defined() && tensor.scalar_type() == at::kBFloat16;
  const Placement on{.device = tensor.defined() ? tensor.device() : at::kCPU,
                     .compute = narrow ? at::kBFloat16 : at::kFloat};
  check_dense(tensor, on.compute, on.device, name);
  return on;
}

/// What is wider than the kernels hold is refused; the CPU's loops take any width.
inline void check_width(const at::Tensor& where, int64_t width, int64_t most, std::string_view name) {
  COPPICE_CHECK(execution_of(where) == Execution::cpu || width <= most,
                fmt::format("{}: {}, kernels go up to {}", name, width, most));
}

/// True when ids said to lie below `ids_below` (0 = nobody knows) need no look before they index `size` rows.
inline bool ids_known(int64_t ids_below, int64_t size) { return ids_below > 0 && ids_below <= size; }

/// torch::autograd::Function tracks every tensor argument and refuses an undefined one: what is absent travels as this
/// empty tensor.
inline const at::Tensor& absent() {
  static const at::Tensor* const empty = new at::Tensor(at::empty({0}));
  return *empty;
}
inline const at::Tensor& or_absent(const at::Tensor& tensor) { return tensor.defined() ? tensor : absent(); }
/// Back to an undefined tensor, inside forward.
inline at::Tensor given(const at::Tensor& tensor) { return tensor.is_same(absent()) ? at::Tensor() : tensor; }

/// An incoming gradient as rows of unit stride; copies only what arrives expanded or transposed.
inline at::Tensor rows_of(const at::Tensor& grad) {
  const bool rows = grad.stride(-1) == 1 && (grad.dim() < 2 || grad.size(0) <= 1 || grad.stride(0) >= grad.size(-1));
  return rows ? grad : grad.contiguous();
}

/// A weight's gradient buffer, float32: the arena's view, accumulated into (then autograd gets an undefined gradient),
/// or a fresh tensor to overwrite and return.
struct WeightGradient {
  WeightGradient(const at::Tensor& weight, const at::Tensor& weight_grad)
      : accumulate(weight_grad.defined()),
        buffer(accumulate ? weight_grad : at::empty(weight.sizes(), weight.options().dtype(at::kFloat))) {}
  bool accumulate;
  at::Tensor buffer;
  at::Tensor for_autograd() const { return accumulate ? at::Tensor() : buffer; }
};

/// The view handed over as weight_grad must look like the weight, contiguous and outside autograd.
inline void check_weight_grad(const at::Tensor& weight, const at::Tensor& weight_grad, std::string_view name) {
  if (!weight_grad.defined()) return;
  check_dense(weight_grad, at::kFloat, weight.device(), name);
  COPPICE_CHECK(weight_grad.sizes() == weight.sizes() && weight_grad.is_contiguous(),
                fmt::format("{}: got {}, expected {} contiguous", name, shape_text(weight_grad.sizes()),
                            shape_text(weight.sizes())));
}

}  // namespace coppice
