// Residual add and RMSNorm in one pass each way:
//   residual = x + delta;  normed[d] = residual[d] * rstd * weight[d],  rstd = 1 / sqrt(mean residual^2 + eps)
//   with g = d normed * weight, xhat = residual * rstd:
//   d x = d delta = d residual + rstd * (g - xhat * mean(g * xhat));  d weight[d] = sum over n of d normed * xhat
// N = tokens, D = hidden size. Every matrix but x and delta is contiguous. T = element type of
// activations; weights and rstd are float32. Torch-free.
#pragma once

#include <cstdint>

struct CUstream_st;  // cudaStream_t points to one

namespace coppice {

template <class T>
struct ResidualRmsNormParams {
  const T* x = nullptr;           // (N, D), rows x_row_stride elements apart
  const T* delta = nullptr;       // (N, D), rows delta_row_stride apart; null: the residual is x itself
  const float* weight = nullptr;  // (D)
  T* residual = nullptr;          // (N, D), overwritten; null exactly when delta is
  T* normed = nullptr;            // (N, D), overwritten
  float* rstd = nullptr;          // (N), overwritten, kept for backward
  int64_t num_tokens = 0;
  int64_t hidden_size = 0;
  int64_t x_row_stride = 0;
  int64_t delta_row_stride = 0;
  float eps = 0.0f;
};

template <class T>
struct ResidualRmsNormBackwardParams {
  const T* residual = nullptr;       // (N, D), rows residual_row_stride apart
  const float* weight = nullptr;     // (D)
  const float* rstd = nullptr;       // (N)
  const T* normed_grad = nullptr;    // (N, D), rows normed_grad_row_stride apart
  const T* residual_grad = nullptr;  // (N, D), rows residual_grad_row_stride apart; null: zero
  T* x_grad = nullptr;               // (N, D), overwritten
  float* weight_grad = nullptr;      // (D), overwritten or added to; null: not wanted
  bool accumulate_weight_grad = false;
  float* weight_grad_partial = nullptr;  // (kResidualRmsNormBlocks, D), overwritten; not for the CPU
  int64_t num_tokens = 0;
  int64_t hidden_size = 0;
  int64_t residual_row_stride = 0;
  int64_t normed_grad_row_stride = 0;
  int64_t residual_grad_row_stride = 0;
};

void residual_rms_norm_reference(const ResidualRmsNormParams<float>& params);  // plain loops in double
void residual_rms_norm_backward_reference(const ResidualRmsNormBackwardParams<float>& params);
void residual_rms_norm_cpu(const ResidualRmsNormParams<float>& params);  // vectorised, all threads
void residual_rms_norm_backward_cpu(const ResidualRmsNormBackwardParams<float>& params);

/// Blocks of the backward, whatever the device: sums and their bits do not depend on it.
inline constexpr int kResidualRmsNormBlocks = 264;
/// The largest D of the kernels; one that is no multiple of 8, or rows that start elsewhere than at a multiple of 16
/// bytes, take the instance that moves one element at a time.
inline constexpr int64_t kResidualRmsNormMostColumns = 8192;

// T = float or Bf16. Each enqueues and returns the launch's error, 0 for none.
namespace device {
template <class T>
int residual_rms_norm(const ResidualRmsNormParams<T>& params, CUstream_st* stream);
template <class T>
int residual_rms_norm_backward(const ResidualRmsNormBackwardParams<T>& params, CUstream_st* stream);
}  // namespace device
namespace emulated {
template <class T>
int residual_rms_norm(const ResidualRmsNormParams<T>& params, CUstream_st* stream);
template <class T>
int residual_rms_norm_backward(const ResidualRmsNormBackwardParams<T>& params, CUstream_st* stream);
}  // namespace emulated

}  // namespace coppice
