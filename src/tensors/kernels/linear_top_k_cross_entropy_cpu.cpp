// The k entries of S are set aside before the exponentials are summed: the tail's sum is then exact even where it is a
// millionth of the whole.
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>
#include <vector>

#include "src/tensors/kernels/linear_top_k_cross_entropy.h"
#include "src/tensors/kernels/parallel_rows.h"
#include "src/tensors/kernels/vector_math.h"

namespace coppice {

LossRow top_k_cross_entropy_reference(std::span<const double> logits, int64_t true_label,
                                      std::span<const int64_t> top_id, std::span<const double> top_logp,
                                      double tail_logp, const TopKSettings& settings, std::span<double> gradient) {
  std::fill(gradient.begin(), gradient.end(), 0.0);
  if (true_label == kIgnoredLabel) return {};
  const bool taught = !top_id.empty() && top_id[0] >= 0;
  const double tau = settings.temperature, w = taught ? settings.teacher_weight : 0.0;
  const size_t n = logits.size();
  const auto largest = std::max_element(logits.begin(), logits.end());
  double sum_1 = 0, sum = 0;
  for (const double logit : logits) {
    sum_1 += std::exp(logit - *largest);
    sum += std::exp((logit - *largest) / tau);
  }
  const double lse = *largest + std::log(sum_1);
  LossRow row{.ce = lse - logits[static_cast<size_t>(true_label)],
              .z = settings.z_loss * lse * lse,
              .top_1 = largest - logits.begin()};
  std::vector<double> p(n), q(n, -1);  // q below 0: in the tail
  for (size_t v = 0; v < n; ++v) p[v] = std::exp((logits[v] - *largest) / tau) / sum;
  const double q_tail = std::exp(tail_logp);
  double p_tail = 0, q_sum = q_tail, value = 0;
  for (size_t i = 0; i < top_id.size(); ++i)
    if (top_id[i] >= 0) q_sum += q[static_cast<size_t>(top_id[i])] = std::exp(top_logp[i]);
  for (size_t v = 0; v < n; ++v) {
    if (q[v] < 0) p_tail += p[v];
    if (q[v] > 0) value += q[v] * (std::log(q[v]) - std::log(p[v]));
  }
  if (q_tail > 0) value += q_tail * (tail_logp - std::log(p_tail));
  row.kd = taught ? tau * tau * value : row.ce;
  row.teacher_top_1 = taught ? top_id[0] : -1;
  for (size_t v = 0; v < gradient.size(); ++v) {
    gradient[v] = std::exp(logits[v] - lse) * (1 - w + 2 * settings.z_loss * lse);
    if (w > 0)
      gradient[v] += w * tau * (q[v] < 0 ? p[v] * (q_sum - (q_tail > 0 ? q_tail / p_tail : 0)) : q_sum * p[v] - q[v]);
  }
  if (!gradient.empty()) gradient[static_cast<size_t>(true_label)] -= 1 - w;
  return row;
}

namespace {

/// z = plain exp(z - largest) + tail exp((z - largest) / tau)
template <bool Tempered>
COPPICE_INLINE void write_tail(float* z, int64_t n, float largest, float inverse_temperature, float plain, float tail) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const float e = vector_exp_flushed(z[i] - largest);
    z[i] =
        Tempered ? plain * e + tail * vector_exp_flushed((z[i] - largest) * inverse_temperature) : (plain + tail) * e;
  }
}

/// An entry of S.
struct Entry {
  int64_t id;
  double logit, log_q, q;
};

LossRow pass_row(const TopKCrossEntropyParams& params, int64_t row, std::vector<Entry>& entries) {
  const int64_t n = params.num_vocab, true_label = params.true_label[row];
  float* z = params.logits + row * n;
  if (true_label == kIgnoredLabel) {
    if (params.write_gradient) std::fill_n(z, n, 0.0f);
    return {};
  }
  const double tau = params.settings.temperature;
  const double z_true = z[true_label];
  const Largest largest = find_largest(z, n);
  LossRow result;
  if (params.argmax) result.top_1 = find_first(z, n, largest);
  entries.clear();
  for (int64_t i = 0; i < params.k; ++i) {
    const int64_t id = params.top_id[row * params.k + i];
    if (id < 0) {
      if (i == 0) break;
      continue;
    }
    const double log_q = params.top_logp[row * params.k + i];
    entries.push_back({id, z[id], log_q, std::exp(log_q)});
    z[id] = -FLT_MAX;  // its exponential is 0
  }
  const bool taught = !entries.empty();
  const double w = taught ? params.settings.teacher_weight : 0.0;
  if (params.argmax && taught) result.teacher_top_1 = entries[0].id;

  const auto inverse_temperature = static_cast<float>(1.0 / tau);
  const double tail_1 = sum_exponentials(z, n, largest.value, 1.0f),
               tail_p = tau == 1.0 ? tail_1 : sum_exponentials(z, n, largest.value, inverse_temperature);
  double sum_1 = tail_1, sum_p = tail_p;
  for (const Entry& entry : entries) {
    sum_1 += std::exp(entry.logit - largest.value);
    sum_p += std::exp((entry.logit - largest.value) / tau);
  }
  const double lse = largest.value + std::log(sum_1), log_sum_p = std::log(sum_p);
  result.ce = lse - z_true;
  result.z = params.settings.z_loss * lse * lse;

  const double q_tail = taught ? std::exp(double{params.tail_logp[row]}) : 0.0;
  const double p_tail =
      std::max(tail_p / sum_p, std::numeric_limits<double>::min());  // all of it may have fallen below e^-87
  double q_sum = q_tail, value = q_tail > 0 ? q_tail * (params.tail_logp[row] - std::log(p_tail)) : 0.0;
  for (const Entry& entry : entries) {
    q_sum += entry.q;
    if (entry.q > 0) value += entry.q * (entry.log_q - ((entry.logit - largest.value) / tau - log_sum_p));
  }
  result.kd = taught ? tau * tau * value : result.ce;
  if (!params.write_gradient) return result;

  const double plain = params.scale * (1.0 - w + 2.0 * params.settings.z_loss * lse) / sum_1,
               teacher = params.scale * w * tau;
  const double tail_factor = tail_p > 0 ? teacher * (q_sum - (q_tail > 0 ? q_tail / p_tail : 0.0)) / sum_p : 0.0;
  const auto tail = static_cast<float>(std::clamp(tail_factor, -double{FLT_MAX}, double{FLT_MAX}));
  if (tau == 1.0) {
    per_instruction_set<write_tail<false>>(z, n, largest.value, 1.0f, static_cast<float>(plain), tail);
  } else {
    per_instruction_set<write_tail<true>>(z, n, largest.value, inverse_temperature, static_cast<float>(plain), tail);
  }
  for (const Entry& entry : entries) {
    const double p = std::exp((entry.logit - largest.value) / tau) / sum_p;
    z[entry.id] = static_cast<float>(plain * std::exp(entry.logit - largest.value) + teacher * (q_sum * p - entry.q));
  }
  z[true_label] -= static_cast<float>(params.scale * (1.0 - w));
  return result;
}

}  // namespace

void top_k_cross_entropy_cpu(const TopKCrossEntropyParams& params) {
  parallel_rows(params.num_rows, threads_for(params.num_rows * params.num_vocab), [&](int64_t begin, int64_t end, int) {
    std::vector<Entry> entries;
    for (int64_t row = begin; row < end; ++row) params.rows[row] = pass_row(params, row, entries);
  });
}

}  // namespace coppice
