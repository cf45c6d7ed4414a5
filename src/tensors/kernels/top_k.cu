// Top-1 and top-k of rows of logits, one block a row, one launch each.
// Top-k reads the row once: each thread keeps the best of its entries and their sum of exponentials. The k-th best of
// the threads bounds the k-th best of the row from below, so that only threads whose best reaches it look at their
// entries again: to count candidates, to list them, and, once the k ids are known, to set those aside and add up the
// others. What is not chosen is thereby added up on its own, and a small tail is not lost in a large sum. Where there
// are more candidates than the list holds, bisection raises the bound: all entries differ in (logit, id).
// Bytes of a row: top-1 4 V + 9; top-k 4 V and, from the second-level cache, 12 V / 512 for each of up to k threads;
// 20 k + 5 for what it leaves.
#include "src/tensors/kernels/top_k.h"

#include "src/tensors/kernels/logit_rows.h"

namespace coppice::COPPICE_EXECUTION {
namespace {

/// Larger logit first, lower id among equals, as one number that no other entry of the row has; NaN counts as
/// -infinity.
__device__ __forceinline__ uint64_t key_of(float logit, int id) {
  const float value = logit != logit ? -INFINITY : logit + 0.0f;  // -0 equals 0
  const unsigned bits = __float_as_uint(value), ordered = bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
  return uint64_t{ordered} << 32 | (0xffffffffu - static_cast<unsigned>(id));
}
__device__ __forceinline__ int id_of(uint64_t key) {
  return static_cast<int>(0xffffffffu - static_cast<unsigned>(key & 0xffffffffu));
}
__device__ __forceinline__ float logit_of(uint64_t key) {
  const unsigned ordered = static_cast<unsigned>(key >> 32);
  return __uint_as_float(ordered >> 31 != 0 ? ordered & 0x7fffffffu : ~ordered);
}

/// visit(column, logit) of the thread's entries, in ascending order.
template <int kVec, class Visit>
__device__ __forceinline__ void each_logit(const RowShape<kVec>& shape, const float* row, const Visit& visit) {
  for (int group = threadIdx.x; group < shape.num_groups; group += blockDim.x) {
    const Group logits = shape.load(row, group, 0.0f);
    COPPICE_UNROLL
    for (int i = 0; i < kGroup; ++i)
      if (kVec == kGroup || group * kGroup + i < shape.count) visit(group * kGroup + i, logits[i]);
  }
}

/// The thread's place among the counts of all: those before it, and the sum.
struct Place {
  int before, total;
};
__device__ __forceinline__ Place place_of(int count, ReduceScratch<int>& scratch) {
  const int lane = threadIdx.x % kWarpThreads, warp = threadIdx.x / kWarpThreads;
  int* const half = scratch.next();
  int upto = count;
  COPPICE_UNROLL
  for (int lanes = 1; lanes < kWarpThreads; lanes *= 2) {
    const int other = __shfl_up_sync(kWholeWarp, upto, lanes);
    if (lane >= lanes) upto += other;
  }
  if (lane == kWarpThreads - 1) half[warp] = upto;
  __syncthreads();
  const int of_warp = lane < static_cast<int>(blockDim.x) / kWarpThreads ? half[lane] : 0;
  const int before = __reduce_add_sync(kWholeWarp, lane < warp ? of_warp : 0);
  return {before + upto - count, __reduce_add_sync(kWholeWarp, of_warp)};
}

template <int kVec>
__global__ void __launch_bounds__(kTopKThreads) top_1_kernel(Top1Params params) {
  COPPICE_SHARED(Best, shared, ReduceScratch<Best>::kCount);
  ReduceScratch<Best> scratch(shared);
  const RowShape<kVec> shape(params.num_vocab);
  const int64_t n = blockIdx.x;
  Best best = no_best(threadIdx.x * kGroup);
  each_logit(shape, params.logits + n * params.num_vocab, [&](int column, float logit) { best.add(logit, column); });
  best = block_reduce(best, JoinBest(), no_best(shape.count), scratch);
  if (threadIdx.x != 0) return;
  store_pack<1>(params.id + n, Pack<int64_t, 1>{{best.id}});
  if (params.fact != nullptr) store_pack<1>(params.fact + n, Pack<TopFact, 1>{{judge(best)}});
}

/// The thread's entries as the first walk sees them.
struct Summary {
  Best best;
  float sum;  // of exp((logit - best) / temperature)
};

template <int kVec>
__device__ __forceinline__ Summary summarise(const RowShape<kVec>& shape, const float* row, float inverse_temperature) {
  Summary summary{no_best(static_cast<int>(threadIdx.x) * kGroup), 0.0f};
  for (int group = threadIdx.x; group < shape.num_groups; group += blockDim.x) {
    const Group logits = shape.load(row, group, -INFINITY);
    const float largest = summary.best.value;
    COPPICE_UNROLL
    for (int i = 0; i < kGroup; ++i) summary.best.add(logits[i], group * kGroup + i);
    if (summary.best.value > largest) summary.sum *= exp_flushed((largest - summary.best.value) * inverse_temperature);
    if (summary.best.value == -INFINITY) continue;
    Group e;
    COPPICE_UNROLL
    for (int i = 0; i < kGroup; ++i) e[i] = exp_flushed((logits[i] - summary.best.value) * inverse_temperature);
    summary.sum += sum_of(e);
  }
  return summary;
}

/// The k-th largest of the threads' numbers, 0 where there are not so many threads. `bound`: shared.
__device__ __forceinline__ uint64_t kth_of_threads(uint64_t mine, int64_t k, uint64_t* all, uint64_t* bound) {
  const int thread = threadIdx.x, threads = blockDim.x;
  all[thread] = mine;
  if (thread == 0) *bound = 0;
  __syncthreads();
  int larger = 0;
  for (int other = 0; other < threads; ++other)
    larger += all[other] > mine || (all[other] == mine && other < thread) ? 1 : 0;
  if (larger == k - 1) *bound = mine;
  __syncthreads();
  return *bound;
}

/// The thread's part in the search for the k best entries.
template <int kVec>
struct Search {
  const RowShape<kVec>& shape;
  const float* row;
  uint64_t best;  // key of the thread's best entry, 0 where it has none

  __device__ __forceinline__ int count(uint64_t from, uint64_t below) const {
    int count = 0;
    if (best >= from)
      each_logit(shape, row, [&](int column, float logit) {
        const uint64_t key = key_of(logit, column);
        count += key >= from && key < below ? 1 : 0;
      });
    return count;
  }
  __device__ __forceinline__ void list(uint64_t from, uint64_t below, int at, uint64_t* candidates) const {
    if (best < from) return;
    each_logit(shape, row, [&](int column, float logit) {
      const uint64_t key = key_of(logit, column);
      if (key >= from && key < below) candidates[at++] = key;
    });
  }
  /// Lists some entries below `below`, at least the `wanted` best of them. `from`: bounds that many from below. Returns
  /// how many.
  __device__ __forceinline__ int find(uint64_t from, uint64_t below, int wanted, uint64_t* candidates,
                                      ReduceScratch<int>& scratch) const {
    Place place = place_of(count(from, below), scratch);
    for (uint64_t above = below; place.total > kTopKCandidates;) {
      const uint64_t middle = from + (above - from) / 2;
      const Place there = place_of(count(middle, below), scratch);
      if (there.total < wanted) {
        above = middle;
      } else {
        from = middle;
        place = there;
      }
    }
    list(from, below, place.before, candidates);
    __syncthreads();
    return place.total;
  }
};

template <int kVec>
__global__ void __launch_bounds__(kTopKThreads) top_k_kernel(TopKParams params) {
  COPPICE_SHARED(Best, shared_bests, ReduceScratch<Best>::kCount);
  COPPICE_SHARED(int, shared_ints, ReduceScratch<int>::kCount);
  COPPICE_SHARED(double, shared_doubles, ReduceScratch<double>::kCount);
  COPPICE_SHARED(uint64_t, of_threads, kTopKThreads);
  COPPICE_SHARED(uint64_t, candidates, kTopKCandidates);
  COPPICE_SHARED(uint64_t, bound, 1);
  ReduceScratch<Best> bests(shared_bests);
  ReduceScratch<int> ints(shared_ints);
  ReduceScratch<double> doubles(shared_doubles);

  const RowShape<kVec> shape(params.num_vocab);
  const int64_t n = blockIdx.x;
  float* const row = params.logits + n * params.num_vocab;
  const double softened = 1.0 / params.temperature;  // once: a division of doubles is a call that costs registers
  const float inverse_temperature = static_cast<float>(softened);
  const Summary mine = summarise(shape, row, inverse_temperature);
  const Best best = block_reduce(mine.best, JoinBest(), no_best(shape.count), bests);
  if (threadIdx.x == 0 && params.fact != nullptr) store_pack<1>(params.fact + n, Pack<TopFact, 1>{{judge(best)}});

  const bool has_columns = static_cast<int>(threadIdx.x) < shape.num_groups;
  const Search<kVec> search{shape, row, has_columns ? key_of(mine.best.value, mine.best.id) : 0};
  uint64_t from = kth_of_threads(search.best, params.k, of_threads, bound), below = ~uint64_t{0};
  double kept = 0.0;
  for (int64_t found = 0; found < params.k;) {
    const int64_t left = params.k - found;
    const int wanted = static_cast<int>(left < kTopKCandidates ? left : kTopKCandidates);
    const int count = search.find(from, below, wanted, candidates, ints);
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
      const uint64_t key = candidates[i];
      int rank = 0;
      for (int other = 0; other < count; ++other) rank += candidates[other] > key ? 1 : 0;
      if (rank >= wanted) continue;
      const float logit = logit_of(key);
      kept += exp(static_cast<double>(logit - best.value) * softened);
      store_pack<1>(params.id + n * params.k + found + rank, Pack<int64_t, 1>{{id_of(key)}});
      store_pack<1>(params.logp + n * params.k + found + rank, Pack<float, 1>{{logit}});
      if (rank == wanted - 1) *bound = key;
    }
    __syncthreads();
    below = *bound;
    from = 0;
    found += wanted;
    __syncthreads();
  }

  double tail = 0.0;
  if (search.best >= below) {
    each_logit(shape, row, [&](int column, float logit) {
      if (key_of(logit, column) >= below)
        store_pack<1>(row + column, Pack<float, 1>{{-FLT_MAX}});
      else
        tail += exp_flushed((logit - best.value) * inverse_temperature);
    });
  } else if (mine.sum != 0.0f) {
    const double under = static_cast<double>(mine.best.value - best.value) * softened;
    tail = under < -87.0 ? 0.0 : mine.sum * exp(under);
  }
  kept = block_reduce(kept, Sum(), 0.0, doubles);
  tail = block_reduce(tail, Sum(), 0.0, doubles);
  const double log_sum = best.has_nan != 0 ? static_cast<double>(NAN) : log(kept + tail);
  for (int64_t i = threadIdx.x; i < params.k; i += blockDim.x) {
    float* const logp = params.logp + n * params.k + i;
    const double under = static_cast<double>(load_pack<1>(logp)[0] - best.value) * softened;
    store_pack<1>(logp, Pack<float, 1>{{static_cast<float>(under - log_sum)}});
  }
  if (threadIdx.x == 0) store_pack<1>(params.tail + n, Pack<float, 1>{{static_cast<float>(log(tail) - log_sum)}});
}

}  // namespace

int top_1(const Top1Params& params, CUstream_st* stream) {
  if (params.num_rows == 0) return 0;
  const auto kernel = in_groups(params.logits, params.num_vocab) ? top_1_kernel<kGroup> : top_1_kernel<1>;
  return launch(kernel, params.num_rows, threads_for_groups(params.num_vocab, kTopKThreads), 0, stream, params);
}

int top_k(const TopKParams& params, CUstream_st* stream) {
  if (params.num_rows == 0) return 0;
  const auto kernel = in_groups(params.logits, params.num_vocab) ? top_k_kernel<kGroup> : top_k_kernel<1>;
  return launch(kernel, params.num_rows, threads_for_groups(params.num_vocab, kTopKThreads), 0, stream, params);
}

}  // namespace coppice::COPPICE_EXECUTION
