// Kernels for the executor's own tests: two real ones (backward of RMSNorm over a fixed grid, rows of mixed
// cross-entropy) and a few of some lines. Each can be built with one slip, the way a writer of kernels makes it.
// N = rows, D = hidden size, V = vocabulary. Torch-free.
#pragma once

#include <cstdint>

#include "src/tensors/kernels/bf16.h"

struct CUstream_st;

namespace coppice::emulated {

enum class Slip {
  none,
  // backward of RMSNorm
  no_barrier_in_reduction,
  one_scratch_for_two_reductions,
  // mixed cross-entropy
  no_barrier_after_staging,
  no_barrier_before_join,
  load_past_row,
  store_past_row,
  label_off_by_one,
  offset_in_32_bits,
  // a few lines each
  no_syncwarp,
  blocks_write_one_place,
  misaligned_pack,
  misaligned_pointer,
  write_past_static_shared,
  write_past_dynamic_shared,
  read_past_dynamic_shared,
  unwritten_shared,
  barrier_in_one_warp,
  two_barriers,
  lane_gone_before_shuffle,
  thread_gone_before_barrier,
  mask_without_caller,
  mask_of_lanes_that_do_not_exist,
  read_outside_mask,
  two_operations_with_one_mask,
  width_of_twelve,
  waits_for_each_other,
  stack_overflow,
};

/// x_grad = rstd * (g - xhat * mean(g * xhat)), g = normed_grad * weight, xhat = residual * rstd; weight_grad = sum
/// over rows of normed_grad * xhat. D: a multiple of 256, at most 8192.
template <class T>
struct NormBackwardParams {
  const T* residual = nullptr;     // (N, D)
  const float* weight = nullptr;   // (D)
  const T* normed_grad = nullptr;  // (N, D)
  T* x_grad = nullptr;             // (N, D), overwritten
  float* partial = nullptr;        // (kNormBlocks, D), overwritten
  float* weight_grad = nullptr;    // (D), overwritten
  float* rstd = nullptr;           // (N), overwritten
  int64_t num_tokens = 0;
  int64_t hidden_size = 0;
  float eps = 0.0f;
};
inline constexpr int kNormBlocks = 3;
template <class T>
int norm_backward(const NormBackwardParams<T>& params, Slip slip, CUstream_st* stream);

/// loss[n] = logsumexp(row) - (weight * row[teacher] + (1 - weight) * row[label]); grad = softmax(row) - target.
/// V: a multiple of the pack, 16 bytes. One block a row, the row in shared memory.
template <class T>
struct LabelRowsParams {
  const T* logits = nullptr;  // (N, V)
  const int64_t* label = nullptr;
  const int64_t* teacher = nullptr;
  T* grad = nullptr;      // (N, V), overwritten
  float* loss = nullptr;  // (N), overwritten
  int64_t num_rows = 0;
  int64_t vocab_size = 0;
  float teacher_weight = 0.0f;
};
template <class T>
int label_rows(const LabelRowsParams<T>& params, Slip slip, CUstream_st* stream);

/// out: 4 blocks of 64 numbers. Without a slip out[i] = 3 (i % 64) + 1.
inline constexpr int kSmallCount = 4 * 64;
int small_kernel(const float* in, float* out, Slip slip, CUstream_st* stream);

/// Adds up what the warp operations give to lane l of warp w, 40 threads in two warps: see the test.
int warp_operations(const int* in, int* out, CUstream_st* stream);
/// out[block * 1024 + thread] = its number in the grid, 3 x 2 x 2 blocks of 4 x 3 x 2 threads.
int indices(int* out, CUstream_st* stream);
/// fast_exp2, fast_exp, fast_reciprocal, rsqrtf, fast_log2 of in[i], one after the other.
int approximate_functions(const float* in, float* out, int count, CUstream_st* stream);
/// A launch of any extent, of a kernel that does nothing.
int launch_of(int64_t grid_x, int64_t grid_y, int64_t block_x, int64_t block_z, int64_t shared_bytes,
              CUstream_st* stream);
int wide_array_beside(int64_t shared_bytes, CUstream_st* stream);

}  // namespace coppice::emulated
