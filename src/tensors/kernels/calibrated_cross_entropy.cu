// The loss of rows of logits at many temperatures, one block a row. The first walk finds the largest logit, the second
// raises each id's exponential to its powers: the three sums of all points stay in a thread's registers, lanes are
// joined in float, warps in double. A row is not held between the walks, so that two blocks fit on a multiprocessor:
// one may wait for memory while the other computes. Bytes of a live row: 8 V + 64 read, 4 V of them again; 392 written.
// An id costs an exponential and, a point, four to five operations, which bound the kernel.
#include "src/tensors/kernels/calibrated_cross_entropy.h"

#include "src/tensors/kernels/logit_rows.h"

namespace coppice::COPPICE_EXECUTION {
namespace {

constexpr int kThreads = 256, kPoints = static_cast<int>(kTemperaturePoints);
constexpr float kStep = static_cast<float>(kInverseTemperatureStep);

/// Of a point: S0, S1, S2 over some ids.
struct PowerSums {
  float zeroth, first, second;
  __device__ __forceinline__ PowerSums operator+(const PowerSums& other) const {
    return {zeroth + other.zeroth, first + other.first, second + other.second};
  }
};

__device__ __forceinline__ void add_powers(PowerSums* of_points, const Group& logits, float largest) {
  Group d, square, e, power;
  COPPICE_UNROLL
  for (int i = 0; i < kGroup; ++i) {
    d[i] = logits[i] - largest;
    e[i] = exp_flushed(d[i] * kStep);
    if (e[i] == 0.0f) d[i] = 0.0f;  // it may be infinite
    square[i] = d[i] * d[i];
    power[i] = 1.0f;
  }
  COPPICE_UNROLL
  for (int point = 0; point < kPoints; ++point) {
    PowerSums of_group{0.0f, 0.0f, 0.0f};
    COPPICE_UNROLL
    for (int i = 0; i < kGroup; ++i) {
      power[i] *= e[i];
      of_group.zeroth += power[i];
      of_group.first = fmaf(power[i], d[i], of_group.first);
      of_group.second = fmaf(power[i], square[i], of_group.second);
    }
    of_points[point] = of_points[point] + of_group;
  }
}

template <int kVec>
__global__ void __launch_bounds__(kThreads, 2) calibrated_rows_kernel(CalibratedRowsParams params) {
  COPPICE_SHARED(float, shared_largest, ReduceScratch<float>::kCount);
  COPPICE_SHARED(PowerSums, of_warps, kThreads / kWarpThreads * kPoints);
  const int64_t n = blockIdx.x, true_label = params.true_label[n];
  if (true_label == kIgnoredLabel) return;
  const RowShape<kVec> shape(params.num_vocab);
  const float* const row = params.logits + n * params.num_vocab;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarpThreads, warp = thread / kWarpThreads,
            warps = static_cast<int>(blockDim.x) / kWarpThreads;

  float largest = -INFINITY;
  for (int group = thread; group < shape.num_groups; group += static_cast<int>(blockDim.x)) {
    const Group logits = shape.load(row, group, -INFINITY);
    COPPICE_UNROLL
    for (int i = 0; i < kGroup; ++i) largest = fmaxf(largest, logits[i]);
  }
  ReduceScratch<float> scratch(shared_largest);
  largest = block_reduce(largest, Largest(), -INFINITY, scratch);

  PowerSums of_points[kPoints];
  COPPICE_UNROLL
  for (int point = 0; point < kPoints; ++point) of_points[point] = {0.0f, 0.0f, 0.0f};
  for (int group = thread; group < shape.num_groups; group += static_cast<int>(blockDim.x))
    add_powers(of_points, shape.load(row, group, -INFINITY), largest);
  COPPICE_UNROLL
  for (int point = 0; point < kPoints; ++point) {
    const PowerSums of_warp = warp_reduce(of_points[point], Sum());
    if (lane == 0) of_warps[warp * kPoints + point] = of_warp;
  }
  __syncthreads();
  if (thread >= kPoints) return;

  double zeroth = 0.0, first = 0.0, second = 0.0;
  for (int other = 0; other < warps; ++other) {
    const PowerSums& of_warp = of_warps[other * kPoints + thread];
    zeroth += of_warp.zeroth;
    first += of_warp.first;
    second += of_warp.second;
  }
  const double d_true = static_cast<double>(load_pack<1>(row + true_label)[0]) - largest, share = 1.0 / zeroth,
               mean = first * share, b = kInverseTemperatureStep * (thread + 1);
  // a row is its points' three numbers and the confidence
  static_assert(sizeof(CalibratedRow) == (3 * kPoints + 1) * sizeof(double));
  double* const to = reinterpret_cast<double*>(params.rows + n);
  store_pack<1>(to + 3 * thread, Pack<double, 1>{{log(zeroth) - b * d_true}});
  store_pack<1>(to + 3 * thread + 1, Pack<double, 1>{{mean - d_true}});
  store_pack<1>(to + 3 * thread + 2, Pack<double, 1>{{second * share - mean * mean}});
  if (thread == static_cast<int>(kUnitPoint)) store_pack<1>(to + 3 * kPoints, Pack<double, 1>{{share}});
}

}  // namespace

int calibrated_rows(const CalibratedRowsParams& params, CUstream_st* stream) {
  if (params.num_rows == 0) return 0;
  const auto kernel =
      in_groups(params.logits, params.num_vocab) ? calibrated_rows_kernel<kGroup> : calibrated_rows_kernel<1>;
  return launch(kernel, params.num_rows, threads_for_groups(params.num_vocab, kThreads), 0, stream, params);
}

}  // namespace coppice::COPPICE_EXECUTION
