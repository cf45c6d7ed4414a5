#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "src/tensors/kernels/top_k_rows.h"

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

/// Leaves the entries of S set aside, and with `in_place` (temperature 1) exp(z - largest) where the logits were.
TopKStatistics measure_row(const TopKCrossEntropyParams<float>& params, int64_t row, std::vector<TopKEntry>& entries,
                           bool in_place) {
  const int64_t n = params.num_vocab;
  const double tau = params.settings.temperature;
  float* z = params.logits + row * n;
  TopKStatistics own;
  if (const int64_t column = column_of(params, params.true_label[row]); column >= 0) own.z_true = z[column];
  const Largest largest = find_largest(z, n);
  own.largest = largest.value;
  if (params.argmax) own.top_1 = static_cast<double>(params.first_id + find_first(z, n, largest));
  set_aside(params, row, entries);
  exponentiate(entries, largest.value, tau);
  const double tail_1 =
      in_place ? sum_exponentials_in_place(z, n, largest.value) : sum_exponentials(z, n, largest.value, 1.0f);
  own.tail_p = tau == 1.0 ? tail_1 : sum_exponentials(z, n, largest.value, static_cast<float>(1.0 / tau));
  own.sum_1 = tail_1;
  own.sum_p = own.tail_p;
  for (const TopKEntry& entry : entries) {
    own.sum_1 += entry.e_1;
    own.sum_p += entry.e_p;
    own.q_sum += entry.q;
    if (entry.q > 0) own.cross += entry.q * (entry.log_q - (entry.logit - largest.value) / tau);
  }
  return own;
}

/// What the whole row's sums would be, were its exponentials taken like this part's.
struct SumsHere {
  float largest;
  double sum_1, sum_p;
  bool is_whole;          // this part is all there is
  bool is_exponentiated;  // exp(z - largest) stands where the logits were
};

LossRow finish_row(const TopKCrossEntropyParams<float>& params, int64_t row, const std::vector<TopKEntry>& entries,
                   const TopKStatistics& whole, const SumsHere& here) {
  const int64_t n = params.num_vocab;
  const double tau = params.settings.temperature;
  const bool taught = is_taught(params, row);
  const double w = taught ? params.settings.teacher_weight : 0.0;
  LossRow result;
  if (params.argmax) result.top_1 = static_cast<int64_t>(whole.top_1);
  if (params.argmax && taught) result.teacher_top_1 = params.top_id[row * params.k];
  const double lse = whole.largest + std::log(whole.sum_1), log_sum_p = std::log(whole.sum_p);
  result.ce = lse - whole.z_true;
  result.z = params.settings.z_loss * lse * lse;

  const double q_tail = taught ? std::exp(double{params.tail_logp[row]}) : 0.0;
  const double p_tail = std::max(whole.tail_p / whole.sum_p,
                                 std::numeric_limits<double>::min());  // all of it may have fallen below e^-87
  double q_sum = q_tail, value = q_tail > 0 ? q_tail * (params.tail_logp[row] - std::log(p_tail)) : 0.0;
  if (here.is_whole) {
    for (const TopKEntry& entry : entries) {
      q_sum += entry.q;
      if (entry.q > 0) value += entry.q * (entry.log_q - ((entry.logit - here.largest) / tau - log_sum_p));
    }
  } else {
    q_sum += whole.q_sum;
    value += whole.cross + whole.q_sum * log_sum_p;
  }
  result.kd = taught ? tau * tau * value : result.ce;
  if (!params.write_gradient) return result;

  float* z = params.logits + row * n;
  const double plain = params.scale * (1.0 - w + 2.0 * params.settings.z_loss * lse) / here.sum_1,
               teacher = params.scale * w * tau;
  const double tail_factor =
      whole.tail_p > 0 ? teacher * (q_sum - (q_tail > 0 ? q_tail / p_tail : 0.0)) / here.sum_p : 0.0;
  const float tail = to_finite_float(tail_factor);
  if (here.is_exponentiated) {
    multiply_row(z, n, static_cast<float>(plain) + tail);
  } else if (tau == 1.0) {
    per_instruction_set<write_tail<false>>(z, n, here.largest, 1.0f, static_cast<float>(plain), tail);
  } else {
    per_instruction_set<write_tail<true>>(z, n, here.largest, static_cast<float>(1.0 / tau), static_cast<float>(plain),
                                          tail);
  }
  for (const TopKEntry& entry : entries) {
    const double p = entry.e_p / here.sum_p;
    z[entry.column] = static_cast<float>(plain * entry.e_1 + teacher * (q_sum * p - entry.q));
  }
  if (const int64_t column = column_of(params, params.true_label[row]); column >= 0)
    z[column] -= static_cast<float>(params.scale * (1.0 - w));
  return result;
}

}  // namespace

void top_k_cross_entropy_cpu(const TopKCrossEntropyParams<float>& params) {
  walk_rows(params, [&](int64_t row, std::vector<TopKEntry>& entries) {
    params.rows[row] = {};
    if (skip_row(params, row)) return;
    const bool in_place = params.write_gradient && params.settings.temperature == 1.0;
    const TopKStatistics whole = measure_row(params, row, entries, in_place);
    params.rows[row] = finish_row(params, row, entries, whole,
                                  {.largest = static_cast<float>(whole.largest),
                                   .sum_1 = whole.sum_1,
                                   .sum_p = whole.sum_p,
                                   .is_whole = true,
                                   .is_exponentiated = in_place});
  });
}

void top_k_cross_entropy_statistics_cpu(const TopKCrossEntropyParams<float>& params, TopKStatistics* statistics) {
  walk_rows(params, [&](int64_t row, std::vector<TopKEntry>& entries) {
    statistics[row] = {};
    if (skip_row(params, row)) return;
    statistics[row] = measure_row(params, row, entries, /*in_place=*/false);
    put_back(params, row, entries);
  });
}

void top_k_cross_entropy_gradient_cpu(const TopKCrossEntropyParams<float>& params,
                                      const RowParts<TopKStatistics>& parts) {
  const double tau = params.settings.temperature;
  walk_rows(params, [&](int64_t row, std::vector<TopKEntry>& entries) {
    params.rows[row] = {};
    if (params.true_label[row] == kIgnoredLabel) return;
    TopKStatistics whole = largest_part(parts, row);
    whole.sum_1 = whole.sum_p = whole.tail_p = whole.cross = whole.q_sum = whole.z_true = 0;
    for (int64_t part = 0; part < parts.num_parts; ++part) {
      const TopKStatistics& other = parts.at(part, row);
      const double to_largest = other.largest - whole.largest, e_p = std::exp(to_largest / tau);
      whole.sum_1 += other.sum_1 * std::exp(to_largest);
      whole.sum_p += other.sum_p * e_p;
      whole.tail_p += other.tail_p * e_p;
      whole.cross += other.cross - other.q_sum * to_largest / tau;
      whole.q_sum += other.q_sum;
      whole.z_true += other.z_true;
    }
    set_aside(params, row, entries);
    exponentiate(entries, static_cast<float>(parts.own[row].largest), tau);
    const double to_largest = parts.own[row].largest - whole.largest;
    params.rows[row] = finish_row(params, row, entries, whole,
                                  {.largest = static_cast<float>(parts.own[row].largest),
                                   .sum_1 = whole.sum_1 * std::exp(-to_largest),
                                   .sum_p = whole.sum_p * std::exp(-to_largest / tau),
                                   .is_whole = false,
                                   .is_exponentiated = false});
  });
}

}  // namespace coppice
