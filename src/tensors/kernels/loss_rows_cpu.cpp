#include "src/tensors/kernels/loss_rows.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>
#include <vector>

#include "src/tensors/kernels/parallel_rows.h"
#include "src/tensors/kernels/vector_math.h"

namespace coppice {

namespace {

constexpr int64_t kBlock = 512;    // of the search for the maximum
constexpr int64_t kTopBlock = 64;  // passed over at once while nothing in it belongs to the k largest

COPPICE_INLINE float largest_of(const float* z, int64_t begin, int64_t end) {
  float value = -std::numeric_limits<float>::infinity();
#pragma omp simd reduction(max : value)
  for (int64_t i = begin; i < end; ++i) value = z[i] > value ? z[i] : value;
  return value;
}

template <bool Store>
COPPICE_INLINE double sum_of(float* z, int64_t n, float largest, float inverse_temperature) {
  double sum = 0;
  for (int64_t begin = 0; begin < n; begin += kSumBlock) {
    const int64_t end = std::min(n, begin + kSumBlock);
    float block_sum = 0;
#pragma omp simd reduction(+ : block_sum)
    for (int64_t i = begin; i < end; ++i) {
      const float value = vector_exp_flushed((z[i] - largest) * inverse_temperature);
      if constexpr (Store) z[i] = value;
      block_sum += value;
    }
    sum += block_sum;
  }
  return sum;
}

struct Candidate {
  float logit;
  int64_t id;
  /// Larger logit first, lower id among equals.
  bool operator<(const Candidate& other) const {
    return logit > other.logit || (logit == other.logit && id < other.id);
  }
};

/// The k first candidates in order. `heap` keeps the last of them on top; a later id with an equal logit never
/// displaces it.
COPPICE_INLINE void find_top_k_loop(const float* z, int64_t n, int64_t k, std::vector<Candidate>& heap) {
  heap.clear();
  for (int64_t i = 0; i < k; ++i) heap.push_back({z[i], i});
  std::make_heap(heap.begin(), heap.end());
  for (int64_t begin = k; begin < n; begin += kTopBlock) {
    const int64_t end = std::min(n, begin + kTopBlock);
    if (largest_of(z, begin, end) <= heap.front().logit) continue;
    for (int64_t i = begin; i < end; ++i) {
      if (z[i] <= heap.front().logit) continue;
      std::pop_heap(heap.begin(), heap.end());
      heap.back() = {z[i], i};
      std::push_heap(heap.begin(), heap.end());
    }
  }
  std::sort_heap(heap.begin(), heap.end());
}
constexpr auto find_top_k = per_instruction_set<find_top_k_loop>;

/// Entries that are not clearly below `bound`; a NaN is none that is.
COPPICE_INLINE int64_t count_near_loop(const float* z, int64_t n, float bound) {
  int64_t near = 0;
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t end = std::min(n, begin + kBlock);
    int32_t in_block = 0;
#pragma omp simd reduction(+ : in_block)
    for (int64_t i = begin; i < end; ++i) in_block += z[i] < bound ? 0 : 1;
    near += in_block;
  }
  return near;
}
constexpr auto count_near = per_instruction_set<count_near_loop>;

void top_k_row(const TopKParams& params, int64_t row, std::vector<Candidate>& heap) {
  const int64_t n = params.num_vocab, k = params.k;
  float* z = params.logits + row * n;
  find_top_k(z, n, k, heap);
  const float largest = heap.front().logit;
  if (params.fact != nullptr) params.fact[row] = judge_top(z, n, largest);
  double kept = 0;
  for (const Candidate& candidate : heap) {
    kept += std::exp((candidate.logit - largest) / params.temperature);
    z[candidate.id] = -FLT_MAX;  // set aside, so that a small tail is not lost in the rounding of a large sum
  }
  const double tail = k == n ? 0.0 : sum_exponentials(z, n, largest, static_cast<float>(1.0 / params.temperature)),
               log_sum = std::log(kept + tail);
  for (int64_t i = 0; i < k; ++i) {
    params.id[row * k + i] = heap[static_cast<size_t>(i)].id;
    params.logp[row * k + i] =
        static_cast<float>((heap[static_cast<size_t>(i)].logit - largest) / params.temperature - log_sum);
  }
  params.tail[row] = static_cast<float>(std::log(tail) - log_sum);  // log 0 = -infinity
}

COPPICE_INLINE Largest find_largest_loop(const float* z, int64_t n) {
  Largest largest{-std::numeric_limits<float>::infinity(), 0};
  for (int64_t begin = 0; begin < n; begin += kBlock)
    if (const float value = largest_of(z, begin, std::min(n, begin + kBlock)); value > largest.value)
      largest = {value, begin};
  return largest;
}

COPPICE_INLINE void multiply_loop(float* z, int64_t n, float factor) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) z[i] *= factor;
}

}  // namespace

Largest find_largest(const float* z, int64_t n) { return per_instruction_set<find_largest_loop>(z, n); }

int64_t find_first(const float* z, int64_t n, const Largest& largest) {
  int64_t i = largest.block;
  while (i < n - 1 && z[i] != largest.value) ++i;
  return i;
}

TopFact judge_top(const float* z, int64_t n, float largest) {
  if (!std::isfinite(largest)) return TopFact::not_finite;
  if (count_near(z, n, largest - kNearTie * std::abs(largest)) == 1) return TopFact::clear;
  return std::any_of(z, z + n, [](float value) { return std::isnan(value); }) ? TopFact::not_finite : TopFact::near_tie;
}

double sum_exponentials(const float* z, int64_t n, float largest, float inverse_temperature) {
  return per_instruction_set<sum_of<false>>(const_cast<float*>(z), n, largest, inverse_temperature);
}
double sum_exponentials_in_place(float* z, int64_t n, float largest) {
  return per_instruction_set<sum_of<true>>(z, n, largest, 1.0f);
}

void multiply_row(float* z, int64_t n, float factor) { per_instruction_set<multiply_loop>(z, n, factor); }

void top_1_cpu(const float* logits, int64_t num_rows, int64_t num_vocab, int64_t* top_1, TopFact* fact) {
  parallel_rows(num_rows, threads_for(num_rows * num_vocab), [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const float* z = logits + row * num_vocab;
      const Largest largest = find_largest(z, num_vocab);
      top_1[row] = find_first(z, num_vocab, largest);
      if (fact != nullptr) fact[row] = judge_top(z, num_vocab, largest.value);
    }
  });
}

void top_k_cpu(const TopKParams& params) {
  parallel_rows(params.num_rows, threads_for(params.num_rows * params.num_vocab), [&](int64_t begin, int64_t end, int) {
    std::vector<Candidate> heap;
    for (int64_t row = begin; row < end; ++row) top_k_row(params, row, heap);
  });
}

}  // namespace coppice
