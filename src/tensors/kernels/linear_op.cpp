// y = x w^T + b as an autograd function whose weight gradient is one GEMM straight into the gradient arena (beta = 1):
// no temporary, no separate add. In bfloat16 y and the gradient of x are rounded, that of w never is. N = tokens, I =
// inputs, O = outputs.
#include <torch/csrc/autograd/custom_function.h>

#include "src/tensors/kernels/op_checks.h"
#include "src/tensors/kernels/products.h"
#include "src/tensors/ops.h"

namespace coppice {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor bias_gradient(const at::Tensor& y_grad_NO) { return y_grad_NO.sum(0, /*keepdim=*/false, at::kFloat); }

struct LinearFunction : torch::autograd::Function<LinearFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x_NI, const at::Tensor& weight_OI,
                            const at::Tensor& weight_grad_OI, const at::Tensor& bias_O, const at::Tensor& bias_grad_O) {
    ctx->save_for_backward({x_NI, weight_OI});
    ctx->saved_data["weight_grad"] = given(weight_grad_OI);
    ctx->saved_data["bias_grad"] = given(bias_grad_O);
    return product(x_NI, weight_OI.t(), given(bias_O));
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const at::Tensor y_grad_NO = rows_of(grads[0]);
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &x_NI = saved[0], &weight_OI = saved[1];
    at::Tensor x_grad_NI, returned_weight_grad_OI, returned_bias_grad_O;
    if (ctx->needs_input_grad(1)) {
      const at::Tensor weight_grad_OI = ctx->saved_data["weight_grad"].toTensor();
      if (weight_grad_OI.defined())
        add_product(weight_grad_OI, y_grad_NO.t(), x_NI);
      else
        returned_weight_grad_OI = product(y_grad_NO.t(), x_NI);
    }
    if (ctx->needs_input_grad(3)) {
      const at::Tensor bias_grad_O = ctx->saved_data["bias_grad"].toTensor();
      const at::Tensor sum_O = bias_gradient(y_grad_NO);
      if (bias_grad_O.defined())
        bias_grad_O.add_(sum_O);
      else
        returned_bias_grad_O = sum_O;
    }
    if (ctx->needs_input_grad(0)) x_grad_NI = product(y_grad_NO, weight_OI);
    return {x_grad_NI, returned_weight_grad_OI, at::Tensor(), returned_bias_grad_O, at::Tensor()};
  }
};

}  // namespace

at::Tensor linear(const at::Tensor& x_NI, const at::Tensor& weight_OI, const at::Tensor& weight_grad_OI,
                  const at::Tensor& bias_O, const at::Tensor& bias_grad_O) {
  check_shape(x_NI, {-1, -1}, "x_NI");
  const Placement on = placement_of(x_NI, "x_NI");
  check_shape(weight_OI, {-1, x_NI.size(1)}, "weight_OI");
  check_dense(weight_OI, on.compute, on.device, "weight_OI");
  check_weight_grad(weight_OI, weight_grad_OI, "weight_grad_OI");
  if (bias_O.defined()) {
    check_shape(bias_O, {weight_OI.size(0)}, "bias_O");
    check_dense(bias_O, at::kFloat, on.device, "bias_O");
    check_weight_grad(bias_O, bias_grad_O, "bias_grad_O");
  }
  return LinearFunction::apply(x_NI, weight_OI, or_absent(weight_grad_OI), or_absent(bias_O), or_absent(bias_grad_O));
}

at::Tensor linear_backward(const at::Tensor& y_grad_NO, const at::Tensor& x_NI, const at::Tensor& weight_OI,
                           const at::Tensor& weight_grad_OI, const at::Tensor& bias_grad_O) {
  const at::NoGradGuard no_grad;
  const at::Tensor rows_NO = rows_of(y_grad_NO);
  if (weight_grad_OI.defined()) add_product(weight_grad_OI, rows_NO.t(), x_NI);
  if (bias_grad_O.defined()) bias_grad_O.add_(bias_gradient(rows_NO));
  return product(rows_NO, weight_OI);
}

}  // namespace coppice
