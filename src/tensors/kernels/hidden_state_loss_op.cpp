// Losses between hidden states: checks and autograd. N = tokens, D = hidden size.
#include "src/tensors/hidden_state_loss.h"

#include <torch/csrc/autograd/custom_function.h>

#include "src/tensors/kernels/hidden_state_loss.h"
#include "src/tensors/kernels/launch.h"
#include "src/tensors/kernels/op_checks.h"

namespace coppice {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct HiddenStateLossFunction : torch::autograd::Function<HiddenStateLossFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& student_ND, const at::Tensor& teacher_ND,
                            const at::Tensor& live_N, bool cosine) {
    const auto floats = student_ND.options().dtype(at::kFloat);
    const at::Tensor loss_N = at::empty({student_ND.size(0)}, floats),
                     products_N3 = at::empty({cosine ? student_ND.size(0) : 0, 3}, floats);
    with_elements_of(student_ND, [&]<class T>() {
      const HiddenStateLossParams<T> params{.kind = cosine ? HiddenLoss::cosine : HiddenLoss::mse,
                                            .student = elements<T>(student_ND),
                                            .teacher = elements<T>(teacher_ND),
                                            .live = elements<bool>(live_N),
                                            .loss = mutable_elements<float>(loss_N),
                                            .products = cosine ? mutable_elements<float>(products_N3) : nullptr,
                                            .num_tokens = student_ND.size(0),
                                            .hidden_size = student_ND.size(1),
                                            .student_row_stride = student_ND.stride(0),
                                            .teacher_row_stride = teacher_ND.stride(0)};
      COPPICE_LAUNCH(student_ND, hidden_state_loss, params);
    });
    ctx->save_for_backward({student_ND, teacher_ND, live_N, products_N3});
    ctx->saved_data["cosine"] = cosine;
    return loss_N.sum();
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &student_ND = saved[0], &teacher_ND = saved[1], &live_N = saved[2], &products_N3 = saved[3];
    const bool cosine = ctx->saved_data["cosine"].toBool();
    const at::Tensor student_grad_ND = at::empty_like(student_ND, at::MemoryFormat::Contiguous);
    with_elements_of(student_ND, [&]<class T>() {
      const HiddenStateLossBackwardParams<T> params{.kind = cosine ? HiddenLoss::cosine : HiddenLoss::mse,
                                                    .student = elements<T>(student_ND),
                                                    .teacher = elements<T>(teacher_ND),
                                                    .live = elements<bool>(live_N),
                                                    .products = elements<float>(products_N3),
                                                    .scale = elements<float>(grads[0]),
                                                    .student_grad = mutable_elements<T>(student_grad_ND),
                                                    .num_tokens = student_ND.size(0),
                                                    .hidden_size = student_ND.size(1),
                                                    .student_row_stride = student_ND.stride(0),
                                                    .teacher_row_stride = teacher_ND.stride(0)};
      COPPICE_LAUNCH(student_ND, hidden_state_loss_backward, params);
    });
    return {student_grad_ND, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor sum_hidden_state_loss(std::string_view kind, const at::Tensor& student_ND, const at::Tensor& teacher_ND,
                                 const at::Tensor& live_N) {
  COPPICE_CHECK(kind == "cosine" || kind == "mse", fmt::format("hidden_loss: got '{}', expected cosine or mse", kind));
  check_shape(student_ND, {-1, -1}, "student_ND");
  const Placement on = placement_of(student_ND, "student_ND");
  COPPICE_CHECK(execution_of(student_ND) != Execution::cpu, "student_ND: on the CPU in float32 there is no kernel");
  check_shape(teacher_ND, {student_ND.size(0), student_ND.size(1)}, "teacher_ND");
  check_dense(teacher_ND, on.compute, on.device, "teacher_ND");
  check_shape(live_N, {student_ND.size(0)}, "live_N");
  check_dense(live_N, at::kBool, on.device, "live_N");
  return HiddenStateLossFunction::apply(student_ND, teacher_ND.detach(), live_N, kind == "cosine");
}

}  // namespace coppice
