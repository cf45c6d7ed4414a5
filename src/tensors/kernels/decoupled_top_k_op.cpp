#include "src/tensors/decoupled_top_k.h"

#include <ATen/core/grad_mode.h>

#include "src/tensors/kernels/decoupled_top_k.h"
#include "src/tensors/kernels/top_k_step.h"

namespace coppice {

LinearLoss decoupled_top_k_step(const HeadRows& rows, const TopK& top, double teacher_weight, double temperature,
                                double z_loss) {
  const at::NoGradGuard no_grad;
  const auto whole = [](const at::Tensor& where, const auto& params) { COPPICE_RUN(where, decoupled_top_k, params); };
  return top_k_step<DecoupledStatistics>(
      rows, top, {.teacher_weight = teacher_weight, .temperature = temperature, .z_loss = z_loss}, whole,
      {.measure = decoupled_top_k_statistics_cpu, .finish = decoupled_top_k_gradient_cpu});
}

}  // namespace coppice
