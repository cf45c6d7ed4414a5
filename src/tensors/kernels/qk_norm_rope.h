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
  T* out = nullptr;  // (N, (H + 2G) K) contiguous, overwritten
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
  const T* out_grad = nullptr;     // (N, (H + 2G) K), rows out_grad_row_stride apart
  T* qkv_grad = nullptr;           // (N, (H + 2G) K) contiguous, overwritten
  float* q_weight_grad = nullptr;  // (K), overwritten or added to; null: not wanted
  float* k_weight_grad = nullptr;
  bool accumulate_weight_grad = false;
  int64_t num_tokens = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_size = 0;
  int64_t qkv_row_stride = 0;
  int64_t out_grad_row_stride = 0;
  float eps = 0.0f;
};

void qk_norm_rope_reference(const QkNormRopeParams<float>& params);  // plain loops in double
void qk_norm_rope_backward_reference(const QkNormRopeBackwardParams<float>& params);
void qk_norm_rope_cpu(const QkNormRopeParams<float>& params);  // vectorised, all threads
void qk_norm_rope_backward_cpu(const QkNormRopeBackwardParams<float>& params);

}  // namespace coppice
