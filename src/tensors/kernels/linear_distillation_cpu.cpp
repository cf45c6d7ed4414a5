// Per row: both maxima; one pass for all exponentials, their sums and the values of both KL, which leaves in place of
// the logits what the gradient needs; and the gradient, for which no exponential is left at temperature 1. Only jsd
// needs sum p h from that last pass itself: it leaves p where the teacher's logits were, and a short pass takes the
// share of it off.
#include <algorithm>
#include <cfloat>
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

LossRow distillation_reference(std::span<const double> logits, std::span<const double> teacher_logits,
                               int64_t true_label, const DistillationSettings& settings, std::span<double> gradient) {
  std::fill(gradient.begin(), gradient.end(), 0.0);
  if (true_label == kIgnoredLabel) return {};
  const auto& [loss, w, tau, beta, z_loss] = settings;
  const size_t n = logits.size();
  const std::vector<double> log_p = log_softmax(logits, tau), log_q = log_softmax(teacher_logits, tau),
                            log_p1 = log_softmax(logits, 1.0);
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

/// What of a row both passes know; a suffix _p is the student's at the temperature, _q the teacher's, _1 the student's
/// at temperature 1.
struct RowScale {
  float largest_p, largest_q, inverse_temperature;
};
struct RowSums {
  double sum_1 = 0, sum_p = 0, sum_q = 0;  // of exponentials
  double cross = 0;  // kl: sum e_q (u - z); reverse_kl: sum e_p (z - u), both with their maxima taken off
};

/// Leaves in u: e_q, of reverse_kl z - u. Leaves in z: e_p at temperature 1, else the logits, as there are three values
/// to keep.
template <DistillationLoss Loss, bool Tempered>
COPPICE_INLINE RowSums exponentiate_row(float* z, float* u, int64_t n, const RowScale& row) {
  RowSums sums;
  for (int64_t begin = 0; begin < n; begin += kSumBlock) {
    const int64_t end = std::min(n, begin + kSumBlock);
    float sum_1 = 0, sum_p = 0, sum_q = 0, cross = 0;
#pragma omp simd reduction(+ : sum_1, sum_p, sum_q, cross)
    for (int64_t i = begin; i < end; ++i) {
      const float to_p = z[i] - row.largest_p, to_q = u[i] - row.largest_q;
      const float e_p = vector_exp_flushed(to_p * row.inverse_temperature),
                  e_q = vector_exp_flushed(to_q * row.inverse_temperature);
      sum_p += e_p;
      sum_q += e_q;
      if constexpr (Tempered) {
        sum_1 += vector_exp_flushed(to_p);
      } else {
        z[i] = e_p;
      }
      if constexpr (Loss == DistillationLoss::reverse_kl) {
        cross += e_p * (to_p - to_q);
        u[i] = to_p - to_q;
      } else {
        if constexpr (Loss == DistillationLoss::kl) cross += e_q * (to_q - to_p);
        u[i] = e_q;
      }
    }
    sums.sum_1 += Tempered ? sum_1 : sum_p;
    sums.sum_p += sum_p;
    sums.sum_q += sum_q;
    sums.cross += cross;
  }
  return sums;
}

struct RowFactors {
  float inverse_sum_p, inverse_sum_q;
  float mean_gap;  // of reverse_kl: sum p (z - u) / tau, both with their maxima taken off; then h - sum p h = (z - u) /
                   // tau - mean_gap
  float plain;     // scale (1 - w + 2 zeta lse) / sum_1, times exp(z - largest) the cross-entropy's and z-loss's part
  float teacher;   // scale w tau
  float beta;
};
/// Of jsd: the teacher's half of K / tau^2 without its beta, and sum p h without its 1 - beta.
struct RowValues {
  double value = 0, mean_h = 0;
};

/// Gradient into z from what exponentiate_row left; of jsd but for -mean_h p, and p into u.
template <DistillationLoss Loss, bool Tempered>
COPPICE_INLINE RowValues differentiate_row(float* z, float* u, int64_t n, const RowScale& scale,
                                           const RowFactors& row) {
  RowValues values;
  for (int64_t begin = 0; begin < n; begin += kSumBlock) {
    const int64_t end = std::min(n, begin + kSumBlock);
    float value = 0, mean_h = 0;
#pragma omp simd reduction(+ : value, mean_h)
    for (int64_t i = begin; i < end; ++i) {
      const float to_p = z[i] - scale.largest_p;
      const float e_1 = Tempered ? vector_exp_flushed(to_p) : z[i],
                  e_p = Tempered ? vector_exp_flushed(to_p * scale.inverse_temperature) : z[i];
      const float p = e_p * row.inverse_sum_p;
      if constexpr (Loss == DistillationLoss::kl) {
        z[i] = row.plain * e_1 + row.teacher * (p - u[i] * row.inverse_sum_q);
      } else if constexpr (Loss == DistillationLoss::reverse_kl) {
        z[i] = row.plain * e_1 + row.teacher * p * (u[i] * scale.inverse_temperature - row.mean_gap);
      } else {
        // p / m and q / m as they differ from 1, so that equal p and q give exactly 1; the smaller ones directly, so
        // that they keep their digits.
        const float q = u[i] * row.inverse_sum_q, mean = p + row.beta * (q - p), m = mean > FLT_MIN ? mean : FLT_MIN;
        const float inverse_m = 1.0f / m, gap = (q - p) * inverse_m;
        const float log_p = vector_log(2 * p < mean ? p * inverse_m : 1 - row.beta * gap),
                    log_q = vector_log(2 * q < mean ? q * inverse_m : 1 + (1 - row.beta) * gap);
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

/// Both passes of one loss, compiled for each instruction set.
struct RowPasses {
  RowSums (*exponentiate)(float* z, float* u, int64_t n, const RowScale& row);
  RowValues (*differentiate)(float* z, float* u, int64_t n, const RowScale& scale, const RowFactors& row);
};
template <DistillationLoss loss, bool tempered>
constexpr RowPasses kPasses{per_instruction_set<exponentiate_row<loss, tempered>>.call,
                            per_instruction_set<differentiate_row<loss, tempered>>.call};

const RowPasses& passes_of(DistillationLoss loss, bool tempered) {
  switch (loss) {
    case DistillationLoss::kl:
      return tempered ? kPasses<DistillationLoss::kl, true> : kPasses<DistillationLoss::kl, false>;
    case DistillationLoss::reverse_kl:
      return tempered ? kPasses<DistillationLoss::reverse_kl, true> : kPasses<DistillationLoss::reverse_kl, false>;
    default:
      return tempered ? kPasses<DistillationLoss::jsd, true> : kPasses<DistillationLoss::jsd, false>;
  }
}

/// z -= factor p
COPPICE_INLINE void take_off_loop(float* z, const float* p, int64_t n, float factor) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) z[i] -= factor * p[i];
}
constexpr auto take_off = per_instruction_set<take_off_loop>;

LossRow pass_row(const DistillationParams& params, int64_t row) {
  const auto& [loss, w, tau, beta, z_loss] = params.settings;
  const int64_t n = params.num_vocab, true_label = params.true_label[row];
  float *z = params.logits + row * n, *u = params.teacher_logits + row * n;
  if (true_label == kIgnoredLabel) {
    if (params.write_gradient) std::fill_n(z, n, 0.0f);
    return {};
  }
  const Largest largest = find_largest(z, n), teacher_largest = find_largest(u, n);
  LossRow result;
  if (params.argmax) {
    result.top_1 = find_first(z, n, largest);
    result.teacher_top_1 = find_first(u, n, teacher_largest);
  }
  const double z_true = z[true_label];
  const RowPasses& passes = passes_of(loss, tau != 1.0);
  const RowScale scale{.largest_p = largest.value,
                       .largest_q = teacher_largest.value,
                       .inverse_temperature = static_cast<float>(1.0 / tau)};
  const RowSums sums = passes.exponentiate(z, u, n, scale);
  const double lse = largest.value + std::log(sums.sum_1), log_sum_gap = std::log(sums.sum_q) - std::log(sums.sum_p);
  const double mean_gap = sums.cross / tau / sums.sum_p;  // of reverse_kl
  result.ce = lse - z_true;
  result.z = z_loss * lse * lse;
  if (loss == DistillationLoss::kl) result.kd = tau * tau * (sums.cross / tau / sums.sum_q - log_sum_gap);
  if (loss == DistillationLoss::reverse_kl) result.kd = tau * tau * (mean_gap + log_sum_gap);
  if (!params.write_gradient && loss != DistillationLoss::jsd) return result;

  const RowValues values =
      passes.differentiate(z, u, n, scale,
                           {.inverse_sum_p = static_cast<float>(1.0 / sums.sum_p),
                            .inverse_sum_q = static_cast<float>(1.0 / sums.sum_q),
                            .mean_gap = static_cast<float>(mean_gap),
                            .plain = static_cast<float>(params.scale * (1.0 - w + 2.0 * z_loss * lse) / sums.sum_1),
                            .teacher = static_cast<float>(params.scale * w * tau),
                            .beta = static_cast<float>(beta)});
  if (loss == DistillationLoss::jsd) {
    result.kd = tau * tau * (beta * values.value + (1.0 - beta) * values.mean_h);
    if (!params.write_gradient) return result;
    take_off(z, u, n, static_cast<float>(params.scale * w * tau * (1.0 - beta) * values.mean_h));
  }
  z[true_label] -= static_cast<float>(params.scale * (1.0 - w));
  return result;
}

}  // namespace

void distillation_cpu(const DistillationParams& params) {
  parallel_rows(params.num_rows, threads_for(2 * params.num_rows * params.num_vocab),
                [&](int64_t begin, int64_t end, int) {
                  for (int64_t row = begin; row < end; ++row) params.rows[row] = pass_row(params, row);
                });
}

}  // namespace coppice
