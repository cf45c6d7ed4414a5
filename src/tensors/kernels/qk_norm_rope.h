// QK-norm and RoPE on the packed projection, one pass each way. For each query and key head of a token:
//   xhat = x / sqrt(mean x^2 + eps);  z = xhat * weight  (weight undefined: z = x);  pairs (i, i + K/2):
//   y[i] = z[i] cos(a) - z[i + K/2] sin(a),  y[i + K/2] = z[i + K/2] cos(a) + z[i] sin(a),  a = position *
//   frequency[i]
// The norm stands before the rotation (Qwen3's layout); its weights are shared by all heads. Values pass through.
// A row holds H query heads, G key heads and G value heads of K numbers each. N = tokens, T = element type of
// activations; weights and the table are float32. Torch-free.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

struct CUstream_st;  // cudaStream_t points to one

namespace coppice {

/// cos and sin of every (position, pair), the angle formed in double from the integer position: [position][K/2].
struct RopeTable {
  int64_t num_positions = 0;
  std::vector<float> cos, sin;
};
/// The table of K/2 frequencies for positions 0..max_position, kept for the life of the process and shared between
/// calls; grows by doubling.
std::shared_ptr<const RopeTable> rope_table(std::span<const double> frequencies, int64_t max_position);

template <class T>
struct QkNormRopeParams {
  const T* qkv = nullptr;             // (N, (H + 2G) K), rows qkv_row_stride elements apart
  const float* q_weight = nullptr;    // (K); null together with k_weight: no norm
  const float* k_weight = nullptr;    // (K)
  const int64_t* position = nullptr;  // (N), all inside the table
  const float* cos = nullptr;         // (positions, K/2)
  const float* sin = nullptr;
  T* out = nullptr;           // (N, (H + 2G) K) contiguous, overwritten; (N, (H + G) K) unless it copies values
  bool copies_values = true;  // false: whoever needs values reads them from qkv
  int64_t num_tokens = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_size = 0;  // even
  int64_t qkv_row_stride = 0;
  float eps = 0.0f;
};

template <class T>
struct QkNormRopeBackwardParams {
  const T* qkv = nullptr;  // the forward's input; null without norm
  const float* q_weight = nullptr;
  const float* k_weight = nullptr;
  const int64_t* position = nullptr;
  const float* cos = nullptr;
  const float* sin = nullptr;
  const T* q_grad = nullptr;       // (N, H K), of the rotated queries, rows q_grad_row_stride apart
  const T* k_grad = nullptr;       // (N, G K), of the rotated keys
  const T* v_grad = nullptr;       // (N, G K)
  T* qkv_grad = nullptr;           // (N, (H + 2G) K) contiguous, overwritten
  float* q_weight_grad = nullptr;  // (K), overwritten or added to; null: not wanted
  float* k_weight_grad = nullptr;
  bool accumulate_weight_grad = false;
  float* weight_grad_partial = nullptr;  // (2, qk_norm_rope_partial_rows(), K), overwritten; not for the CPU
  int64_t num_tokens = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_size = 0;
  int64_t qkv_row_stride = 0;
  int64_t q_grad_row_stride = 0;
  int64_t k_grad_row_stride = 0;
  int64_t v_grad_row_stride = 0;
  float eps = 0.0f;
};

void qk_norm_rope_reference(const QkNormRopeParams<float>& params);  // plain loops in double
void qk_norm_rope_backward_reference(const QkNormRopeBackwardParams<float>& params);
void qk_norm_rope_cpu(const QkNormRopeParams<float>& params);  // vectorised, all threads
void qk_norm_rope_backward_cpu(const QkNormRopeBackwardParams<float>& params);

/// The largest K of the kernels; one that is no multiple of 16, or rows that start elsewhere than at a multiple of 16
/// bytes, take the instance that moves one element at a time.
inline constexpr int64_t kQkNormRopeMostHeadSize = 512;
/// Blocks of the backward for each group of heads, whatever the device: sums and their bits do not depend on it.
inline constexpr int kQkNormRopeBlocks = 528;

/// The most threads of a block, and pairs of a thread.
inline constexpr int kQkNormRopeThreads = 512, kQkNormRopePairs = 8;
/// How the H + G heads of a token that are rotated are dealt to threads: 2^log2_lanes of them to a head, `heads` heads
/// to a block.
struct QkNormRopeShares {
  int log2_lanes = 0;
  int heads = 0;
  int64_t head_groups = 0;
};
inline QkNormRopeShares qk_norm_rope_shares(int64_t num_rotated, int64_t head_size) {
  QkNormRopeShares shares;
  while ((int64_t{2 * kQkNormRopePairs} << shares.log2_lanes) < head_size) ++shares.log2_lanes;
  shares.head_groups = ((num_rotated << shares.log2_lanes) + kQkNormRopeThreads - 1) / kQkNormRopeThreads;
  shares.heads = static_cast<int>((num_rotated + shares.head_groups - 1) / shares.head_groups);
  return shares;
}
/// Rows that the backward leaves of each weight's gradient before they are added up.
inline int64_t qk_norm_rope_partial_rows(int64_t num_heads, int64_t num_kv_heads, int64_t head_size) {
  return kQkNormRopeBlocks * qk_norm_rope_shares(num_heads + num_kv_heads, head_size).head_groups;
}

// T = float or Bf16. Each enqueues and returns the launch's error, 0 for none.
namespace device {
template <class T>
int qk_norm_rope(const QkNormRopeParams<T>& params, CUstream_st* stream);
template <class T>
int qk_norm_rope_backward(const QkNormRopeBackwardParams<T>& params, CUstream_st* stream);
}  // namespace device
namespace emulated {
template <class T>
int qk_norm_rope(const QkNormRopeParams<T>& params, CUstream_st* stream);
template <class T>
int qk_norm_rope_backward(const QkNormRopeBackwardParams<T>& params, CUstream_st* stream);
}  // namespace emulated

}  // namespace coppice
