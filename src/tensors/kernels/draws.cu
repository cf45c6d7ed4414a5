// Draws from rows of logits, one block a row. A warp takes tiles of 128 ids and leaves each one's largest logit and its
// sum of exponentials below that; once the row's largest is known the sums become a distribution function over tiles,
// in double. A draw is a warp's: it finds its tile there and reads the tile's logits again. For weights tiles leave the
// sums at both temperatures.
// Bytes of a row: 4 V + 1, and 512 + 8 a draw, 4 more with its weight; uniform numbers beside them.
#include "src/tensors/kernels/draws.h"

#include "src/tensors/kernels/logit_rows.h"

namespace coppice::COPPICE_EXECUTION {
namespace {

constexpr int kThreads = 512;

/// The sum over all lanes up to this one.
__device__ __forceinline__ double sum_upto(double value) {
  const int lane = threadIdx.x % kWarpThreads;
  COPPICE_UNROLL
  for (int lanes = 1; lanes < kWarpThreads; lanes *= 2) {
    const double other = __shfl_up_sync(kWholeWarp, value, lanes);
    if (lane >= lanes) value += other;
  }
  return value;
}

/// The lane's four logits of a tile; -infinity behind the row.
template <int kVec>
__device__ __forceinline__ Group load_tile(const RowShape<kVec>& shape, const float* row, int tile) {
  const int group = tile * kWarpThreads + static_cast<int>(threadIdx.x % kWarpThreads);
  if (group < shape.num_groups) return shape.load(row, group, -INFINITY);
  return {{-INFINITY, -INFINITY, -INFINITY, -INFINITY}};
}

__device__ __forceinline__ Group exponentials(const Group& logits, float largest, float inverse_temperature) {
  Group e;
  COPPICE_UNROLL
  for (int i = 0; i < kGroup; ++i)
    e[i] = largest == -INFINITY ? 0.0f : exp_flushed((logits[i] - largest) * inverse_temperature);
  return e;
}

/// sum[t] becomes sum[0] + .. + sum[t], by one warp.
__device__ __forceinline__ void accumulate(double* sum, int count) {
  const int lane = threadIdx.x % kWarpThreads, a_lane = (count + kWarpThreads - 1) / kWarpThreads,
            first = lane * a_lane, last = first + a_lane < count ? first + a_lane : count;
  double own = 0.0;
  for (int t = first; t < last; ++t) own += sum[t];
  double upto = sum_upto(own) - own;
  for (int t = first; t < last; ++t) sum[t] = upto += sum[t];
}

/// The first tile t < count - 1 with upto[t] > wanted, else count - 1. Each lane's sums are rounded in their own way,
/// so that they may grow by a rounding over a tile that has nothing (largest -infinity): then the last before it that
/// has.
__device__ __forceinline__ int find_tile(const double* upto, const float* largest, int count, double wanted) {
  int low = 0, high = count - 1;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (upto[middle] > wanted)
      high = middle;
    else
      low = middle + 1;
  }
  while (low > 0 && largest[low] == -INFINITY) --low;
  return low;
}

/// In every lane: the draw's id and its exponential.
struct Drawn {
  int id;
  float e;
};

/// The first id of a tile that there is anything of and at which the sum of exponentials exceeds `wanted`; where
/// rounding leaves none, the last that there is anything of.
__device__ __forceinline__ Drawn draw_from_tile(const Group& e, int tile, double wanted) {
  double own = 0.0;
  COPPICE_UNROLL
  for (int i = 0; i < kGroup; ++i) own += e[i];
  double upto = sum_upto(own) - own;
  int first = kGroup, last = -1;  // in the lane
  COPPICE_UNROLL
  for (int i = 0; i < kGroup; ++i) {
    upto += e[i];
    if (!(e[i] > 0.0f)) continue;  // rounding alone may have carried the sum over `wanted`
    if (upto > wanted && first == kGroup) first = i;
    last = i;
  }
  const unsigned above = __ballot_sync(kWholeWarp, first < kGroup), some = __ballot_sync(kWholeWarp, last >= 0);
  const int lane = above != 0 ? __ffs(static_cast<int>(above)) - 1
                              : (some != 0 ? kWarpThreads - 1 - __clz(static_cast<int>(some)) : 0);
  const int in_lane = __shfl_sync(kWholeWarp, above != 0 ? first : (some != 0 ? last : 0), lane);
  float of_id = 0.0f;  // of the lane that has it
  COPPICE_UNROLL
  for (int i = 0; i < kGroup; ++i)
    if (i == in_lane) of_id = e[i];
  return {(tile * kWarpThreads + lane) * kGroup + in_lane, __shfl_sync(kWholeWarp, of_id, lane)};
}

template <int kVec, bool kWeighted>
__global__ void __launch_bounds__(kThreads) draw_ids_kernel(DrawParams params) {
  COPPICE_SHARED(Best, shared, ReduceScratch<Best>::kCount);
  ReduceScratch<Best> scratch(shared);
  const RowShape<kVec> shape(params.num_vocab);
  const int num_tiles = (shape.num_groups + kWarpThreads - 1) / kWarpThreads;
  double* const sum = static_cast<double*>(dynamic_shared());  // (tiles)
  double* const sum_q = sum + num_tiles;                       // (tiles), of weights alone
  float* const tile_largest = reinterpret_cast<float*>(sum + (kWeighted ? 2 : 1) * num_tiles);  // (tiles)

  const int64_t n = blockIdx.x;
  const float* const row = params.logits + n * params.num_vocab;
  const double tau = params.temperature, tau_of_draws = kWeighted ? tau * params.proposal_temperature : tau,
               softened = 1.0 / tau_of_draws, softened_q = 1.0 / tau;
  const float inverse = static_cast<float>(softened), inverse_q = static_cast<float>(softened_q);
  const int lane = threadIdx.x % kWarpThreads, warp = threadIdx.x / kWarpThreads, warps = blockDim.x / kWarpThreads;
  Best best = no_best(static_cast<int>(threadIdx.x) * kGroup);
  for (int tile = warp; tile < num_tiles; tile += warps) {
    const Group logits = load_tile(shape, row, tile);
    float largest = -INFINITY;
    COPPICE_UNROLL
    for (int i = 0; i < kGroup; ++i) {
      best.add(logits[i], (tile * kWarpThreads + lane) * kGroup + i);
      largest = fmaxf(largest, logits[i]);
    }
    largest = warp_reduce(largest, Largest());
    const auto sum_at = [&](float inverse_temperature) {
      return warp_reduce(static_cast<double>(sum_of(exponentials(logits, largest, inverse_temperature))), Sum());
    };
    const double of_tile = sum_at(inverse), q_of_tile = kWeighted ? sum_at(inverse_q) : 0.0;
    if (lane == 0) {
      sum[tile] = of_tile;
      if (kWeighted) sum_q[tile] = q_of_tile;
      tile_largest[tile] = largest;
    }
  }
  best = block_reduce(best, JoinBest(), no_best(shape.count), scratch);
  if (threadIdx.x == 0 && params.fact != nullptr) store_pack<1>(params.fact + n, Pack<TopFact, 1>{{judge(best)}});
  for (int tile = threadIdx.x; tile < num_tiles; tile += blockDim.x) {
    const float under = tile_largest[tile] - best.value;
    const bool has_nothing = under * inverse < -87.0f;
    if (has_nothing) tile_largest[tile] = -INFINITY;
    sum[tile] *= has_nothing ? 0.0 : exp(under * softened);
    if (kWeighted) sum_q[tile] *= under * inverse_q < -87.0f ? 0.0 : exp(under * softened_q);
  }
  __syncthreads();
  if (warp == 0) accumulate(sum, num_tiles);
  if (kWeighted && warp == warps - 1) accumulate(sum_q, num_tiles);
  __syncthreads();

  for (int64_t draw = warp; draw < params.num_draws; draw += warps) {
    const double wanted = params.uniform[n * params.num_draws + draw] * sum[num_tiles - 1];  // below it
    const int tile = find_tile(sum, tile_largest, num_tiles, wanted);
    const Group e = exponentials(load_tile(shape, row, tile), best.value, inverse);
    const Drawn drawn = draw_from_tile(e, tile, tile == 0 ? wanted : wanted - sum[tile - 1]);
    if (lane != 0) continue;
    store_pack<1>(params.id + n * params.num_draws + draw, Pack<int64_t, 1>{{drawn.id}});
    if (!kWeighted) continue;
    const double log_weight = (params.proposal_temperature - 1.0) * log(static_cast<double>(drawn.e)) +
                              log(sum[num_tiles - 1] / sum_q[num_tiles - 1]);
    store_pack<1>(params.log_weight + n * params.num_draws + draw, Pack<float, 1>{{static_cast<float>(log_weight)}});
  }
}

}  // namespace

int draw_ids(const DrawParams& params, CUstream_st* stream) {
  if (params.num_rows == 0) return 0;
  constexpr int64_t kTile = kWarpThreads * kGroup;
  const bool weighted = params.log_weight != nullptr, grouped = in_groups(params.logits, params.num_vocab);
  const int64_t num_tiles = (params.num_vocab + kTile - 1) / kTile,
                shared_bytes = num_tiles * static_cast<int64_t>((weighted ? 2 : 1) * sizeof(double) + sizeof(float));
  const auto kernel = weighted ? (grouped ? draw_ids_kernel<kGroup, true> : draw_ids_kernel<1, true>)
                               : (grouped ? draw_ids_kernel<kGroup, false> : draw_ids_kernel<1, false>);
  return launch(kernel, params.num_rows, threads_for_groups(params.num_vocab, kThreads), shared_bytes, stream, params);
}

}  // namespace coppice::COPPICE_EXECUTION
