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

int64_t true_column(const DistillationParams<float>& params, int64_t row) {
  const int64_t column = params.true_label[row] - params.first_id;
  return column >= 0 && column < params.num_vocab ? column : -1;
}

RowScale scale_of(const DistillationParams<float>& params, const DistillationStatistics& own) {
  return {.largest_p = static_cast<float>(own.largest_p),
          .largest_q = static_cast<float>(own.largest_q),
          .inverse_temperature = static_cast<float>(1.0 / params.settings.temperature)};
}

DistillationStatistics measure_row(const DistillationParams<float>& params, int64_t row) {
  const int64_t n = params.num_vocab;
  float *z = params.logits + row * n, *u = params.teacher_logits + row * n;
  const Largest largest = find_largest(z, n), teacher_largest = find_largest(u, n);
  DistillationStatistics own{.largest_p = largest.value, .largest_q = teacher_largest.value};
  if (params.argmax) {
    own.top_1 = static_cast<double>(params.first_id + find_first(z, n, largest));
    own.teacher_top_1 = static_cast<double>(params.first_id + find_first(u, n, teacher_largest));
  }
  if (const int64_t column = true_column(params, row); column >= 0) own.z_true = z[column];
  const RowPasses& passes = passes_of(params.settings.loss, params.settings.temperature != 1.0);
  const RowSums sums = passes.exponentiate(z, u, n, scale_of(params, own));
  own.sum_1 = sums.sum_1;
  own.sum_p = sums.sum_p;
  own.sum_q = sums.sum_q;
  own.cross = sums.cross;
  return own;
}

/// The true label's part of the gradient.
void finish_gradient(const DistillationParams<float>& params, int64_t row) {
  if (const int64_t column = true_column(params, row); column >= 0)
    params.logits[row * params.num_vocab + column] -=
        static_cast<float>(params.scale * (1.0 - params.settings.teacher_weight));
}

/// What the whole row's sums would be, were its exponentials taken like this part's.
struct SumsHere {
  double sum_1, sum_p, sum_q;
  double gap;  // to be added to this part's z - u
};

/// All but what jsd knows only when `jsd`, written here, is that of the whole row.
LossRow finish_row(const DistillationParams<float>& params, int64_t row, const DistillationStatistics& own,
                   const DistillationStatistics& whole, const SumsHere& here, JsdStatistics& jsd) {
  const auto& [loss, w, tau, beta, z_loss] = params.settings;
  LossRow result;
  if (params.argmax) {
    result.top_1 = static_cast<int64_t>(whole.top_1);
    result.teacher_top_1 = static_cast<int64_t>(whole.teacher_top_1);
  }
  const double lse = whole.largest_p + std::log(whole.sum_1),
               log_sum_gap = std::log(whole.sum_q) - std::log(whole.sum_p);
  const double mean_gap = whole.cross / tau / whole.sum_p;  // of reverse_kl
  result.ce = lse - whole.z_true;
  result.z = z_loss * lse * lse;
  if (loss == DistillationLoss::kl) result.kd = tau * tau * (whole.cross / tau / whole.sum_q - log_sum_gap);
  if (loss == DistillationLoss::reverse_kl) result.kd = tau * tau * (mean_gap + log_sum_gap);
  if (!params.write_gradient && loss != DistillationLoss::jsd) return result;

  const int64_t n = params.num_vocab;
  float *z = params.logits + row * n, *u = params.teacher_logits + row * n;
  const RowValues values =
      passes_of(loss, tau != 1.0)
          .differentiate(z, u, n, scale_of(params, own),
                         {.inverse_sum_p = static_cast<float>(1.0 / here.sum_p),
                          .inverse_sum_q = static_cast<float>(1.0 / here.sum_q),
                          .mean_gap = static_cast<float>(mean_gap - here.gap / tau),
                          .plain = static_cast<float>(params.scale * (1.0 - w + 2.0 * z_loss * lse) / here.sum_1),
                          .teacher = static_cast<float>(params.scale * w * tau),
                          .beta = static_cast<float>(beta)});
  jsd = {.value = values.value, .mean_h = values.mean_h};
  if (loss != DistillationLoss::jsd) finish_gradient(params, row);
  return result;
}

/// Of jsd: the row's divergence, and the share of the mean that its gradient still misses.
void finish_jsd(const DistillationParams<float>& params, int64_t row, const JsdStatistics& whole) {
  const auto& [loss, w, tau, beta, z_loss] = params.settings;
  const int64_t n = params.num_vocab;
  params.rows[row].kd = tau * tau * (beta * whole.value + (1.0 - beta) * whole.mean_h);
  if (!params.write_gradient) return;
  take_off(params.logits + row * n, params.teacher_logits + row * n, n,
           static_cast<float>(params.scale * w * tau * (1.0 - beta) * whole.mean_h));
  finish_gradient(params, row);
}

/// True for an ignored row, whose gradient is then zero.
bool skip_row(const DistillationParams<float>& params, int64_t row) {
  if (params.true_label[row] != kIgnoredLabel) return false;
  if (params.write_gradient) std::fill_n(params.logits + row * params.num_vocab, params.num_vocab, 0.0f);
  return true;
}

template <class Body>
void walk_rows(const DistillationParams<float>& params, const Body& body) {
  parallel_rows(params.num_rows, threads_for(2 * params.num_rows * params.num_vocab),
                [&](int64_t begin, int64_t end, int) {
                  for (int64_t row = begin; row < end; ++row) body(row);
                });
}

}  // namespace

void distillation_cpu(const DistillationParams<float>& params) {
  walk_rows(params, [&](int64_t row) {
    params.rows[row] = {};
    if (skip_row(params, row)) return;
    const DistillationStatistics whole = measure_row(params, row);
    JsdStatistics jsd;
    params.rows[row] = finish_row(params, row, whole, whole,
                                  {.sum_1 = whole.sum_1, .sum_p = whole.sum_p, .sum_q = whole.sum_q, .gap = 0}, jsd);
    if (params.settings.loss == DistillationLoss::jsd) finish_jsd(params, row, jsd);
  });
}

void distillation_statistics_cpu(const DistillationParams<float>& params, DistillationStatistics* statistics) {
  walk_rows(params, [&](int64_t row) {
    statistics[row] = {};
    if (!skip_row(params, row)) statistics[row] = measure_row(params, row);
  });
}

void distillation_gradient_cpu(const DistillationParams<float>& params, const RowParts<DistillationStatistics>& parts,
                               JsdStatistics* jsd) {
  const double tau = params.settings.temperature;
  const bool forward = params.settings.loss == DistillationLoss::kl;
  walk_rows(params, [&](int64_t row) {
    params.rows[row] = {};
    jsd[row] = {};
    if (params.true_label[row] == kIgnoredLabel) return;
    DistillationStatistics whole = parts.at(0, row);
    for (int64_t part = 1; part < parts.num_parts; ++part) {  // ties to the lowest id: an earlier part keeps them
      const DistillationStatistics& other = parts.at(part, row);
      if (other.largest_p > whole.largest_p) whole.top_1 = other.top_1, whole.largest_p = other.largest_p;
      if (other.largest_q > whole.largest_q)
        whole.teacher_top_1 = other.teacher_top_1, whole.largest_q = other.largest_q;
    }
    whole.sum_1 = whole.sum_p = whole.sum_q = whole.cross = whole.z_true = 0;
    for (int64_t part = 0; part < parts.num_parts; ++part) {
      const DistillationStatistics& other = parts.at(part, row);
      const double to_p = other.largest_p - whole.largest_p, to_q = other.largest_q - whole.largest_q,
                   e_p = std::exp(to_p / tau), e_q = std::exp(to_q / tau);
      whole.sum_1 += other.sum_1 * std::exp(to_p);
      whole.sum_p += other.sum_p * e_p;
      whole.sum_q += other.sum_q * e_q;
      whole.cross += forward ? e_q * (other.cross + other.sum_q * (to_q - to_p))
                             : e_p * (other.cross + other.sum_p * (to_p - to_q));
      whole.z_true += other.z_true;
    }
    const DistillationStatistics& own = parts.own[row];
    const double to_p = own.largest_p - whole.largest_p, to_q = own.largest_q - whole.largest_q;
    params.rows[row] = finish_row(params, row, own, whole,
                                  {.sum_1 = whole.sum_1 * std::exp(-to_p),
                                   .sum_p = whole.sum_p * std::exp(-to_p / tau),
                                   .sum_q = whole.sum_q * std::exp(-to_q / tau),
                                   .gap = to_p - to_q},
                                  jsd[row]);
  });
}

void distillation_jsd_cpu(const DistillationParams<float>& params, const RowParts<JsdStatistics>& parts) {
  walk_rows(params, [&](int64_t row) {
    if (params.true_label[row] == kIgnoredLabel) return;
    JsdStatistics whole;
    for (int64_t part = 0; part < parts.num_parts; ++part) {
      whole.value += parts.at(part, row).value;
      whole.mean_h += parts.at(part, row).mean_h;
    }
    finish_jsd(params, row, whole);
  });
}

}  // namespace coppice
