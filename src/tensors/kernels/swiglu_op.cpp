// SwiGLU with mask: checks, autograd, registration. F = FFN channels, N = tokens.
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "src/tensors/kernels/launch.h"
#include "src/tensors/kernels/op_checks.h"
#include "src/tensors/kernels/swiglu.h"
#include "src/tensors/ops.h"
#include "src/tensors/shape.h"

namespace coppice {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct SwigluFunction : torch::autograd::Function<SwigluFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& gate_up_N2F, const at::Tensor& ffn_mask) {
    const at::Tensor ffn_mask_F = given(ffn_mask);
    ctx->save_for_backward({gate_up_N2F, ffn_mask_F});
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

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &gate_up_N2F = saved[0], &ffn_mask_F = saved[1];
    const at::Tensor h_grad_NF = rows_of(grads[0]);
    at::Tensor gate_up_grad_N2F = at::empty_like(gate_up_N2F, at::MemoryFormat::Contiguous);
    at::Tensor ffn_mask_grad_F, partial;
    if (ffn_mask_F.defined() && ctx->needs_input_grad(1)) {
      ffn_mask_grad_F = at::empty_like(ffn_mask_F);
      partial = partial_sums(gate_up_N2F, {swiglu_row_groups(h_grad_NF.size(0)), h_grad_NF.size(1)});
    }
    with_elements_of(gate_up_N2F, [&]<class T>() {
      const SwigluBackwardParams<T> params{.gate_up = elements<T>(gate_up_N2F),
                                           .ffn_mask = elements<float>(ffn_mask_F),
                                           .h_grad = elements<T>(h_grad_NF),
                                           .gate_up_grad = mutable_elements<T>(gate_up_grad_N2F),
                                           .ffn_mask_grad = mutable_elements<float>(ffn_mask_grad_F),
                                           .ffn_mask_grad_partial = mutable_elements<float>(partial),
                                           .num_tokens = h_grad_NF.size(0),
                                           .num_channels = h_grad_NF.size(1),
                                           .gate_up_row_stride = gate_up_N2F.stride(0),
                                           .h_grad_row_stride = h_grad_NF.stride(0)};
      COPPICE_RUN(gate_up_N2F, swiglu_backward, params);
    });
    return {gate_up_grad_N2F, ffn_mask_grad_F};
  }
};

}  // namespace

at::Tensor swiglu(const at::Tensor& gate_up_N2F, const at::Tensor& ffn_mask_F) {
  check_shape(gate_up_N2F, {-1, -1}, "gate_up_N2F");
  const Placement on = placement_of(gate_up_N2F, "gate_up_N2F");
  COPPICE_CHECK(gate_up_N2F.size(1) % 2 == 0,
                fmt::format("gate_up_N2F: {} columns, expected gate and up of equal width", gate_up_N2F.size(1)));
  if (ffn_mask_F.defined()) {
    check_shape(ffn_mask_F, {gate_up_N2F.size(1) / 2}, "ffn_mask_F");
    check_dense(ffn_mask_F, at::kFloat, on.device, "ffn_mask_F");
  }
  return SwigluFunction::apply(gate_up_N2F, or_absent(ffn_mask_F));
}

TORCH_LIBRARY_FRAGMENT(coppice, m) {
  m.def("swiglu(Tensor gate_up, Tensor? ffn_mask=None) -> Tensor",
        [](const at::Tensor& gate_up, const std::optional<at::Tensor>& ffn_mask) {
          return swiglu(gate_up, ffn_mask.value_or(at::Tensor()));
        });
}

}  // namespace coppice
