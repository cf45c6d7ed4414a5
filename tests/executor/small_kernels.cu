// Kernels of a few lines: one slip each, and what the words of the dialect mean.
#include "src/tensors/kernels/cuda_dialect.h"
#include "tests/executor/subjects.h"

namespace coppice::COPPICE_EXECUTION {
namespace {

/// 4 blocks of 64 threads: out[i] = in[i] + in[neighbour], through shared memory, the warp and the block.
template <Slip slip>
__global__ void __launch_bounds__(64) small(const float* in, float* out) {
  const int thread = threadIdx.x, lane = thread % 32, at = static_cast<int>(blockIdx.x) * 64 + thread;
  COPPICE_SHARED(float, shared, 64);
  float* const dynamic = static_cast<float*>(dynamic_shared());  // 63 elements
  shared[thread] = in[at];                                       // race: warp writes
  if constexpr (slip != Slip::no_syncwarp) __syncwarp();
  float value = in[at] + shared[thread ^ 1];                                                         // race: warp reads
  if (slip == Slip::blocks_write_one_place && thread == 0) out[0] = static_cast<float>(blockIdx.x);  // race: one place
  if (slip == Slip::misaligned_pack && thread == 1) value += load_pack<4>(in + 1)[0];  // fault: misaligned_pack
  if (slip == Slip::misaligned_pointer && thread == 1)
    value += (*reinterpret_cast<const Pack<float, 4>*>(in + 1))[0];  // misaligned, and no load_pack to see it
  if (slip == Slip::write_past_static_shared && thread == 0) shared[64] = value;    // past the static array
  if (slip == Slip::write_past_dynamic_shared && thread == 0) dynamic[63] = value;  // past the dynamic array
  if (slip == Slip::read_past_dynamic_shared && thread == 0) value += dynamic[63];
  if (slip == Slip::unwritten_shared && thread == 0) value += dynamic[7];
  if (slip == Slip::barrier_in_one_warp && thread < 32) __syncthreads();  // fault: barrier_in_one_warp
  if (slip == Slip::two_barriers) {
    if (thread < 32)
      __syncthreads();
    else
      __syncthreads();  // fault: two_barriers
  }
  if (slip == Slip::lane_gone_before_shuffle) {
    if (lane == 5) return;
    value += __shfl_down_sync(~0u, value, 1);  // fault: lane_gone_before_shuffle
  }
  if (slip == Slip::thread_gone_before_barrier) {
    if (thread == 40) return;
    __syncthreads();  // fault: thread_gone_before_barrier
  }
  if (slip == Slip::mask_without_caller) __syncwarp(0x7fffffff);  // fault: mask_without_caller
  if (slip == Slip::read_outside_mask && lane < 16)
    value += __shfl_xor_sync(0xffff, value, 16);  // fault: read_outside_mask
  if (slip == Slip::two_operations_with_one_mask) {
    if (lane < 16)
      value += __shfl_sync(~0u, value, 0);
    else
      value += static_cast<float>(__ballot_sync(~0u, 1));  // fault: two_operations_with_one_mask
  }
  if (slip == Slip::width_of_twelve) value += __shfl_down_sync(~0u, value, 1, 12);  // fault: width_of_twelve
  if (slip == Slip::waits_for_each_other) {
    if (lane == 0)
      __syncwarp(0x3);  // fault: waits_for_each_other
    else if (lane == 1)
      __syncwarp(0x7);
    else if (lane == 2)
      __syncwarp(0x5);
  }
  if (slip != Slip::blocks_write_one_place || at != 0) out[at] = value;
}

/// 40 threads: the second warp has 8 lanes.
__global__ void __launch_bounds__(64) short_warp(const float* in, float* out) {
  out[threadIdx.x] = __shfl_xor_sync(~0u, in[threadIdx.x], 1);  // fault: mask_of_lanes_that_do_not_exist
}

__device__ __attribute__((noinline)) float deep(const float* in, int depth) {
  volatile float kept[64];
  kept[depth % 64] = in[0];
  return depth == 0 ? kept[0] : kept[depth % 64] + deep(in, depth - 1);
}
__global__ void __launch_bounds__(64) overflowing(const float* in, float* out) { out[threadIdx.x] = deep(in, 10000); }

__global__ void __launch_bounds__(64) warp_operations_kernel(const int* in, int* out) {
  const int thread = threadIdx.x, lane = thread % 32;
  const unsigned all = thread < 32 ? ~0u : 0xff;
  const int value = in[thread];
  int* const to = out + thread * 12;
  to[0] = __shfl_sync(all, value, 3);
  to[1] = __shfl_xor_sync(all, value, 5);
  to[2] = __shfl_up_sync(all, value, 2);
  to[3] = __shfl_down_sync(all, value, 2, 8);
  to[4] = static_cast<int>(__ballot_sync(all, value > 0));
  to[5] = __reduce_add_sync(all, value);
  to[6] = __reduce_min_sync(all, value);
  to[7] = static_cast<int>(__reduce_max_sync(all, static_cast<unsigned>(value)));
  const unsigned odd = 0xaaaaaaaa & all, mine = lane % 2 == 1 ? odd : all & ~odd;
  to[8] = __reduce_max_sync(mine, value);  // two masks in one warp, each on its own
  to[9] = __any_sync(all, value == 7) + 2 * __all_sync(all, value != 1000);
  to[10] = static_cast<int>(__reduce_or_sync(all, 1u << lane) ^ __reduce_and_sync(all, ~0u) ^
                            __reduce_xor_sync(all, 1u << lane));
  to[11] = __popc(all) + __ffs(value | 64) + __clz(1 + lane);
}

__global__ void indices_kernel(int* out) {
  const int block = static_cast<int>((blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x);
  const int thread = static_cast<int>((threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x);
  out[block * 1024 + thread] = block * 24 + thread;
}

__global__ void approximate_functions_kernel(const float* in, float* out, int count) {
  const int i = threadIdx.x;
  out[i] = fast_exp2(in[i]);
  out[count + i] = fast_exp(in[i]);
  out[2 * count + i] = fast_reciprocal(in[i]);
  out[3 * count + i] = rsqrtf(in[i]);
  out[4 * count + i] = fast_log2(in[i]);
}

__global__ void nothing() {}

/// 20 KiB in an array, beside what the launch says.
__global__ void __launch_bounds__(32) wide_array() {
  COPPICE_SHARED(float, wide, 5120);
  wide[threadIdx.x] = 1;
}

template <Slip slip>
int launch_small(const float* in, float* out, Slip asked, CUstream_st* stream) {
  return asked == slip ? launch(small<slip>, 4, 64, 63 * sizeof(float), stream, in, out) : 0;
}

template <Slip... slips>
int launch_one_of(const float* in, float* out, Slip asked, CUstream_st* stream) {
  return (launch_small<slips>(in, out, asked, stream) + ...);
}

}  // namespace

int small_kernel(const float* in, float* out, Slip slip, CUstream_st* stream) {
  if (slip == Slip::mask_of_lanes_that_do_not_exist) return launch(short_warp, 1, 40, 0, stream, in, out);
  if (slip == Slip::stack_overflow) return launch(overflowing, 1, 64, 0, stream, in, out);
  return launch_one_of<Slip::none, Slip::no_syncwarp, Slip::blocks_write_one_place, Slip::misaligned_pack,
                       Slip::misaligned_pointer, Slip::write_past_static_shared, Slip::write_past_dynamic_shared,
                       Slip::read_past_dynamic_shared, Slip::unwritten_shared, Slip::barrier_in_one_warp,
                       Slip::two_barriers, Slip::lane_gone_before_shuffle, Slip::thread_gone_before_barrier,
                       Slip::mask_without_caller, Slip::read_outside_mask, Slip::two_operations_with_one_mask,
                       Slip::width_of_twelve, Slip::waits_for_each_other>(in, out, slip, stream);
}

int warp_operations(const int* in, int* out, CUstream_st* stream) {
  return launch(warp_operations_kernel, 1, 40, 0, stream, in, out);
}

int indices(int* out, CUstream_st* stream) { return launch(indices_kernel, {3, 2, 2}, {4, 3, 2}, 0, stream, out); }

int approximate_functions(const float* in, float* out, int count, CUstream_st* stream) {
  return launch(approximate_functions_kernel, 1, count, 0, stream, in, out, count);
}

int wide_array_beside(int64_t shared_bytes, CUstream_st* stream) {
  return launch(wide_array, 1, 32, shared_bytes, stream);
}

int launch_of(int64_t grid_x, int64_t grid_y, int64_t block_x, int64_t block_z, int64_t shared_bytes,
              CUstream_st* stream) {
  return launch(nothing, {grid_x, grid_y, 1}, {block_x, 1, block_z}, shared_bytes, stream);
}

}  // namespace coppice::COPPICE_EXECUTION
