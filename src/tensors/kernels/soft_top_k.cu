// Soft-Top-K, one block a row, one launch each way. Forward takes the steps of soft_top_k_cpu.cpp: bisection for the
// ceil(k)-th largest score, exponentials once, Newton by sums, a checked sum. Here the argument of an exponential is
// carried in two floats, so that each is good to some units in its last place however far from the threshold; where
// the mask does not add up to k all the same, the row is solved again with exponentials in double.
// Up to 512 threads x 48 values stay in registers: 12 F bytes of a row each way (8 F forward where no backward
// follows). Wider rows are read again in each pass, from the second-level cache; their exponentials lie in soft_mask.
#include "src/tensors/kernels/soft_top_k.h"

#include "src/tensors/kernels/cuda_dialect.h"
#include "src/tensors/kernels/row_groups.h"

namespace coppice::COPPICE_EXECUTION {
namespace {

constexpr int kThreads = 512;
constexpr int kGroupsHeld = static_cast<int>(kSoftTopKColumnsHeld) / kThreads / kGroup;

constexpr double kBracket = 4;     // width, in epsilons, at which the bisection stops
constexpr float kLargest = 80.0f;  // exponents are cut here; an entry this far above the centre is saturated ...
constexpr double kLargestThreshold = 5.5e34;  // ... unless the threshold is, exp(kLargest), which fails the check
constexpr float kSmallest = -86.0f;           // exp of less counts as 0
constexpr double kSumTolerance = 3e-7;        // of the unsaturated sum; rounding lambda alone costs up to 6e-8
constexpr double kLargestInDouble = 700.0;    // exponents in double are cut here

/// Of a row's scores, those aside that are not finite or too large.
struct Range {
  float low, high;
  int num_bad;
};
struct JoinRanges {
  __device__ __forceinline__ Range operator()(const Range& a, const Range& b) const {
    return {fminf(a.low, b.low), fmaxf(a.high, b.high), a.num_bad + b.num_bad};
  }
};

/// Entries above a bound, and the sum of the others.
struct Split {
  double sum_below;
  int64_t num_above;
  __device__ __forceinline__ Split operator+(const Split& other) const {
    return {sum_below + other.sum_below, num_above + other.num_above};
  }
};

struct Smallest {
  __device__ __forceinline__ double operator()(double a, double b) const { return fmin(a, b); }
};

/// Sum over the block of a count of each thread.
__device__ __forceinline__ int block_count(int count, ReduceScratch<int>& scratch) {
  const int lane = threadIdx.x % kWarpThreads, warp = threadIdx.x / kWarpThreads;
  int* const half = scratch.next();
  count = __reduce_add_sync(kWholeWarp, count);
  if (lane == 0) half[warp] = count;
  __syncthreads();
  return __reduce_add_sync(kWholeWarp, lane < static_cast<int>(blockDim.x) / kWarpThreads ? half[lane] : 0);
}

template <class Row>
__device__ __forceinline__ Range find_range(const Row& row, int num_absent, ReduceScratch<Range>& scratch) {
  Range range{INFINITY, -INFINITY, 0};
  row.each([&](int, const Group& scores) {
    COPPICE_UNROLL
    for (int i = 0; i < kGroup; ++i) {
      const bool good = fabsf(scores[i]) <= kLargestSoftTopKScore;
      range.low = good ? fminf(range.low, scores[i]) : range.low;
      range.high = good ? fmaxf(range.high, scores[i]) : range.high;
      range.num_bad += good ? 0 : 1;
    }
  });
  range = block_reduce(range, JoinRanges(), Range{INFINITY, -INFINITY, 0}, scratch);
  range.num_bad -= num_absent;
  return range;
}

/// A score of the row, the rank-th largest (rank from 1) or one up to kBracket epsilon above it.
template <class Row>
__device__ __forceinline__ float find_centre(const Row& row, const Range& range, int rank, double epsilon,
                                             ReduceScratch<int>& counts, ReduceScratch<float>& floats) {
  float above = range.high;                        // fewer than `rank` entries exceed it
  float below = nextafterf(range.low, -INFINITY);  // at least `rank` entries exceed it
  while (static_cast<double>(above) - below > kBracket * epsilon) {
    const float middle = static_cast<float>(0.5 * (static_cast<double>(above) + below));
    if (middle <= below || middle >= above) break;  // neighbours: `above` is the entry itself
    int count = 0;
    row.each([&](int, const Group& scores) {
      COPPICE_UNROLL
      for (int i = 0; i < kGroup; ++i) count += scores[i] > middle ? 1 : 0;
    });
    (block_count(count, counts) < rank ? above : below) = middle;
  }
  float largest = -INFINITY;
  row.each([&](int, const Group& scores) {
    COPPICE_UNROLL
    for (int i = 0; i < kGroup; ++i) largest = scores[i] <= above ? fmaxf(largest, scores[i]) : largest;
  });
  return block_reduce(largest, Largest(), -INFINITY, floats);
}

/// exp((score - centre) / epsilon), 1 / epsilon as two floats.
__device__ __forceinline__ float exponential(float score, float centre, float inverse_high, float inverse_low) {
  const float distance = score - centre, x = distance * inverse_high;
  if (!(x >= kSmallest)) return 0.0f;
  if (x > kLargest) return expf(kLargest);
  const float back = distance - score, lost = (score - (distance - back)) - (centre + back);  // by the subtraction
  const float rest = fmaf(distance, inverse_high, -x) + fmaf(distance, inverse_low, lost * inverse_high);
  const float e = expf(x);
  return fmaf(e, rest, e);
}

template <class Row>
__device__ __forceinline__ Split split_at(const Row& row, float bound, ReduceScratch<Split>& scratch) {
  Split split{0.0, 0};
  row.each([&](int, const Group& e) {
    Group below;
    int num_above = 0;
    COPPICE_UNROLL
    for (int i = 0; i < kGroup; ++i) {
      below[i] = e[i] > bound ? 0.0f : e[i];
      num_above += e[i] > bound ? 1 : 0;
    }
    split = split + Split{sum_of(below), num_above};
  });
  return block_reduce(split, Sum(), Split{0.0, 0}, scratch);
}

/// The largest float <= value.
__device__ __forceinline__ float round_down(double value) {
  const float nearest = static_cast<float>(value);
  return static_cast<double>(nearest) > value ? nextafterf(nearest, -INFINITY) : nearest;
}

/// lambda = 1 where e > bound, otherwise e * (high + low), at most 1.
struct MaskFormula {
  float bound, high, low;
  __device__ explicit MaskFormula(double tau)
      : bound(round_down(tau)),
        high(static_cast<float>(1.0 / tau)),
        low(static_cast<float>(1.0 / tau - static_cast<double>(high))) {}
  __device__ __forceinline__ float operator()(float e) const {
    return e > bound ? 1.0f : fminf(fmaf(e, high, e * low), 1.0f);
  }
};

/// Writes a group of the masks; saturated entries have no free one.
template <int kVec, class Lambda>
__device__ __forceinline__ void store_masks(const SoftTopKParams& params, const RowShape<kVec>& shape, int group,
                                            const Lambda& lambda) {
  const int64_t start = blockIdx.x * params.num_channels;
  Group soft, free;
  COPPICE_UNROLL
  for (int i = 0; i < kGroup; ++i) lambda(i, soft[i], free[i]);
  shape.store(params.soft_mask + start, group, soft);
  if (params.free_mask != nullptr) shape.store(params.free_mask + start, group, free);
}

template <int kVec>
__device__ __forceinline__ void fill_masks(const SoftTopKParams& params, const RowShape<kVec>& shape, float soft_value,
                                           float free_value) {
  for (int group = threadIdx.x; group < shape.num_groups; group += blockDim.x)
    store_masks(params, shape, group, [&](int, float& soft, float& free) {
      soft = soft_value;
      free = free_value;
    });
}

/// Newton in tau = exp((t - centre) / epsilon), which falls from the second value on while more and more entries
/// saturate; ends on the exact piece. `split_of(tau)`: the entries there. False where rounding lets k of them exceed
/// tau, which fewer than k can.
template <class SplitOf>
__device__ __forceinline__ bool find_threshold(double k, double& tau, const SplitOf& split_of) {
  Split split = split_of(1.0);  // fewer than k entries exceed the centre
  tau = split.sum_below / (k - static_cast<double>(split.num_above));
  for (int64_t num_saturated = -1;;) {
    split = split_of(tau);
    if (static_cast<double>(split.num_above) >= k) return false;
    if (split.num_above <= num_saturated) return true;
    num_saturated = split.num_above;
    tau = split.sum_below / (k - static_cast<double>(num_saturated));
  }
}

/// The row by exponentials in double, taken anew from the scores in every pass.
template <int kVec>
__device__ __forceinline__ void solve_in_double(const SoftTopKParams& params, const RowShape<kVec>& shape,
                                                const float* scores, float centre, ReduceScratch<Split>& splits,
                                                ReduceScratch<double>& doubles) {
  const auto exponential_at = [&](float score) {
    return exp(fmin((static_cast<double>(score) - centre) / params.epsilon, kLargestInDouble));
  };
  const StreamedRow<kVec> row(shape, scores, -INFINITY);
  double tau = 1.0;
  const bool found = find_threshold(params.k, tau, [&](double bound) {
    Split split{0.0, 0};
    row.each([&](int, const Group& group) {
      for (int i = 0; i < kGroup; ++i) {
        const double e = exponential_at(group[i]);
        split = split + (e > bound ? Split{0.0, 1} : Split{e, 0});
      }
    });
    return block_reduce(split, Sum(), Split{0.0, 0}, splits);
  });
  if (!found) {  // rounding left tau below the last of them
    double next = INFINITY;
    row.each([&](int, const Group& group) {
      for (int i = 0; i < kGroup; ++i) {
        const double e = exponential_at(group[i]);
        next = e > tau ? fmin(next, e) : next;
      }
    });
    tau = block_reduce(next, Smallest(), static_cast<double>(INFINITY), doubles);
  }
  row.each([&](int group, const Group& values) {
    store_masks(params, shape, group, [&](int i, float& soft, float& free) {
      const double e = exponential_at(values[i]);
      soft = static_cast<float>(fmin(e / tau, 1.0));
      free = e > tau ? 0.0f : soft;
    });
  });
}

template <class Row>
__global__ void __launch_bounds__(kThreads, 1) soft_top_k_kernel(SoftTopKParams params) {
  COPPICE_SHARED(int, shared_ints, ReduceScratch<int>::kCount);
  COPPICE_SHARED(float, shared_floats, ReduceScratch<float>::kCount);
  COPPICE_SHARED(double, shared_doubles, ReduceScratch<double>::kCount);
  COPPICE_SHARED(Range, shared_ranges, ReduceScratch<Range>::kCount);
  COPPICE_SHARED(Split, shared_splits, ReduceScratch<Split>::kCount);
  ReduceScratch<int> ints(shared_ints);
  ReduceScratch<float> floats(shared_floats);
  ReduceScratch<double> doubles(shared_doubles);
  ReduceScratch<Range> ranges(shared_ranges);
  ReduceScratch<Split> splits(shared_splits);

  const RowShape<Row::kPack> shape(params.num_channels);
  const int64_t n = blockIdx.x;
  const float* const scores = params.scores + n * params.scores_row_stride;
  Row row(shape, scores, -INFINITY, params.soft_mask + n * params.num_channels);
  const Range range = find_range(row, shape.num_groups * kGroup - shape.count, ranges);
  if (threadIdx.x == 0) store_pack<1>(params.num_bad + n, Pack<int32_t, 1>{{range.num_bad}});
  if (range.num_bad != 0) return fill_masks(params, shape, NAN, NAN);
  if (params.k == static_cast<double>(shape.count)) return fill_masks(params, shape, 1.0f, 0.0f);

  const int rank = static_cast<int>(ceil(params.k));
  const float centre = find_centre(row, range, rank, params.epsilon, ints, floats);
  const double inverse = 1.0 / params.epsilon;
  const float inverse_high = static_cast<float>(inverse), inverse_low = static_cast<float>(inverse - inverse_high);
  row.replace(
      [&](const Group& values) {
        Group e;
        COPPICE_UNROLL
        for (int i = 0; i < kGroup; ++i) e[i] = exponential(values[i], centre, inverse_high, inverse_low);
        return e;
      },
      0.0f);
  double tau = 1.0;
  bool solved = find_threshold(params.k, tau, [&](double bound) { return split_at(row, round_down(bound), splits); });
  const MaskFormula mask(tau);
  Split sum{0.0, 0};
  row.each([&](int, const Group& e) {
    Group below;
    int num_above = 0;
    COPPICE_UNROLL
    for (int i = 0; i < kGroup; ++i) {
      below[i] = e[i] > mask.bound ? 0.0f : mask(e[i]);
      num_above += e[i] > mask.bound ? 1 : 0;
    }
    sum = sum + Split{sum_of(below), num_above};
  });
  sum = block_reduce(sum, Sum(), Split{0.0, 0}, splits);
  const double wanted = params.k - static_cast<double>(sum.num_above);
  solved = solved && tau < kLargestThreshold && fabs(sum.sum_below - wanted) <= kSumTolerance * wanted;
  if (!solved) return solve_in_double(params, shape, scores, centre, splits, doubles);
  row.each([&](int group, const Group& e) {
    store_masks(params, shape, group, [&](int i, float& soft, float& free) {
      soft = mask(e[i]);
      free = e[i] > mask.bound ? 0.0f : soft;
    });
  });
}

/// Sums over the unsaturated entries.
struct Pull {
  double mass, weighted;
  __device__ __forceinline__ Pull operator+(const Pull& other) const {
    return {mass + other.mass, weighted + other.weighted};
  }
};

template <class Row>
__global__ void __launch_bounds__(kThreads) soft_top_k_backward_kernel(SoftTopKBackwardParams params) {
  COPPICE_SHARED(Pull, shared, ReduceScratch<Pull>::kCount);
  ReduceScratch<Pull> scratch(shared);
  const RowShape<Row::kPack> shape(params.num_channels);
  const int64_t start = blockIdx.x * params.num_channels;
  const Row free_mask(shape, params.free_mask + start, 0.0f), grad(shape, params.soft_mask_grad + start, 0.0f);
  Pull pull{0.0, 0.0};
  free_mask.each_with(grad, [&](int, const Group& lambda, const Group& g) {
    Group weighted;
    COPPICE_UNROLL
    for (int i = 0; i < kGroup; ++i) weighted[i] = lambda[i] * g[i];
    pull = pull + Pull{sum_of(lambda), sum_of(weighted)};
  });
  pull = block_reduce(pull, Sum(), Pull{0.0, 0.0}, scratch);
  const float mean = static_cast<float>(pull.mass > 0.0 ? pull.weighted / pull.mass : 0.0);
  const float inverse_epsilon = static_cast<float>(1.0 / params.epsilon);
  free_mask.each_with(grad, [&](int group, const Group& lambda, const Group& g) {
    Group scores_grad;
    COPPICE_UNROLL
    for (int i = 0; i < kGroup; ++i) scores_grad[i] = lambda[i] * inverse_epsilon * (g[i] - mean);
    shape.store(params.scores_grad + start, group, scores_grad);
  });
}

}  // namespace

int soft_top_k(const SoftTopKParams& params, CUstream_st* stream) {
  const int64_t columns = params.num_channels;
  if (params.num_rows == 0) return 0;
  const bool vectors = in_groups(params.scores, params.scores_row_stride) && in_groups(params.soft_mask, columns) &&
                       in_groups(params.free_mask, columns);
  const bool held = columns <= kSoftTopKColumnsHeld;
  const auto kernel =
      held ? (vectors ? soft_top_k_kernel<HeldRow<kGroup, kGroupsHeld>> : soft_top_k_kernel<HeldRow<1, kGroupsHeld>>)
           : (vectors ? soft_top_k_kernel<StreamedRow<kGroup>> : soft_top_k_kernel<StreamedRow<1>>);
  return launch(kernel, params.num_rows, threads_for_groups(columns, kThreads), 0, stream, params);
}

int soft_top_k_backward(const SoftTopKBackwardParams& params, CUstream_st* stream) {
  const int64_t columns = params.num_channels;
  if (params.num_rows == 0) return 0;
  const bool vectors = in_groups(params.free_mask, columns) && in_groups(params.soft_mask_grad, columns) &&
                       in_groups(params.scores_grad, columns);
  const bool held = columns <= kSoftTopKColumnsHeld;
  const auto kernel =
      held ? (vectors ? soft_top_k_backward_kernel<HeldRow<kGroup, kGroupsHeld>>
                      : soft_top_k_backward_kernel<HeldRow<1, kGroupsHeld>>)
           : (vectors ? soft_top_k_backward_kernel<StreamedRow<kGroup>> : soft_top_k_backward_kernel<StreamedRow<1>>);
  return launch(kernel, params.num_rows, threads_for_groups(columns, kThreads), 0, stream, params);
}

}  // namespace coppice::COPPICE_EXECUTION
