// Per row: both maxima, the sums of exponentials, then one pass that has every probability at hand. forward KL is finished there; the other losses need
// sum p h first, so that pass leaves p where the teacher's logits were and a short last pass takes the share of it off.
#include <algorithm>
#include <cmath>
#include <vector>

#include "src/tensors/kernels/linear_distillation.h"
#include "src/tensors/kernels/parallel_rows.h"
#include "src/tensors/kernels/vector_math.h"

namespace coppice {

namespace {

std::vector<double> log_softmax(std::span<const double> logits, double temperature) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const double logit : logits) sum += std::exp((logit - largest) / temperature);
  std::vector<double> result;
  for (const double logit : logits) result.push_back((logit - largest) / temperature - std::log(sum));
  return result;
}

}  // namespace

LossRow distillation_reference(std::span<const double> logits, std::span<const double> teacher_logits, int64_t true_label, const DistillationSettings& settings,
                               std::span<double> gradient) {
  std::fill(gradient.begin(), gradient.end(), 0.0);
  if (true_label == kIgnoredLabel) return {};
  const auto& [loss, w, tau, beta, z_loss] = settings;
  const size_t n = logits.size();
  const std::vector<double> log_p = log_softmax(logits, tau), log_q = log_softmax(teacher_logits, tau), log_p1 = log_softmax(logits, 1.0);
  const double lse = logits[0] - log_p1[0];
  std::vector<double> h(n);
  double kd = 0, mean_h = 0;
  for (size_t v = 0; v < n; ++v) {
    const double p = std::exp(log_p[v]), q = std::exp(log_q[v]);
    if (loss == DistillationLoss::kl) {
      kd += q > 0 ? q * (log_q[v] - log_p[v]) : 0;
    } else if (loss == DistillationLoss::reverse_kl) {
      h[v] = log_p[v] - log_q[v];
      kd += p * h[v];
    } else {
      const double log_m = std::log(beta * q + (1 - beta) * p);
      h[v] = p > 0 ? (1 - beta) * (log_p[v] - log_m) : 0;
      kd += (q > 0 ? beta * q * (log_q[v] - log_m) : 0) + p * h[v];
    }
    mean_h += p * h[v];
  }
  for (size_t v = 0; v < gradient.size(); ++v) {
    const double p = std::exp(log_p[v]);
    gradient[v] = std::exp(log_p1[v]) * ((1 - w) + 2 * z_loss * lse);
    gradient[v] += w * tau * (loss == DistillationLoss::kl ? p - std::exp(log_q[v]) : p * (h[v] - mean_h));
  }
  if (!gradient.empty()) gradient[static_cast<size_t>(true_label)] -= 1 - w;
  return {.ce = -log_p1[static_cast<size_t>(true_label)],
          .kd = tau * tau * kd,
          .z = z_loss * lse * lse,
          .top_1 = std::max_element(logits.begin(), logits.end()) - logits.begin(),
          .teacher_top_1 = std::max_element(teacher_logits.begin(), teacher_logits.end()) - teacher_logits.begin()};
}

namespace {

/// What the pass over a row's probabilities needs; a suffix _p is the student's at the temperature, _q the teacher's, _1 the student's at temperature 1.
struct RowFactors {
  float largest_p, largest_q, inverse_temperature;
  float inverse_sum_p, inverse_sum_q;
  float log_sum_gap;  // log sum_q - log sum_p: what turns a difference of logits into log(q / p)
  float plain;        // scale (1 - w + 2 zeta lse) / sum_1, times exp(z - largest) the cross-entropy's and z-loss's part
  float teacher;      // scale w tau
  float beta;
};
/// Sums over the row: `value` is K / tau^2 (for jsd the teacher's half without its beta), `mean_h` is sum p h (for jsd without its 1 - beta).
struct RowValues {
  double value = 0, mean_h = 0;
};

/// One pass: gradient but for -mean_h p into z, p into u. Tempered = the temperature is not 1.
template <DistillationLoss Loss, bool Tempered>
COPPICE_INLINE RowValues differentiate_row(float* z, float* u, int64_t n, const RowFactors& row) {
  RowValues values;
  for (int64_t begin = 0; begin < n; begin += kSumBlock) {
    const int64_t end = std::min(n, begin + kSumBlock);
    float value = 0, mean_h = 0;
#pragma omp simd reduction(+ : value, mean_h)
    for (int64_t i = begin; i < end; ++i) {
      const float to_p = z[i] - row.largest_p, to_q = u[i] - row.largest_q;
      const float e = vector_exp_flushed(to_p * row.inverse_temperature), e_1 = Tempered ? vector_exp_flushed(to_p) : e;
      const float p = e * row.inverse_sum_p, q = vector_exp_flushed(to_q * row.inverse_temperature) * row.inverse_sum_q;
      const float log_ratio = (to_q - to_p) * row.inverse_temperature - row.log_sum_gap;  // log(q / p)
      if constexpr (Loss == DistillationLoss::kl) {
        value += q * log_ratio;
        z[i] = row.plain * e_1 + row.teacher * (p - q);
      } else if constexpr (Loss == DistillationLoss::reverse_kl) {
        const float h = p * -log_ratio;
        mean_h += h;
        z[i] = row.plain * e_1 + row.teacher * h;
        u[i] = p;
      } else {
        // log m from the larger of p and q: the other is a factor in (0, 1] of it, so that nothing overflows and equal p and q give 0.
        const float smaller = vector_exp_flushed(log_ratio < 0 ? log_ratio : -log_ratio), share = log_ratio < 0 ? row.beta : 1 - row.beta;
        const float log_of_larger = -vector_log(1 - share * (1 - smaller));  // log(larger / m)
        const float log_p = log_ratio < 0 ? log_of_larger : log_of_larger - log_ratio, log_q = log_ratio < 0 ? log_of_larger + log_ratio : log_of_larger;
        value += q * log_q;
        mean_h += p * log_p;
        z[i] = row.plain * e_1 + row.teacher * (1 - row.beta) * p * log_p;
        u[i] = p;
      }
    }
    values.value += value;
    values.mean_h += mean_h;
  }
  return values;
}

COPPICE_CLONES RowValues differentiate_kl(float* z, float* u, int64_t n, const RowFactors& row) {
  return differentiate_row<DistillationLoss::kl, false>(z, u, n, row);
}
COPPICE_CLONES RowValues differentiate_tempered_kl(float* z, float* u, int64_t n, const RowFactors& row) {
  return differentiate_row<DistillationLoss::kl, true>(z, u, n, row);
}
COPPICE_CLONES RowValues differentiate_reverse_kl(float* z, float* u, int64_t n, const RowFactors& row) {
  return differentiate_row<DistillationLoss::reverse_kl, false>(z, u, n, row);
}
COPPICE_CLONES RowValues differentiate_tempered_reverse_kl(float* z, float* u, int64_t n, const RowFactors& row) {
  return differentiate_row<DistillationLoss::reverse_kl, true>(z, u, n, row);
}
COPPICE_CLONES RowValues differentiate_jsd(float* z, float* u, int64_t n, const RowFactors& row) {
  return differentiate_row<DistillationLoss::jsd, false>(z, u, n, row);
}
COPPICE_CLONES RowValues differentiate_tempered_jsd(float* z, float* u, int64_t n, const RowFactors& row) {
  return differentiate_row<DistillationLoss::jsd, true>(z, u, n, row);
}

/// z -= factor p
COPPICE_CLONES void take_off(float* z, const float* p, int64_t n, float factor) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) z[i] -= factor * p[i];
}

LossRow pass_row(const DistillationParams& params, int64_t row) {
  const auto& [loss, w, tau, beta, z_loss] = params.settings;
  const int64_t n = params.num_vocab, true_label = params.true_label[row];
  float *z = params.logits + row * n, *u = params.teacher_logits + row * n;
  if (true_label == kIgnoredLabel) {
    std::fill_n(z, n, 0.0f);
    return {};
  }
  const Largest largest = find_largest(z, n), teacher_largest = find_largest(u, n);
  LossRow result;
  if (params.argmax) {
    result.top_1 = find_first(z, n, largest);
    result.teacher_top_1 = find_first(u, n, teacher_largest);
  }
  const bool tempered = tau != 1.0;
  const auto inverse_temperature = static_cast<float>(1.0 / tau);
  const double sum_1 = sum_exponentials(z, n, largest.value, 1.0f), sum_p = tempered ? sum_exponentials(z, n, largest.value, inverse_temperature) : sum_1;
  const double sum_q = sum_exponentials(u, n, teacher_largest.value, inverse_temperature), lse = largest.value + std::log(sum_1);
  result.ce = lse - z[true_label];
  result.z = z_loss * lse * lse;

  const RowFactors factors{.largest_p = largest.value,
                           .largest_q = teacher_largest.value,
                           .inverse_temperature = inverse_temperature,
                           .inverse_sum_p = static_cast<float>(1.0 / sum_p),
                           .inverse_sum_q = static_cast<float>(1.0 / sum_q),
                           .log_sum_gap = static_cast<float>(std::log(sum_q) - std::log(sum_p)),
                           .plain = static_cast<float>(params.scale * (1.0 - w + 2.0 * z_loss * lse) / sum_1),
                           .teacher = static_cast<float>(params.scale * w * tau),
                           .beta = static_cast<float>(beta)};
  if (loss == DistillationLoss::kl) {
    const RowValues values = tempered ? differentiate_tempered_kl(z, u, n, factors) : differentiate_kl(z, u, n, factors);
    result.kd = tau * tau * values.value;
  } else if (loss == DistillationLoss::reverse_kl) {
    const RowValues values = tempered ? differentiate_tempered_reverse_kl(z, u, n, factors) : differentiate_reverse_kl(z, u, n, factors);
    result.kd = tau * tau * values.mean_h;
    take_off(z, u, n, static_cast<float>(params.scale * w * tau * values.mean_h));
  } else {
    const RowValues values = tempered ? differentiate_tempered_jsd(z, u, n, factors) : differentiate_jsd(z, u, n, factors);
    result.kd = tau * tau * (beta * values.value + (1.0 - beta) * values.mean_h);
    take_off(z, u, n, static_cast<float>(params.scale * w * tau * (1.0 - beta) * values.mean_h));
  }
  z[true_label] -= static_cast<float>(params.scale * (1.0 - w));
  return result;
}

}  // namespace

void distillation_cpu(const DistillationParams& params) {
  parallel_rows(params.num_rows, threads_for(2 * params.num_rows * params.num_vocab), [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) params.rows[row] = pass_row(params, row);
  });
}

}  // namespace coppice
