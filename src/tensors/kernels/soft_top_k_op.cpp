// Torch at the door of Soft-Top-K: checks, allocation, autograd, registration.
#include <fmt/format.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <cmath>

#include "src/base/errors.h"
#include "src/tensors/device.h"
#include "src/tensors/kernels/launch.h"
#include "src/tensors/kernels/soft_top_k.h"
#include "src/tensors/ops.h"
#include "src/tensors/shape.h"

namespace coppice {

namespace {

[[noreturn]] void refuse(const at::Tensor& scores_LF, int64_t row) {
  const int64_t num_bad =
      scores_LF.size(1) - scores_LF.select(0, row).abs().le(kLargestSoftTopKScore).sum().item<int64_t>();
  throw DivergedError(fmt::format("soft_top_k: row {}: {} of {} scores are not finite or above {:g} in size", row,
                                  num_bad, scores_LF.size(1), kLargestSoftTopKScore));
}

/// `free_mask_LF` undefined: no backward follows.
at::Tensor solve(const at::Tensor& scores_LF, double k, double epsilon, const at::Tensor& free_mask_LF) {
  const at::Tensor scores = scores_LF.stride(1) == 1 ? scores_LF : scores_LF.contiguous();
  const Execution execution = execution_of(scores);
  at::Tensor soft_mask_LF = scores.new_empty({scores.size(0), scores.size(1)}), num_bad_L;
  if (execution != Execution::cpu) num_bad_L = at::empty({scores.size(0)}, scores.options().dtype(at::kInt));
  const SoftTopKParams params{.scores = elements<float>(scores),
                              .soft_mask = mutable_elements<float>(soft_mask_LF),
                              .free_mask = mutable_elements<float>(free_mask_LF),
                              .num_bad = mutable_elements<int32_t>(num_bad_L),
                              .num_rows = scores.size(0),
                              .num_channels = scores.size(1),
                              .scores_row_stride = scores.stride(0),
                              .k = k,
                              .epsilon = epsilon};
  if (execution == Execution::cpu) {
    const int64_t bad_row = soft_top_k_cpu(params);
    if (bad_row >= 0) refuse(scores, bad_row);
    return soft_mask_LF;
  }
  COPPICE_LAUNCH(scores, soft_top_k, params);
  for (int64_t row = 0; execution == Execution::emulated && row < scores.size(0); ++row)
    if (params.num_bad[row] != 0) refuse(scores, row);
  return soft_mask_LF;
}

struct SoftTopKFunction : torch::autograd::Function<SoftTopKFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& scores_LF, double k,
                            double epsilon) {
    const at::Tensor free_mask_LF = scores_LF.new_empty({scores_LF.size(0), scores_LF.size(1)});
    context->saved_data["epsilon"] = epsilon;
    context->save_for_backward({free_mask_LF});
    return solve(scores_LF, k, epsilon, free_mask_LF);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    COPPICE_CHECK(!at::GradMode::is_enabled(), "soft_top_k has no second derivative");
    const at::Tensor free_mask_LF = context->get_saved_variables()[0];
    const at::Tensor grad_LF = grads[0].contiguous();
    at::Tensor scores_grad_LF = at::empty_like(grad_LF);
    const SoftTopKBackwardParams params{.free_mask = elements<float>(free_mask_LF),
                                        .soft_mask_grad = elements<float>(grad_LF),
                                        .scores_grad = mutable_elements<float>(scores_grad_LF),
                                        .num_rows = grad_LF.size(0),
                                        .num_channels = grad_LF.size(1),
                                        .epsilon = context->saved_data["epsilon"].toDouble()};
    COPPICE_RUN(grad_LF, soft_top_k_backward, params);
    return {scores_grad_LF, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor soft_top_k(const at::Tensor& scores_LF, double k, double epsilon) {
  check_shape(scores_LF, {-1, -1}, "scores_LF");
  COPPICE_CHECK(scores_LF.scalar_type() == at::kFloat,
                fmt::format("scores_LF: got {}, expected float32", c10::toString(scores_LF.scalar_type())));
  check_available(scores_LF.device(), "scores_LF");
  COPPICE_CHECK(k > 0 && k <= static_cast<double>(scores_LF.size(1)),
                fmt::format("k: got {}, expected more than 0 and at most {} [F]", k, scores_LF.size(1)));
  COPPICE_CHECK(epsilon > 1e-30 && std::isfinite(epsilon),
                fmt::format("epsilon: got {}, expected a positive number", epsilon));
  if (at::GradMode::is_enabled() && scores_LF.requires_grad()) return SoftTopKFunction::apply(scores_LF, k, epsilon);
  return solve(scores_LF, k, epsilon, at::Tensor());
}

TORCH_LIBRARY_FRAGMENT(coppice, m) {
  m.def("soft_top_k(Tensor scores_LF, float k, float epsilon) -> Tensor", &soft_top_k);
}

}  // namespace coppice
