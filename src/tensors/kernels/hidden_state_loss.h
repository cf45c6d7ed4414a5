// How far the hidden states of a student are from a teacher's, a row (token) at a time. x = student, y = teacher:
//   mse:     mean over d of (x - y)^2;                      d x = 2 (x - y) / D
//   cosine:  1 - x.y / (a b), a = max(|x|, 1e-8), b = max(|y|, 1e-8) as in ATen's cosine_similarity;
//            d x = (x.y / (a b)) x / (a |x|) - y / (a b)
// N = tokens, D = hidden size, T = element type of hidden states. Sums and losses are float32. Torch-free.
#pragma once

#include <cstdint>

struct CUstream_st;  // cudaStream_t points to one

namespace coppice {

enum class HiddenLoss { mse, cosine };

template <class T>
struct HiddenStateLossParams {
  HiddenLoss kind = HiddenLoss::mse;
  const T* student = nullptr;  // (N, D), rows student_row_stride elements apart
  const T* teacher = nullptr;  // (N, D), rows teacher_row_stride apart
  const bool* live = nullptr;  // (N); the others lose nothing and are not read
  float* loss = nullptr;       // (N), overwritten
  float* products = nullptr;   // (N, 3), overwritten by x.y, x.x, y.y of cosine; null: no backward follows
  int64_t num_tokens = 0;
  int64_t hidden_size = 0;
  int64_t student_row_stride = 0;
  int64_t teacher_row_stride = 0;
};

template <class T>
struct HiddenStateLossBackwardParams {
  HiddenLoss kind = HiddenLoss::mse;
  const T* student = nullptr;  // as forward has them
  const T* teacher = nullptr;
  const bool* live = nullptr;       // (N)
  const float* products = nullptr;  // (N, 3), from forward; not of mse
  const float* scale = nullptr;     // (1): gradient of each row's loss
  T* student_grad = nullptr;        // (N, D), overwritten
  int64_t num_tokens = 0;
  int64_t hidden_size = 0;
  int64_t student_row_stride = 0;
  int64_t teacher_row_stride = 0;
};

inline constexpr float kLeastNorm = 1e-8f;

void hidden_state_loss_reference(const HiddenStateLossParams<float>& params);  // plain loops in double
void hidden_state_loss_backward_reference(const HiddenStateLossBackwardParams<float>& params);

// T = float or Bf16. Each enqueues and returns the launch's error, 0 for none.
namespace device {
template <class T>
int hidden_state_loss(const HiddenStateLossParams<T>& params, CUstream_st* stream);
template <class T>
int hidden_state_loss_backward(const HiddenStateLossBackwardParams<T>& params, CUstream_st* stream);
}  // namespace device
namespace emulated {
template <class T>
int hidden_state_loss(const HiddenStateLossParams<T>& params, CUstream_st* stream);
template <class T>
int hidden_state_loss_backward(const HiddenStateLossBackwardParams<T>& params, CUstream_st* stream);
}  // namespace emulated

}  // namespace coppice
