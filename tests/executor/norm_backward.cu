// Backward of RMSNorm: kNormBlocks blocks take rows in turn, D / 8 threads with 8 columns each; the weight's gradient
// stays in registers over a block's rows and is joined in the order of the blocks by a second launch.
#include "src/tensors/kernels/cuda_dialect.h"
#include "tests/executor/subjects.h"

namespace coppice::COPPICE_EXECUTION {
namespace {

/// block_reduce, or what it must not be.
template <Slip slip>
__device__ float reduced(float value, ReduceScratch<float>& scratch, float* one_scratch) {
  if constexpr (slip != Slip::no_barrier_in_reduction && slip != Slip::one_scratch_for_two_reductions)
    return block_reduce(value, Sum(), 0.0f, scratch);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  float* const half = slip == Slip::no_barrier_in_reduction ? scratch.next() : one_scratch;
  value = warp_reduce(value, Sum());
  if (lane == 0) half[warp] = value;  // race: reduction writes
  if constexpr (slip == Slip::one_scratch_for_two_reductions) __syncthreads();
  value = lane < static_cast<int>(blockDim.x) / 32 ? half[lane] : 0.0f;  // race: reduction reads
  return warp_reduce(value, Sum());
}

template <Slip slip, class T>
__global__ void __launch_bounds__(1024) norm_backward_kernel(NormBackwardParams<T> params) {
  constexpr int kPack = 8;
  COPPICE_SHARED(float, shared, ReduceScratch<float>::kCount);
  ReduceScratch<float> scratch(shared);
  const int column = static_cast<int>(threadIdx.x) * kPack;
  const auto weight = load_pack<kPack>(params.weight + column);
  Pack<float, kPack> weight_grad{};
  for (int64_t n = blockIdx.x; n < params.num_tokens; n += gridDim.x) {
    const int64_t at = n * params.hidden_size + column;
    const auto residual = load_pack<kPack>(params.residual + at);
    const auto grad = load_pack<kPack>(params.normed_grad + at);
    float squares = 0.0f;
    for (int i = 0; i < kPack; ++i) squares += to_float(residual[i]) * to_float(residual[i]);
    squares = reduced<slip>(squares, scratch, shared);
    const float size = static_cast<float>(params.hidden_size);
    const float rstd = rsqrtf(squares / size + params.eps);
    float along = 0.0f;
    for (int i = 0; i < kPack; ++i) along += to_float(grad[i]) * weight[i] * (to_float(residual[i]) * rstd);
    along = reduced<slip>(along, scratch, shared);
    Pack<T, kPack> x_grad;
    for (int i = 0; i < kPack; ++i) {
      const float xhat = to_float(residual[i]) * rstd;
      x_grad[i] = from_float<T>(rstd * (to_float(grad[i]) * weight[i] - xhat * along / size));
      weight_grad[i] += to_float(grad[i]) * xhat;
    }
    store_pack<kPack>(params.x_grad + at, x_grad);
    if (threadIdx.x == 0) params.rstd[n] = rstd;
  }
  store_pack<kPack>(params.partial + blockIdx.x * params.hidden_size + column, weight_grad);
}

__global__ void __launch_bounds__(256) add_up_partials(const float* partial, float* sum, int64_t columns) {
  const int64_t column = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  float total = 0.0f;
  for (int block = 0; block < kNormBlocks; ++block) total += partial[block * columns + column];
  sum[column] = total;
}

}  // namespace

template <class T>
int norm_backward(const NormBackwardParams<T>& params, Slip slip, CUstream_st* stream) {
  auto* kernel = norm_backward_kernel<Slip::none, T>;
  if (slip == Slip::no_barrier_in_reduction) kernel = norm_backward_kernel<Slip::no_barrier_in_reduction, T>;
  if (slip == Slip::one_scratch_for_two_reductions)
    kernel = norm_backward_kernel<Slip::one_scratch_for_two_reductions, T>;
  if (const int error = launch(kernel, kNormBlocks, params.hidden_size / 8, 0, stream, params); error != 0)
    return error;
  return launch(add_up_partials, params.hidden_size / 256, 256, 0, stream, params.partial, params.weight_grad,
                params.hidden_size);
}
template int norm_backward(const NormBackwardParams<float>&, Slip, CUstream_st*);
template int norm_backward(const NormBackwardParams<Bf16>&, Slip, CUstream_st*);

}  // namespace coppice::COPPICE_EXECUTION
