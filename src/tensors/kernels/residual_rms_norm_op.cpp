// Residual add and RMSNorm: checks, autograd, registration. N = tokens, D = hidden size.
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "src/tensors/kernels/launch.h"
#include "src/tensors/kernels/op_checks.h"
#include "src/tensors/kernels/residual_rms_norm.h"
#include "src/tensors/ops.h"

namespace coppice {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// With delta: (residual, normed). Without: (normed), because the residual is x itself.
struct ResidualRmsNormFunction : torch::autograd::Function<ResidualRmsNormFunction> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& x_ND, const at::Tensor& delta,
                               const at::Tensor& weight_D, const at::Tensor& weight_grad_D, double eps) {
    const at::Tensor delta_ND = given(delta);
    const bool has_delta = delta_ND.defined();
    const at::Tensor residual_ND = has_delta ? at::empty_like(x_ND, at::MemoryFormat::Contiguous) : at::Tensor();
    const at::Tensor normed_ND = at::empty_like(x_ND, at::MemoryFormat::Contiguous);
    const at::Tensor rstd_N = at::empty({x_ND.size(0)}, x_ND.options().dtype(at::kFloat));
    with_elements_of(x_ND, [&]<class T>() {
      const ResidualRmsNormParams<T> params{.x = elements<T>(x_ND),
                                            .delta = elements<T>(delta_ND),
                                            .weight = elements<float>(weight_D),
                                            .residual = mutable_elements<T>(residual_ND),
                                            .normed = mutable_elements<T>(normed_ND),
                                            .rstd = mutable_elements<float>(rstd_N),
                                            .num_tokens = x_ND.size(0),
                                            .hidden_size = x_ND.size(1),
                                            .x_row_stride = x_ND.stride(0),
                                            .delta_row_stride = row_stride(delta_ND),
                                            .eps = static_cast<float>(eps)};
      COPPICE_RUN(x_ND, residual_rms_norm, params);
    });
    ctx->set_materialize_grads(false);
    ctx->save_for_backward({has_delta ? residual_ND : x_ND, weight_D, rstd_N});
    ctx->saved_data["weight_grad"] = given(weight_grad_D);
    ctx->saved_data["has_delta"] = has_delta;
    return has_delta ? variable_list{residual_ND, normed_ND} : variable_list{normed_ND};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const bool has_delta = ctx->saved_data["has_delta"].toBool();
    const at::Tensor residual_grad_ND = has_delta && grads[0].defined() ? rows_of(grads[0]) : at::Tensor();
    const at::Tensor& last = grads.back();
    if (!last.defined())
      return {residual_grad_ND, residual_grad_ND, at::Tensor(), at::Tensor(), at::Tensor()};  // nobody used the norm
    const at::Tensor normed_grad_ND = rows_of(last);
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &residual_ND = saved[0], &weight_D = saved[1], &rstd_N = saved[2];
    const at::Tensor x_grad_ND = at::empty_like(residual_ND, at::MemoryFormat::Contiguous);
    const bool wants_weight = ctx->needs_input_grad(2);
    const WeightGradient weight_grad(weight_D, ctx->saved_data["weight_grad"].toTensor());
    const at::Tensor partial =
        wants_weight ? partial_sums(residual_ND, {kResidualRmsNormBlocks, residual_ND.size(1)}) : at::Tensor();
    with_elements_of(residual_ND, [&]<class T>() {
      const ResidualRmsNormBackwardParams<T> params{
          .residual = elements<T>(residual_ND),
          .weight = elements<float>(weight_D),
          .rstd = elements<float>(rstd_N),
          .normed_grad = elements<T>(normed_grad_ND),
          .residual_grad = elements<T>(residual_grad_ND),
          .x_grad = mutable_elements<T>(x_grad_ND),
          .weight_grad = wants_weight ? mutable_elements<float>(weight_grad.buffer) : nullptr,
          .accumulate_weight_grad = weight_grad.accumulate,
          .weight_grad_partial = mutable_elements<float>(partial),
          .num_tokens = residual_ND.size(0),
          .hidden_size = residual_ND.size(1),
          .residual_row_stride = residual_ND.stride(0),
          .normed_grad_row_stride = normed_grad_ND.stride(0),
          .residual_grad_row_stride = row_stride(residual_grad_ND)};
      COPPICE_RUN(residual_ND, residual_rms_norm_backward, params);
    });
    return {x_grad_ND, has_delta ? x_grad_ND : at::Tensor(), wants_weight ? weight_grad.for_autograd() : at::Tensor(),
            at::Tensor(), at::Tensor()};
  }
};

}  // namespace

ResidualNorm residual_rms_norm(const at::Tensor& x_ND, const at::Tensor& delta_ND, const at::Tensor& weight_D,
                               const at::Tensor& weight_grad_D, double eps) {
  check_shape(x_ND, {-1, -1}, "x_ND");
  const Placement on = placement_of(x_ND, "x_ND");
  check_width(x_ND, x_ND.size(1), kResidualRmsNormMostColumns, "x_ND: columns");
  check_shape(weight_D, {x_ND.size(1)}, "weight_D");
  check_dense(weight_D, at::kFloat, on.device, "weight_D");
  check_weight_grad(weight_D, weight_grad_D, "weight_grad_D");
  if (!delta_ND.defined())
    return {x_ND, ResidualRmsNormFunction::apply(x_ND, absent(), weight_D, or_absent(weight_grad_D), eps)[0]};
  check_shape(delta_ND, {x_ND.size(0), x_ND.size(1)}, "delta_ND");
  check_dense(delta_ND, on.compute, on.device, "delta_ND");
  const variable_list outputs = ResidualRmsNormFunction::apply(x_ND, delta_ND, weight_D, or_absent(weight_grad_D), eps);
  return {outputs[0], outputs[1]};
}

TORCH_LIBRARY_FRAGMENT(coppice, m) {
  m.def("residual_rms_norm(Tensor x, Tensor? delta, Tensor weight, float eps) -> (Tensor, Tensor)",
        [](const at::Tensor& x, const std::optional<at::Tensor>& delta, const at::Tensor& weight, double eps) {
          const ResidualNorm out = residual_rms_norm(x, delta.value_or(at::Tensor()), weight, at::Tensor(), eps);
          return std::make_tuple(delta ? out.residual_ND : out.residual_ND.alias(), out.normed_ND);
        });
}

}  // namespace coppice
