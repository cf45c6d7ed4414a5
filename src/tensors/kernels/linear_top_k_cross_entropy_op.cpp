// Torch at the door of distillation from stored top-k probabilities, and from shares of draws: a row's different ids,
// nothing left over, to whose divergence the entropy of the shares is added: -sum s log p instead of sum s log(s / p),
// whose mean over the draws is not the divergence from what was drawn from.
#include "src/tensors/kernels/linear_top_k_cross_entropy.h"

#include <fmt/format.h>
#include <torch/library.h>

#include <cmath>

#include "src/tensors/draws.h"
#include "src/tensors/kernels/op_checks.h"
#include "src/tensors/kernels/top_k_step.h"

namespace coppice {

namespace {

void check_top_k(const TopK& top, int64_t num_rows, int64_t num_vocab, int64_t labels_below, at::Device device) {
  check_shape(top.id_NK, {num_rows, -1}, "top_id_NK");
  check_dense(top.id_NK, at::kLong, device, "top_id_NK");
  const int64_t k = top.id_NK.size(1);
  check_shape(top.logp_NK, {num_rows, k}, "top_logp_NK");
  check_shape(top.tail_logp_N, {num_rows}, "tail_logp_N");
  check_dense(top.logp_NK, at::kFloat, device, "top_logp_NK");
  check_dense(top.tail_logp_N, at::kFloat, device, "tail_logp_N");
  COPPICE_CHECK(top.id_NK.is_contiguous() && top.logp_NK.is_contiguous() && top.tail_logp_N.is_contiguous(),
                "top_id_NK, top_logp_NK, tail_logp_N: expected contiguous");
  if (ids_known(labels_below, num_vocab)) return;
  const at::Tensor host_NK = top.id_NK.cpu();
  const int64_t* id = host_NK.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < num_rows * k; ++i)
    COPPICE_CHECK(id[i] < num_vocab,
                  fmt::format("top_id_NK[{}][{}]: got {}, expected at most {}", i / k, i % k, id[i], num_vocab - 1));
}

}  // namespace

HeadRows checked_top_k_rows(const HeadRows& rows, const TopK& top, const TopKSettings& settings) {
  HeadRows checked = checked_rows(rows);
  check_top_k(top, checked.hidden_ND.size(0), checked.num_vocab(), checked.labels_below, checked.hidden_ND.device());
  COPPICE_CHECK(settings.teacher_weight >= 0.0 && settings.teacher_weight <= 1.0,
                fmt::format("teacher_weight: got {}, expected 0 to 1", settings.teacher_weight));
  COPPICE_CHECK(settings.temperature > 0.0, fmt::format("temperature: got {}, expected above 0", settings.temperature));
  return checked;
}

namespace {

LinearLoss step_of(const HeadRows& rows, const TopK& top, const TopKSettings& settings, bool cross_entropy) {
  const at::NoGradGuard no_grad;
  const auto whole = [](const at::Tensor& where, const auto& params) {
    COPPICE_RUN(where, top_k_cross_entropy, params);
  };
  return top_k_step<TopKStatistics>(
      rows, top, settings, whole,
      {.measure = top_k_cross_entropy_statistics_cpu, .finish = top_k_cross_entropy_gradient_cpu}, cross_entropy);
}

/// Sum over live rows with a teacher of -sum s log s.
double entropy_of_shares(const TopK& shares, const at::Tensor& true_label_N) {
  const int64_t k = shares.id_NK.size(1);
  const int64_t *id = shares.id_NK.const_data_ptr<int64_t>(), *label = true_label_N.const_data_ptr<int64_t>();
  const float* logp = shares.logp_NK.const_data_ptr<float>();
  double entropy = 0, last = 0, term = 0;  // most ids of a row share one probability: that of a single draw
  for (int64_t row = 0; row < true_label_N.numel(); ++row, id += k, logp += k) {
    if (label[row] == kIgnoredLabel || k == 0 || id[0] < 0) continue;
    for (int64_t i = 0; i < k; ++i) {
      if (id[i] < 0) continue;
      if (logp[i] != last) last = double{logp[i]}, term = std::exp(last) * last;
      entropy -= term;
    }
  }
  return entropy;
}

}  // namespace

LinearLoss top_k_cross_entropy_step(const HeadRows& rows, const TopK& top, double teacher_weight, double temperature,
                                    double z_loss) {
  return step_of(rows, top, {.teacher_weight = teacher_weight, .temperature = temperature, .z_loss = z_loss},
                 /*cross_entropy=*/false);
}

LinearLoss drawn_cross_entropy_step(const HeadRows& rows, const TopK& shares, double teacher_weight, double temperature,
                                    double z_loss) {
  LinearLoss result =
      step_of(rows, shares, {.teacher_weight = teacher_weight, .temperature = temperature, .z_loss = z_loss},
              /*cross_entropy=*/true);
  if (execution_of(rows.hidden_ND) == Execution::cpu)  // whose loops know the divergence alone
    result.sum_S[kSumKd].add_(temperature * temperature * entropy_of_shares(shares, rows.true_label_N));
  return result;
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
