// SwiGLU with a mask over the FFN channels, one pass each way:
//   h[n, f] = silu(gate[n, f]) * (ffn_mask[f] * up[n, f]),  silu(x) = x * s(x),  s(x) = 1 / (1 + e^-x)
//   d gate = dh * mask * up * s * (1 + gate * (1 - s));  d up = dh * mask * silu(gate);  d mask[f] = sum over n of dh *
//   silu(gate) * up
// gate and up lie side by side in one row of the fused projection (gate first); nothing of the forward is kept but that
// row. N = tokens, F = channels, T = element type of activations; masks are float32.
// Torch-free.
#pragma once

#include <cstdint>

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
  const T* h_grad = nullptr;       // (N, F), rows h_grad_row_stride elements apart
  T* gate_up_grad = nullptr;       // (N, 2F) contiguous, overwritten
  float* ffn_mask_grad = nullptr;  // (F), overwritten; null: not wanted
  int64_t num_tokens = 0;
  int64_t num_channels = 0;
  int64_t gate_up_row_stride = 0;
  int64_t h_grad_row_stride = 0;
};

void swiglu_reference(const SwigluParams<float>& params);                   // plain loops in double
void swiglu_backward_reference(const SwigluBackwardParams<float>& params);  // the same
void swiglu_cpu(const SwigluParams<float>& params);                         // vectorised, all threads
void swiglu_backward_cpu(const SwigluBackwardParams<float>& params);

}  // namespace coppice
