// SwiGLU with mask, and the product behind it that keeps nothing of h: checks, autograd, registration. F = FFN
// channels, N = tokens, O = outputs.
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "src/tensors/kernels/launch.h"
#include "src/tensors/kernels/op_checks.h"
#include "src/tensors/kernels/products.h"
#include "src/tensors/kernels/swiglu.h"
#include "src/tensors/ops.h"
#include "src/tensors/shape.h"

namespace coppice {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor hidden_of(const at::Tensor& gate_up_N2F, const at::Tensor& ffn_mask_F) {
  at::Tensor h_NF = gate_up_N2F.new_empty({gate_up_N2F.size(0), gate_up_N2F.size(1) / 2});
  with_elements_of(gate_up_N2F, [&]<class T>() {
    const SwigluParams<T> params{.gate_up = elements<T>(gate_up_N2F),
                                 .ffn_mask = elements<float>(ffn_mask_F),
                                 .h = mutable_elements<T>(h_NF),
                                 .num_tokens = h_NF.size(0),
                                 .num_channels = h_NF.size(1),
                                 .gate_up_row_stride = gate_up_N2F.stride(0)};
    COPPICE_RUN(gate_up_N2F, swiglu, params);
  });
  return h_NF;
}

/// From h's gradient; `h_NF`, where defined, is made again on the way.
struct Gradients {
  at::Tensor gate_up_N2F, ffn_mask_F;  // the mask's undefined: not wanted
};
Gradients gradients_of(const at::Tensor& h_grad, const at::Tensor& gate_up_N2F, const at::Tensor& ffn_mask_F,
                       bool wants_mask, const at::Tensor& h_NF) {
  const at::Tensor h_grad_NF = rows_of(h_grad);
  Gradients grads{.gate_up_N2F = at::empty_like(gate_up_N2F, at::MemoryFormat::Contiguous)};
  at::Tensor partial;
  if (ffn_mask_F.defined() && wants_mask) {
    grads.ffn_mask_F = at::empty_like(ffn_mask_F);
    partial = partial_sums(gate_up_N2F, {swiglu_row_groups(h_grad_NF.size(0)), h_grad_NF.size(1)});
  }
  with_elements_of(gate_up_N2F, [&]<class T>() {
    const SwigluBackwardParams<T> params{.gate_up = elements<T>(gate_up_N2F),
                                         .ffn_mask = elements<float>(ffn_mask_F),
                                         .h_grad = elements<T>(h_grad_NF),
                                         .gate_up_grad = mutable_elements<T>(grads.gate_up_N2F),
                                         .ffn_mask_grad = mutable_elements<float>(grads.ffn_mask_F),
                                         .h = mutable_elements<T>(h_NF),
                                         .ffn_mask_grad_partial = mutable_elements<float>(partial),
                                         .num_tokens = h_grad_NF.size(0),
                                         .num_channels = h_grad_NF.size(1),
                                         .gate_up_row_stride = gate_up_N2F.stride(0),
                                         .h_grad_row_stride = h_grad_NF.stride(0)};
    COPPICE_RUN(gate_up_N2F, swiglu_backward, params);
  });
  return grads;
}

struct SwigluFunction : torch::autograd::Function<SwigluFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& gate_up_N2F, const at::Tensor& ffn_mask) {
    const at::Tensor ffn_mask_F = given(ffn_mask);
    ctx->save_for_backward({gate_up_N2F, ffn_mask_F});
    return hidden_of(gate_up_N2F, ffn_mask_F);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const Gradients own = gradients_of(grads[0], saved[0], saved[1], ctx->needs_input_grad(1), /*h_NF=*/{});
    return {own.gate_up_N2F, own.ffn_mask_F};
  }
};

struct SwigluLinearFunction : torch::autograd::Function<SwigluLinearFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& gate_up_N2F, const at::Tensor& ffn_mask,
                            const at::Tensor& weight_OF, const at::Tensor& weight_grad_OF) {
    const at::Tensor ffn_mask_F = given(ffn_mask);
    ctx->save_for_backward({gate_up_N2F, ffn_mask_F, weight_OF});
    ctx->saved_data["weight_grad"] = given(weight_grad_OF);
    return product(hidden_of(gate_up_N2F, ffn_mask_F), weight_OF.t());
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const at::Tensor y_grad_NO = rows_of(grads[0]);
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &gate_up_N2F = saved[0], &weight_OF = saved[2];
    const bool wants_weight = ctx->needs_input_grad(2);
    at::Tensor h_NF, returned_weight_grad_OF;
    if (wants_weight) h_NF = gate_up_N2F.new_empty({gate_up_N2F.size(0), gate_up_N2F.size(1) / 2});
    const Gradients own =
        gradients_of(product(y_grad_NO, weight_OF), gate_up_N2F, saved[1], ctx->needs_input_grad(1), h_NF);
    if (wants_weight) {
      const at::Tensor weight_grad_OF = ctx->saved_data["weight_grad"].toTensor();
      if (weight_grad_OF.defined())
        add_product(weight_grad_OF, y_grad_NO.t(), h_NF);
      else
        returned_weight_grad_OF = product(y_grad_NO.t(), h_NF);
    }
    return {own.gate_up_N2F, own.ffn_mask_F, returned_weight_grad_OF, at::Tensor()};
  }
};

/// Where gate and up and the mask lie.
Placement check_gate_up(const at::Tensor& gate_up_N2F, const at::Tensor& ffn_mask_F) {
  check_shape(gate_up_N2F, {-1, -1}, "gate_up_N2F");
  const Placement on = placement_of(gate_up_N2F, "gate_up_N2F");
  COPPICE_CHECK(gate_up_N2F.size(1) % 2 == 0,
                fmt::format("gate_up_N2F: {} columns, expected gate and up of equal width", gate_up_N2F.size(1)));
  if (ffn_mask_F.defined()) {
    check_shape(ffn_mask_F, {gate_up_N2F.size(1) / 2}, "ffn_mask_F");
    check_dense(ffn_mask_F, at::kFloat, on.device, "ffn_mask_F");
  }
  return on;
}

}  // namespace

at::Tensor swiglu(const at::Tensor& gate_up_N2F, const at::Tensor& ffn_mask_F) {
  check_gate_up(gate_up_N2F, ffn_mask_F);
  return SwigluFunction::apply(gate_up_N2F, or_absent(ffn_mask_F));
}

at::Tensor swiglu_linear(const at::Tensor& gate_up_N2F, const at::Tensor& ffn_mask_F, const at::Tensor& weight_OF,
                         const at::Tensor& weight_grad_OF) {
  const Placement on = check_gate_up(gate_up_N2F, ffn_mask_F);
  check_shape(weight_OF, {-1, gate_up_N2F.size(1) / 2}, "weight_OF");
  check_dense(weight_OF, on.compute, on.device, "weight_OF");
  check_weight_grad(weight_OF, weight_grad_OF, "weight_grad_OF");
  return SwigluLinearFunction::apply(gate_up_N2F, or_absent(ffn_mask_F), weight_OF, or_absent(weight_grad_OF));
}

TORCH_LIBRARY_FRAGMENT(coppice, m) {
  m.def("swiglu(Tensor gate_up, Tensor? ffn_mask=None) -> Tensor",
        [](const at::Tensor& gate_up, const std::optional<at::Tensor>& ffn_mask) {
          return swiglu(gate_up, ffn_mask.value_or(at::Tensor()));
        });
}

}  // namespace coppice
