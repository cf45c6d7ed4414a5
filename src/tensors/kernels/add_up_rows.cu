// 32 columns a block: each warp adds up every 32nd row, then the first warp the sums of all, in the warps' order.
#include "src/tensors/kernels/add_up_rows.h"

#include "src/tensors/kernels/cuda_dialect.h"

namespace coppice::COPPICE_EXECUTION {
namespace {

constexpr int kWarps = 32;

__global__ void __launch_bounds__(kWarps* kWarpThreads) add_up_rows_kernel(AddUpRowsParams params) {
  COPPICE_SHARED(float, sums, kWarps* kWarpThreads);
  const int lane = threadIdx.x % kWarpThreads, warp = threadIdx.x / kWarpThreads;
  const int64_t column = blockIdx.x * int64_t{kWarpThreads} + lane;
  const bool there = column < params.num_columns;
  float sum = 0.0f;
  if (there)
    for (int row = warp; row < params.num_rows; row += kWarps)
      sum += load_pack<1>(params.rows + row * params.num_columns + column)[0];
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (warp != 0 || !there) return;
  float total = params.accumulate ? load_pack<1>(params.sum + column)[0] : 0.0f;
  for (int i = 0; i < kWarps; ++i) total += sums[i * kWarpThreads + lane];
  store_pack<1>(params.sum + column, Pack<float, 1>{{total}});
}

}  // namespace

int add_up_rows(const AddUpRowsParams& params, CUstream_st* stream) {
  return launch(add_up_rows_kernel, (params.num_columns + kWarpThreads - 1) / kWarpThreads, kWarps * kWarpThreads, 0,
                stream, params);
}

}  // namespace coppice::COPPICE_EXECUTION
