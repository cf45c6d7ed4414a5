// Torch at the door of distillation from stored top-k probabilities.
#include "src/tensors/kernels/linear_top_k_cross_entropy.h"

#include <fmt/format.h>
#include <torch/library.h>

#include "src/tensors/kernels/op_checks.h"
#include "src/tensors/kernels/top_k_step.h"

namespace coppice {

namespace {

void check_top_k(const TopK& top, int64_t num_rows, int64_t num_vocab, int64_t labels_below) {
  check_shape(top.id_NK, {num_rows, -1}, "top_id_NK");
  const int64_t k = top.id_NK.size(1);
  check_shape(top.logp_NK, {num_rows, k}, "top_logp_NK");
  check_shape(top.tail_logp_N, {num_rows}, "tail_logp_N");
  check_dense(top.logp_NK, at::kFloat, top.id_NK.device(), "top_logp_NK");
  check_dense(top.tail_logp_N, at::kFloat, top.id_NK.device(), "tail_logp_N");
  COPPICE_CHECK(top.id_NK.scalar_type() == at::kLong && top.id_NK.is_contiguous() && top.logp_NK.is_contiguous() &&
                    top.tail_logp_N.is_contiguous(),
                "top_id_NK, top_logp_NK, tail_logp_N: expected contiguous int64, float32, float32");
  if (ids_known(labels_below, num_vocab)) return;
  const int64_t* id = top.id_NK.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < num_rows * k; ++i)
    COPPICE_CHECK(id[i] < num_vocab,
                  fmt::format("top_id_NK[{}][{}]: got {}, expected at most {}", i / k, i % k, id[i], num_vocab - 1));
}

}  // namespace

HeadRows checked_top_k_rows(const HeadRows& rows, const TopK& top, const TopKSettings& settings) {
  HeadRows checked = checked_rows(rows);
  check_top_k(top, checked.hidden_ND.size(0), checked.num_vocab(), checked.labels_below);
  COPPICE_CHECK(settings.teacher_weight >= 0.0 && settings.teacher_weight <= 1.0,
                fmt::format("teacher_weight: got {}, expected 0 to 1", settings.teacher_weight));
  COPPICE_CHECK(settings.temperature > 0.0, fmt::format("temperature: got {}, expected above 0", settings.temperature));
  return checked;
}

LinearLoss top_k_cross_entropy_step(const HeadRows& rows, const TopK& top, double teacher_weight, double temperature,
                                    double z_loss) {
  const at::NoGradGuard no_grad;
  return top_k_step<TopKStatistics>(rows, top,
                                    {.teacher_weight = teacher_weight, .temperature = temperature, .z_loss = z_loss},
                                    {.whole = top_k_cross_entropy_cpu,
                                     .measure = top_k_cross_entropy_statistics_cpu,
                                     .finish = top_k_cross_entropy_gradient_cpu});
}

at::Tensor linear_top_k_cross_entropy(const at::Tensor& hidden_ND, const at::Tensor& head_VD,
                                      const at::Tensor& true_label, const TopK& top_k, double teacher_weight,
                                      double temperature, double z_loss) {
  const at::Tensor true_label_N = true_label.contiguous();
  const TopK top{.id_NK = top_k.id_NK.contiguous(),
                 .logp_NK = top_k.logp_NK.contiguous(),
                 .tail_logp_N = top_k.tail_logp_N.contiguous()};
  return mean_linear_loss(
      hidden_ND, head_VD, true_label_N, teacher_weight,
      [=](const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& head_grad, double scale) {
        return top_k_cross_entropy_step({.hidden_ND = hidden,
                                         .head_VD = head,
                                         .head_grad_VD = head_grad,
                                         .true_label_N = true_label_N,
                                         .scale = scale},
                                        top, teacher_weight, temperature, z_loss);
      });
}

TORCH_LIBRARY_FRAGMENT(coppice, m) {
  m.def(
      "linear_top_k_cross_entropy(Tensor hidden_ND, Tensor head_VD, Tensor true_label_N, Tensor top_id_NK, Tensor "
      "top_logp_NK, Tensor tail_logp_N, float "
      "teacher_weight, "
      "float temperature, float z_loss) -> Tensor",
      [](const at::Tensor& hidden_ND, const at::Tensor& head_VD, const at::Tensor& true_label_N,
         const at::Tensor& top_id_NK, const at::Tensor& top_logp_NK, const at::Tensor& tail_logp_N,
         double teacher_weight, double temperature, double z_loss) {
        return linear_top_k_cross_entropy(hidden_ND, head_VD, true_label_N,
                                          {.id_NK = top_id_NK, .logp_NK = top_logp_NK, .tail_logp_N = tail_logp_N},
                                          teacher_weight, temperature, z_loss);
      });
}

}  // namespace coppice
