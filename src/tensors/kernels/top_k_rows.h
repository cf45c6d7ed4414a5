// What the losses over a row's k ids S share: S is set aside before the exponentials are summed, so that the sum of the
// tail is exact even where it is a millionth of the whole; the tail's gradient is one pass over the row, and that of S
// is written over it. Over one part of a vocabulary statistics come first, and the gradient once all parts' are known.
#pragma once

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <vector>

#include "src/tensors/kernels/instruction_set.h"
#include "src/tensors/kernels/linear_top_k_cross_entropy.h"
#include "src/tensors/kernels/parallel_rows.h"
#include "src/tensors/kernels/vector_math.h"

namespace coppice {

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

inline float to_finite_float(double value) {
  return static_cast<float>(std::clamp(value, -double{FLT_MAX}, double{FLT_MAX}));
}

/// An entry of S.
struct TopKEntry {
  int64_t column;
  double logit, log_q, q;
  double e_1 = 0, e_p = 0;  // exp(logit - largest), exp((logit - largest) / tau): exponentiate()
};

inline void exponentiate(std::vector<TopKEntry>& entries, double largest, double tau) {
  for (TopKEntry& entry : entries) {
    entry.e_1 = std::exp(entry.logit - largest);
    entry.e_p = tau == 1.0 ? entry.e_1 : std::exp((entry.logit - largest) / tau);
  }
}

/// Column of an id, -1 where another part has it.
inline int64_t column_of(const TopKCrossEntropyParams<float>& params, int64_t id) {
  const int64_t column = id - params.first_id;
  return column >= 0 && column < params.num_vocab ? column : -1;
}

inline bool is_taught(const TopKCrossEntropyParams<float>& params, int64_t row) {
  return params.k > 0 && params.top_id[row * params.k] >= 0;
}

/// The row's entries of S that are among the columns; their logits leave the row, where their exponential is then 0.
inline void set_aside(const TopKCrossEntropyParams<float>& params, int64_t row, std::vector<TopKEntry>& entries) {
  float* z = params.logits + row * params.num_vocab;
  entries.clear();
  if (!is_taught(params, row)) return;
  double last_log_q = 0, last_q = 1;  // most draws of a row have one probability
  for (int64_t i = 0; i < params.k; ++i) {
    const int64_t id = params.top_id[row * params.k + i], column = column_of(params, id);
    if (id < 0 || column < 0) continue;
    const double log_q = params.top_logp[row * params.k + i];
    if (log_q != last_log_q) last_log_q = log_q, last_q = std::exp(log_q);
    entries.push_back({column, z[column], log_q, last_q});
    z[column] = -FLT_MAX;
  }
}

/// After statistics: back, for the other walk.
inline void put_back(const TopKCrossEntropyParams<float>& params, int64_t row, const std::vector<TopKEntry>& entries) {
  for (const TopKEntry& entry : entries)
    params.logits[row * params.num_vocab + entry.column] = static_cast<float>(entry.logit);
}

/// True for an ignored row, whose gradient is then zero.
inline bool skip_row(const TopKCrossEntropyParams<float>& params, int64_t row) {
  if (params.true_label[row] != kIgnoredLabel) return false;
  if (params.write_gradient) std::fill_n(params.logits + row * params.num_vocab, params.num_vocab, 0.0f);
  return true;
}

/// The part with the largest logit, the earlier one among equals: it keeps ties to the lowest id.
template <class Row>
const Row& largest_part(const RowParts<Row>& parts, int64_t row) {
  int64_t largest = 0;
  for (int64_t part = 1; part < parts.num_parts; ++part)
    if (parts.at(part, row).largest > parts.at(largest, row).largest) largest = part;
  return parts.at(largest, row);
}

/// body(row, entries) of every row, `entries` to be reused.
template <class Body>
void walk_rows(const TopKCrossEntropyParams<float>& params, const Body& body) {
  parallel_rows(params.num_rows, threads_for(params.num_rows * params.num_vocab), [&](int64_t begin, int64_t end, int) {
    std::vector<TopKEntry> entries;
    for (int64_t row = begin; row < end; ++row) body(row, entries);
  });
}

}  // namespace coppice
