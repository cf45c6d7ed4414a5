// The reference sorts and works in double. The quick path never sorts; per row of F floats it takes
//   1. bisection on the score for the ceil(k)-th largest, to within kBracket epsilon: one compare-and-count pass a step
//   (none when epsilon is wide),
//   2. e = exp((s - centre) / epsilon) once, which is in float's range because t lies near the centre,
//   3. Newton on G(w) = sum min(1, w e) = k: G is concave and piecewise linear, so from the left it climbs and ends on
//   the exact piece; sums only,
//   4. lambda = min(1, w e), and its sum is checked. In the rare case that it is off, t is corrected and lambda
//   computed anew with its argument taken from t in
//      double (as two floats); when that does not settle it, the row is sorted after all.
// The sums of step 3 run in float over blocks of kBlock entries and in double over blocks, good to about 1e-6 at worst
// (many equal entries); the checked one takes shorter blocks.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "src/tensors/kernels/parallel_rows.h"
#include "src/tensors/kernels/soft_top_k.h"
#include "src/tensors/kernels/vector_math.h"

namespace coppice {

SoftTopKSolution soft_top_k_reference(std::span<const double> scores, double k, double epsilon) {
  const auto n = static_cast<int64_t>(scores.size());
  SoftTopKSolution solution{.soft_mask = std::vector<double>(n, 1.0),
                            .saturated = std::vector<uint8_t>(n, 1),
                            .num_saturated = n,
                            .threshold = std::nan("")};
  if (k == static_cast<double>(n)) return solution;

  std::vector<int64_t> order(n);
  std::iota(order.begin(), order.end(), int64_t{0});
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return scores[a] > scores[b]; });
  const double centre = scores[order[static_cast<int64_t>(std::ceil(k)) - 1]];
  std::vector<double> x(n),
      excess(n, 0.0);  // excess[j] = logsumexp(x[j], x[j+1], ...) - x[j]: kept apart from x[j], which may be huge
  for (int64_t j = 0; j < n; ++j) x[j] = (scores[order[j]] - centre) / epsilon;
  for (int64_t j = n - 2; j >= 0; --j) excess[j] = std::log1p(std::exp(excess[j + 1] + (x[j + 1] - x[j])));

  int64_t m = 0;  // smallest m whose next entry stays at or below 1
  while (std::log(k - static_cast<double>(m)) - excess[m] > 0.0) ++m;
  const double shift = std::log(k - static_cast<double>(m)) - excess[m] - x[m];
  for (int64_t j = m; j < n; ++j) {
    solution.soft_mask[order[j]] = std::exp(std::min(0.0, x[j] + shift));
    solution.saturated[order[j]] = 0;
  }
  solution.num_saturated = m;
  solution.threshold = centre - epsilon * shift;
  return solution;
}

std::vector<double> soft_top_k_backward_reference(const SoftTopKSolution& solution,
                                                  std::span<const double> soft_mask_grad, double epsilon) {
  double mass = 0, weighted = 0;
  for (size_t f = 0; f < soft_mask_grad.size(); ++f) {
    if (solution.saturated[f]) continue;
    mass += solution.soft_mask[f];
    weighted += soft_mask_grad[f] * solution.soft_mask[f];
  }
  std::vector<double> scores_grad(soft_mask_grad.size(), 0.0);
  for (size_t f = 0; f < soft_mask_grad.size(); ++f)
    if (!solution.saturated[f])
      scores_grad[f] = solution.soft_mask[f] / epsilon * (soft_mask_grad[f] - weighted / mass);
  return scores_grad;
}

namespace {

constexpr int64_t kBlock = 512;
#if defined(__SANITIZE_ADDRESS__) || !defined(__OPTIMIZE__)
constexpr int64_t kCheckedBlock =
    8;  // loops that are not vectorised add one after the other: as many as a lane of 16 adds of 128
#else
constexpr int64_t kCheckedBlock = 128;
#endif
constexpr double kBracket = 4;  // width, in epsilons, at which the bisection stops
constexpr float kLargest =
    60.0f;  // exponents are cut here; t - centre is below epsilon (log F - log(k - ceil(k) + 1)) < 60 epsilon
constexpr float kSmallest = -86.0f;     // exp of less counts as 0: spares subnormal numbers
constexpr double kSumTolerance = 3e-7;  // of the unsaturated sum; rounding lambda to float alone costs up to 6e-8

/// Range of a row; `valid` false when an entry is NaN or beyond kLargestSoftTopKScore.
struct Range {
  float low, high;
  bool valid;
};
COPPICE_INLINE Range find_range_loop(const float* s, int64_t n) {
  float low = std::numeric_limits<float>::infinity(), high = -low;
  int32_t bad = 0;
#pragma omp simd reduction(min : low) reduction(max : high) reduction(+ : bad)
  for (int64_t i = 0; i < n; ++i) {
    low = s[i] < low ? s[i] : low;
    high = s[i] > high ? s[i] : high;
    bad += std::abs(s[i]) <= kLargestSoftTopKScore ? 0 : 1;
  }
  return {low, high, bad == 0};
}
constexpr auto find_range = per_instruction_set<find_range_loop>;

COPPICE_INLINE int64_t count_above_loop(const float* s, int64_t n, float bound) {
  int32_t count = 0;
#pragma omp simd reduction(+ : count)
  for (int64_t i = 0; i < n; ++i) count += s[i] > bound ? 1 : 0;
  return count;
}
constexpr auto count_above = per_instruction_set<count_above_loop>;

COPPICE_INLINE float largest_up_to_loop(const float* s, int64_t n, float bound) {
  float largest = -std::numeric_limits<float>::infinity();
#pragma omp simd reduction(max : largest)
  for (int64_t i = 0; i < n; ++i) {
    const float candidate = s[i] <= bound ? s[i] : -std::numeric_limits<float>::infinity();
    largest = candidate > largest ? candidate : largest;
  }
  return largest;
}
constexpr auto largest_up_to = per_instruction_set<largest_up_to_loop>;

COPPICE_INLINE float smallest_above_loop(const float* s, int64_t n, float bound) {
  float smallest = std::numeric_limits<float>::infinity();
#pragma omp simd reduction(min : smallest)
  for (int64_t i = 0; i < n; ++i) {
    const float candidate = s[i] > bound ? s[i] : std::numeric_limits<float>::infinity();
    smallest = candidate < smallest ? candidate : smallest;
  }
  return smallest;
}
constexpr auto smallest_above = per_instruction_set<smallest_above_loop>;

/// Entries above a bound, and the sum of the others.
struct Split {
  int64_t num_above;
  double sum_below;
};

/// e = exp((s - centre) / epsilon), split at e = 1.
COPPICE_INLINE Split exponentiate_loop(const float* s, float* e, int64_t n, float centre, float inverse_epsilon) {
  Split split{0, 0.0};
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t end = std::min(n, begin + kBlock);
    float sum = 0;
    int32_t count = 0;
#pragma omp simd reduction(+ : sum, count)
    for (int64_t i = begin; i < end; ++i) {
      float x = (s[i] - centre) * inverse_epsilon;
      x = x > kLargest ? kLargest : x;
      const float value = vector_exp_flushed(x);
      e[i] = value;
      count += x > 0.0f ? 1 : 0;
      sum += x > 0.0f ? 0.0f : value;
    }
    split.num_above += count;
    split.sum_below += sum;
  }
  return split;
}
constexpr auto exponentiate = per_instruction_set<exponentiate_loop>;

COPPICE_INLINE Split split_at_loop(const float* e, int64_t n, float bound) {
  Split split{0, 0.0};
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t end = std::min(n, begin + kBlock);
    float sum = 0;
    int32_t count = 0;
#pragma omp simd reduction(+ : sum, count)
    for (int64_t i = begin; i < end; ++i) {
      count += e[i] > bound ? 1 : 0;
      sum += e[i] > bound ? 0.0f : e[i];
    }
    split.num_above += count;
    split.sum_below += sum;
  }
  return split;
}
constexpr auto split_at = per_instruction_set<split_at_loop>;

/// lambda = 1 where s > bound, otherwise factor e; also without the saturated entries. Their sum, checked.
template <bool WithFree>
COPPICE_INLINE Split scale(const float* s, const float* e, float* soft_mask, float* free_mask, int64_t n, float bound,
                           float factor) {
  Split split{0, 0.0};
  for (int64_t begin = 0; begin < n; begin += kCheckedBlock) {
    const int64_t end = std::min(n, begin + kCheckedBlock);
    float sum = 0;
    int32_t count = 0;
#pragma omp simd reduction(+ : sum, count)
    for (int64_t i = begin; i < end; ++i) {
      const float value = e[i] * factor > 1.0f ? 1.0f : e[i] * factor;
      const float free_value = s[i] > bound ? 0.0f : value;
      soft_mask[i] = s[i] > bound ? 1.0f : value;
      if constexpr (WithFree) free_mask[i] = free_value;
      count += s[i] > bound ? 1 : 0;
      sum += free_value;
    }
    split.num_above += count;
    split.sum_below += sum;
  }
  return split;
}

/// How lambda is computed: 1 where s > bound, otherwise factor exp((s - anchor) / epsilon), the anchor as two floats.
struct MaskFormula {
  float bound, anchor_high, anchor_low, factor, inverse_epsilon;
};

template <bool WithFree>
COPPICE_INLINE Split write_mask(const float* s, float* soft_mask, float* free_mask, int64_t n,
                                const MaskFormula formula) {
  Split split{0, 0.0};
  for (int64_t begin = 0; begin < n; begin += kCheckedBlock) {
    const int64_t end = std::min(n, begin + kCheckedBlock);
    float sum = 0;
    int32_t count = 0;
#pragma omp simd reduction(+ : sum, count)
    for (int64_t i = begin; i < end; ++i) {
      const float x = ((s[i] - formula.anchor_high) - formula.anchor_low) * formula.inverse_epsilon;
      float value = vector_exp_flushed(x) * formula.factor;
      value = value > 1.0f ? 1.0f : value;
      const float free_value = s[i] > formula.bound ? 0.0f : value;
      soft_mask[i] = s[i] > formula.bound ? 1.0f : value;
      if constexpr (WithFree) free_mask[i] = free_value;
      count += s[i] > formula.bound ? 1 : 0;
      sum += free_value;
    }
    split.num_above += count;
    split.sum_below += sum;
  }
  return split;
}

/// The largest float <= t, for the comparison with float scores.
float round_down(double t) {
  const auto nearest = static_cast<float>(t);
  return static_cast<double>(nearest) > t ? std::nextafter(nearest, -std::numeric_limits<float>::infinity()) : nearest;
}

/// A score of the row, the rank-th largest (rank from 1) or one up to kBracket epsilon above it.
float find_centre(const float* s, int64_t n, const Range& range, int64_t rank, double epsilon) {
  float above = range.high;  // fewer than `rank` entries exceed it
  float below =
      std::nextafter(range.low, -std::numeric_limits<float>::infinity());  // at least `rank` entries exceed it
  while (static_cast<double>(above) - below > kBracket * epsilon) {
    const auto middle = static_cast<float>(0.5 * (static_cast<double>(above) + below));
    if (middle <= below || middle >= above) break;  // neighbours: `above` is the entry itself
    (count_above(s, n, middle) < rank ? above : below) = middle;
  }
  return largest_up_to(s, n, above);
}

/// The row by the reference: for sums that float arguments do not settle.
void solve_sorted(const float* s, float* soft_mask, float* free_mask, int64_t n, double k, double epsilon) {
  const SoftTopKSolution solution = soft_top_k_reference(std::vector<double>(s, s + n), k, epsilon);
  for (int64_t i = 0; i < n; ++i) {
    soft_mask[i] = static_cast<float>(solution.soft_mask[i]);
    if (free_mask) free_mask[i] = solution.saturated[i] ? 0.0f : soft_mask[i];
  }
}

/// Solves one row; `e` is scratch of n floats.
bool solve_row(const float* s, float* soft_mask, float* free_mask, int64_t n, double k, double epsilon, float* e) {
  const Range range = find_range(s, n);
  if (!range.valid) return false;
  if (k == static_cast<double>(n)) {
    std::fill_n(soft_mask, n, 1.0f);
    if (free_mask) std::fill_n(free_mask, n, 0.0f);
    return true;
  }
  const auto inverse_epsilon = static_cast<float>(1.0 / epsilon);
  const float centre = find_centre(s, n, range, static_cast<int64_t>(std::ceil(k)), epsilon);

  // Newton in tau = 1 / w = exp((t - centre) / epsilon). Fewer than k entries exceed the centre, so the first step is
  // defined; it may start on the right, but lands on the left of the solution, and from there the number of saturated
  // entries only grows.
  Split split = exponentiate(s, e, n, centre, inverse_epsilon);
  double tau = split.sum_below / (k - static_cast<double>(split.num_above));
  for (int64_t num_saturated = -1;;) {
    split = split_at(e, n, static_cast<float>(tau));
    if (split.num_above <= num_saturated || static_cast<double>(split.num_above) >= k) break;
    num_saturated = split.num_above;
    tau = split.sum_below / (k - static_cast<double>(num_saturated));
  }

  // Where t lies well above the centre most of the sum is in entries far below t: their arguments are smaller, and so
  // better in float, from the centre.
  const bool from_centre = tau > 2.0;
  double t = centre + epsilon * std::log(tau);
  for (int turn = 0; turn < 4; ++turn) {
    const float t_high = round_down(t);  // s > t exactly when s > t_high
    const MaskFormula formula{.bound = t_high,
                              .anchor_high = from_centre ? centre : t_high,
                              .anchor_low = from_centre ? 0.0f : static_cast<float>(t - t_high),
                              .factor = from_centre ? static_cast<float>(std::exp((centre - t) / epsilon)) : 1.0f,
                              .inverse_epsilon = inverse_epsilon};
    if (turn == 0) {  // the exponentials at hand: t lies within kBracket epsilon below the centre, or above it
      const auto factor = static_cast<float>(1.0 / tau);
      const auto pass = free_mask ? per_instruction_set<scale<true>>.call : per_instruction_set<scale<false>>.call;
      split = pass(s, e, soft_mask, free_mask, n, t_high, factor);
    } else {
      const auto pass =
          free_mask ? per_instruction_set<write_mask<true>>.call : per_instruction_set<write_mask<false>>.call;
      split = pass(s, soft_mask, free_mask, n, formula);
    }
    const double wanted = k - static_cast<double>(split.num_above);
    if (wanted <= 0.0) {  // fewer than k entries saturate, so rounding left t below the last of them
      t = smallest_above(s, n, t_high);
    } else if (std::abs(split.sum_below - wanted) > kSumTolerance * wanted) {
      t += epsilon * std::log(split.sum_below / wanted);
    } else {
      return true;
    }
  }
  solve_sorted(s, soft_mask, free_mask, n, k, epsilon);
  return true;
}

COPPICE_INLINE void backward_row_loop(const float* free_mask, const float* grad, float* scores_grad, int64_t n,
                                      double epsilon) {
  double mass = 0, weighted = 0;
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t end = std::min(n, begin + kBlock);
    float block_mass = 0, block_weighted = 0;
#pragma omp simd reduction(+ : block_mass, block_weighted)
    for (int64_t i = begin; i < end; ++i) {
      block_mass += free_mask[i];
      block_weighted += free_mask[i] * grad[i];
    }
    mass += block_mass;
    weighted += block_weighted;
  }
  const auto mean = static_cast<float>(mass > 0.0 ? weighted / mass : 0.0);
  const auto inverse_epsilon = static_cast<float>(1.0 / epsilon);
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) scores_grad[i] = free_mask[i] * inverse_epsilon * (grad[i] - mean);
}
constexpr auto backward_row = per_instruction_set<backward_row_loop>;

}  // namespace

int64_t soft_top_k_cpu(const SoftTopKParams& params) {
  const int64_t n = params.num_channels;
  std::vector<uint8_t> finite(static_cast<size_t>(params.num_rows));
  parallel_rows(params.num_rows, threads_for(params.num_rows * n), [&](int64_t begin, int64_t end, int) {
    std::vector<float> e(static_cast<size_t>(n));
    for (int64_t row = begin; row < end; ++row)
      finite[row] =
          solve_row(params.scores + row * params.scores_row_stride, params.soft_mask + row * n,
                    params.free_mask ? params.free_mask + row * n : nullptr, n, params.k, params.epsilon, e.data());
  });
  const auto first_bad = std::find(finite.begin(), finite.end(), uint8_t{0});
  return first_bad == finite.end() ? -1 : first_bad - finite.begin();
}

void soft_top_k_backward_cpu(const SoftTopKBackwardParams& params) {
  const int64_t n = params.num_channels;
  parallel_rows(params.num_rows, threads_for(params.num_rows * n), [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row)
      backward_row(params.free_mask + row * n, params.soft_mask_grad + row * n, params.scores_grad + row * n, n,
                   params.epsilon);
  });
}

}  // namespace coppice
