#include "src/tensors/kernels/decoupled_top_k.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "src/tensors/kernels/top_k_rows.h"

namespace coppice {

LossRow decoupled_top_k_reference(std::span<const double> logits, int64_t true_label, std::span<const int64_t> top_id,
                                  std::span<const double> top_logp, double tail_logp, const TopKSettings& settings,
                                  std::span<double> gradient) {
  std::fill(gradient.begin(), gradient.end(), 0.0);
  if (true_label == kIgnoredLabel) return {};
  const bool taught = !top_id.empty() && top_id[0] >= 0;
  const double tau = settings.temperature, w = taught ? settings.teacher_weight : 0.0;
  const size_t n = logits.size();
  const auto largest = std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const double logit : logits) sum += std::exp(logit - *largest);
  const double lse = *largest + std::log(sum), ce = lse - logits[static_cast<size_t>(true_label)];
  std::vector<double> a(n), b(n);  // of the ids in S; a is above 0 there
  std::vector<bool> inside(n);
  double q_inside = 0, p_inside = 0, p_rest = 0, sum_a = 0, sum_b = 0, within = 0;
  for (size_t i = 0; taught && i < top_id.size(); ++i) {
    if (top_id[i] < 0) continue;
    const auto v = static_cast<size_t>(top_id[i]);
    inside[v] = true;
    q_inside += std::exp(top_logp[i]);
    sum_a += a[v] = std::exp(top_logp[i] / tau);
    sum_b += b[v] = std::exp((logits[v] - *largest) / tau);
  }
  const double q_rest = taught ? std::exp(tail_logp) : 0.0;
  for (size_t v = 0; v < n; ++v) {
    (inside[v] ? p_inside : p_rest) += std::exp(logits[v] - lse);
    if (!inside[v]) continue;
    a[v] = sum_a > 0 ? a[v] / sum_a : 0.0;
    b[v] /= sum_b;
    if (a[v] > 0) within += a[v] * std::log(a[v] / b[v]);
  }
  double divergence = q_inside > 0 ? q_inside * (std::log(q_inside / p_inside) + tau * tau * within) : 0.0;
  if (q_rest > 0) divergence += q_rest * std::log(q_rest / p_rest);
  for (size_t v = 0; v < gradient.size(); ++v) {
    const double p = std::exp(logits[v] - lse), mass = q_inside + q_rest;
    gradient[v] = p * (1 - w + 2 * settings.z_loss * lse);
    if (w > 0 && inside[v]) gradient[v] += w * (p * (mass - q_inside / p_inside) + tau * q_inside * (b[v] - a[v]));
    if (w > 0 && !inside[v]) gradient[v] += w * p * (mass - q_rest / p_rest);
  }
  if (!gradient.empty()) gradient[static_cast<size_t>(true_label)] -= 1 - w;
  return {.ce = ce,
          .kd = taught ? divergence : ce,
          .z = settings.z_loss * lse * lse,
          .top_1 = largest - logits.begin(),
          .teacher_top_1 = taught ? top_id[0] : -1};
}

namespace {

constexpr double kLeast = std::numeric_limits<double>::min();  // of a mass that fell below what float32 tells from 0

/// The teacher's side of a row, whatever part of the vocabulary its ids are in.
struct Stored {
  double mass = 0, tail = 0;  // Q, q_R
  double log_sum = 0;         // a = exp(log q / tau - log_sum)
};

Stored stored_of(const TopKCrossEntropyParams<float>& params, int64_t row) {
  Stored stored;
  if (!is_taught(params, row)) return stored;
  const double tau = params.settings.temperature;
  const int64_t* id = params.top_id + row * params.k;
  const float* log_q = params.top_logp + row * params.k;
  stored.tail = std::exp(double{params.tail_logp[row]});
  double largest = -std::numeric_limits<double>::infinity(), sum = 0;
  for (int64_t i = 0; i < params.k; ++i)
    if (id[i] >= 0) largest = std::max(largest, double{log_q[i]});
  if (std::isinf(largest)) return stored;  // all of it is in the rest
  for (int64_t i = 0; i < params.k; ++i) {
    if (id[i] < 0) continue;
    stored.mass += std::exp(double{log_q[i]});
    sum += std::exp((log_q[i] - largest) / tau);
  }
  stored.log_sum = largest / tau + std::log(sum);
  return stored;
}

double share_of(const TopKEntry& entry, const Stored& stored, double tau) {
  return stored.mass > 0 ? std::exp(entry.log_q / tau - stored.log_sum) : 0.0;
}

/// Leaves the entries of S set aside.
DecoupledStatistics measure_row(const TopKCrossEntropyParams<float>& params, int64_t row, const Stored& stored,
                                std::vector<TopKEntry>& entries) {
  const int64_t n = params.num_vocab;
  const double tau = params.settings.temperature;
  float* z = params.logits + row * n;
  DecoupledStatistics own;
  if (const int64_t column = column_of(params, params.true_label[row]); column >= 0) own.z_true = z[column];
  const Largest largest = find_largest(z, n);
  own.largest = largest.value;
  if (params.argmax) own.top_1 = static_cast<double>(params.first_id + find_first(z, n, largest));
  set_aside(params, row, entries);
  own.rest_1 = sum_exponentials(z, n, largest.value, 1.0f);
  for (const TopKEntry& entry : entries) {
    const double below = entry.logit - largest.value, a = share_of(entry, stored, tau);
    own.inside_1 += std::exp(below);
    own.inside_tau += std::exp(below / tau);
    own.share += a;
    if (a > 0) own.cross += a * (std::log(a) - below / tau);
  }
  return own;
}

/// d(logits) of this part in place of its logits.
void write_gradient(const TopKCrossEntropyParams<float>& params, int64_t row, const std::vector<TopKEntry>& entries,
                    const Stored& stored, const DecoupledStatistics& whole, float largest) {
  const int64_t n = params.num_vocab;
  const bool taught = is_taught(params, row);
  const double w = taught ? params.settings.teacher_weight : 0.0, tau = params.settings.temperature;
  float* z = params.logits + row * n;
  // the whole's sums, were their exponentials taken like this part's
  const double to_here = whole.largest - largest, sum_1 = (whole.inside_1 + whole.rest_1) * std::exp(to_here),
               inside_1 = whole.inside_1 * std::exp(to_here), inside_tau = whole.inside_tau * std::exp(to_here / tau);
  const double lse = whole.largest + std::log(whole.inside_1 + whole.rest_1);
  const double plain = params.scale * (1.0 - w + 2.0 * params.settings.z_loss * lse) / sum_1,
               teacher = params.scale * w, mass = stored.mass + stored.tail;
  const double rest =
      whole.rest_1 > 0 ? teacher * (mass / sum_1 - stored.tail / (whole.rest_1 * std::exp(to_here))) : 0.0;
  per_instruction_set<write_tail<false>>(z, n, largest, 1.0f, static_cast<float>(plain), to_finite_float(rest));
  for (const TopKEntry& entry : entries) {
    const double below = entry.logit - largest, e = std::exp(below);
    const double of_mass = mass * e / sum_1 - (inside_1 > 0 ? stored.mass * e / inside_1 : 0.0),
                 b = inside_tau > 0 ? std::exp(below / tau) / inside_tau : 0.0,
                 within = tau * stored.mass * (b - share_of(entry, stored, tau));
    z[entry.column] = static_cast<float>(plain * e + teacher * (of_mass + within));
  }
  if (const int64_t column = column_of(params, params.true_label[row]); column >= 0)
    z[column] -= static_cast<float>(params.scale * (1.0 - w));
}

LossRow loss_of(const TopKCrossEntropyParams<float>& params, int64_t row, const Stored& stored,
                const DecoupledStatistics& whole) {
  const bool taught = is_taught(params, row);
  const double tau = params.settings.temperature, sum_1 = whole.inside_1 + whole.rest_1;
  LossRow result;
  if (params.argmax) result.top_1 = static_cast<int64_t>(whole.top_1);
  if (params.argmax && taught) result.teacher_top_1 = params.top_id[row * params.k];
  const double lse = whole.largest + std::log(sum_1);
  result.ce = lse - whole.z_true;
  result.z = params.settings.z_loss * lse * lse;
  result.kd = result.ce;
  if (!taught) return result;
  result.kd = 0;
  if (stored.mass > 0)
    result.kd += stored.mass * (std::log(stored.mass) - std::log(std::max(whole.inside_1 / sum_1, kLeast)) +
                                tau * tau * (whole.cross + std::log(std::max(whole.inside_tau, kLeast))));
  if (stored.tail > 0)
    result.kd += stored.tail * (params.tail_logp[row] - std::log(std::max(whole.rest_1 / sum_1, kLeast)));
  return result;
}

}  // namespace

void decoupled_top_k_cpu(const TopKCrossEntropyParams<float>& params) {
  walk_rows(params, [&](int64_t row, std::vector<TopKEntry>& entries) {
    params.rows[row] = {};
    if (skip_row(params, row)) return;
    const Stored stored = stored_of(params, row);
    const DecoupledStatistics whole = measure_row(params, row, stored, entries);
    params.rows[row] = loss_of(params, row, stored, whole);
    if (params.write_gradient) write_gradient(params, row, entries, stored, whole, static_cast<float>(whole.largest));
  });
}

void decoupled_top_k_statistics_cpu(const TopKCrossEntropyParams<float>& params, DecoupledStatistics* statistics) {
  walk_rows(params, [&](int64_t row, std::vector<TopKEntry>& entries) {
    statistics[row] = {};
    if (skip_row(params, row)) return;
    statistics[row] = measure_row(params, row, stored_of(params, row), entries);
    put_back(params, row, entries);
  });
}

void decoupled_top_k_gradient_cpu(const TopKCrossEntropyParams<float>& params,
                                  const RowParts<DecoupledStatistics>& parts) {
  const double tau = params.settings.temperature;
  walk_rows(params, [&](int64_t row, std::vector<TopKEntry>& entries) {
    params.rows[row] = {};
    if (params.true_label[row] == kIgnoredLabel) return;
    const Stored stored = stored_of(params, row);
    const DecoupledStatistics& largest = largest_part(parts, row);
    DecoupledStatistics whole{.largest = largest.largest, .top_1 = largest.top_1};
    for (int64_t part = 0; part < parts.num_parts; ++part) {
      const DecoupledStatistics& other = parts.at(part, row);
      const double to_largest = other.largest - whole.largest, e = std::exp(to_largest);
      whole.inside_1 += other.inside_1 * e;
      whole.rest_1 += other.rest_1 * e;
      whole.inside_tau += other.inside_tau * std::exp(to_largest / tau);
      whole.cross += other.cross - other.share * to_largest / tau;
      whole.z_true += other.z_true;
    }
    params.rows[row] = loss_of(params, row, stored, whole);
    if (!params.write_gradient) return;
    set_aside(params, row, entries);
    write_gradient(params, row, entries, stored, whole, static_cast<float>(parts.own[row].largest));
  });
}

}  // namespace coppice
