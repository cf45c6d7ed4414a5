// SwiGLU with a mask over the FFN channels, one pass each way:
//   h[n, f] = silu(gate[n, f]) * (ffn_mask[f] * up[n, f]),  silu(x) = x * s(x),  s(x) = 1 / (1 + e^-x)
//   d gate = dh * mask * up * s * (1 + gate * (1 - s));  d up = dh * mask * silu(gate);  d mask[f] = sum over n of dh *
//   silu(gate) * up
// gate and up lie side by side in one row of the fused projection (gate first); nothing of the forward is kept but that
// row, and backward can make h once more. N = tokens, F = channels, T = element type of activations; masks are float32.
// Torch-free.
#pragma once

#include <cstdint>

struct CUstream_st;  // cudaStream_t points to one

namespace coppice {

template <class T>
struct SwigluParams {
  const T* gate_up = nullptr;       // (N, 2F), rows gate_up_row_stride elements apart
  const float* ffn_mask = nullptr;  // (F), or null: no mask
  T* h = nullptr;                   // (N, F) contiguous, overwritten
  int64_t num_tokens = 0;
  int64_t num_channels = 0;
  int64_t gate_up_row_stride = 0;
};

template <class T>
struct SwigluBackwardParams {
  const T* gate_up = nullptr;
  const float* ffn_mask = nullptr;
  const T* h_grad = nullptr;               // (N, F), rows h_grad_row_stride elements apart
  T* gate_up_grad = nullptr;               // (N, 2F) contiguous, overwritten
  float* ffn_mask_grad = nullptr;          // (F), overwritten; null: not wanted
  T* h = nullptr;                          // (N, F) contiguous, overwritten with the forward's; null: not wanted
  float* ffn_mask_grad_partial = nullptr;  // (swiglu_row_groups(N), F), overwritten; not for the CPU
  int64_t num_tokens = 0;
  int64_t num_channels = 0;
  int64_t gate_up_row_stride = 0;
  int64_t h_grad_row_stride = 0;
};

void swiglu_reference(const SwigluParams<float>& params);                   // plain loops in double
void swiglu_backward_reference(const SwigluBackwardParams<float>& params);  // the same
void swiglu_cpu(const SwigluParams<float>& params);                         // vectorised, all threads
void swiglu_backward_cpu(const SwigluBackwardParams<float>& params);

/// Rows of one block, whatever the device: the mask's gradient is the sum of their sums, group after group.
inline constexpr int kSwigluRows = 64;
inline int64_t swiglu_row_groups(int64_t num_tokens) { return (num_tokens + kSwigluRows - 1) / kSwigluRows; }

// T = float or Bf16. Each enqueues and returns the launch's error, 0 for none. An F that is no multiple of 8, or rows
// that start elsewhere than at a multiple of 16 bytes, take the instance that moves one element at a time.
namespace device {
template <class T>
int swiglu(const SwigluParams<T>& params, CUstream_st* stream);
template <class T>
int swiglu_backward(const SwigluBackwardParams<T>& params, CUstream_st* stream);
}  // namespace device
namespace emulated {
template <class T>
int swiglu(const SwigluParams<T>& params, CUstream_st* stream);
template <class T>
int swiglu_backward(const SwigluBackwardParams<T>& params, CUstream_st* stream);
}  // namespace emulated

}  // namespace coppice
