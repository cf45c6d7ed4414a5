// SwiGLU with a mask. A block takes kSwigluRows rows of 256 packs of channels, a thread the same channels of all of
// them: the mask and its gradient stay in registers, and the gradient's partial rows are joined in the order of the row
// groups by a second launch.
// Bytes of a row in bf16: forward 6 F, backward 10 F, with h 12 F. Beside them, a group of rows: 4 F for the mask, 8 F
// for the partial row of its gradient, written and read.
#include "src/tensors/kernels/swiglu.h"

#include "src/tensors/kernels/add_up_rows.h"
#include "src/tensors/kernels/float_packs.h"

namespace coppice::COPPICE_EXECUTION {
namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ float sigmoid(float x) {
  constexpr float kLog2E = 1.4426950408889634f;
  return fast_reciprocal(1.0f + fast_exp2(-kLog2E * x));
}

/// The channels and rows of a thread.
template <int kVec>
struct Share {
  int64_t channel;  // the first of kVec
  int64_t begin, end;
  bool there;
  __device__ Share(int64_t num_tokens, int64_t num_channels)
      : channel((blockIdx.y * int64_t{kThreads} + threadIdx.x) * kVec),
        begin(blockIdx.x * int64_t{kSwigluRows}),
        end(begin + kSwigluRows < num_tokens ? begin + kSwigluRows : num_tokens),
        there(channel < num_channels) {}
  __device__ __forceinline__ Pack<float, kVec> load_mask(const float* ffn_mask) const {
    Pack<float, kVec> mask;
    COPPICE_UNROLL
    for (int i = 0; i < kVec; ++i) mask[i] = 1.0f;
    return ffn_mask == nullptr ? mask : load_pack<kVec>(ffn_mask + channel);
  }
};

template <class T, int kVec>
__global__ void __launch_bounds__(kThreads) swiglu_kernel(SwigluParams<T> params) {
  const Share<kVec> share(params.num_tokens, params.num_channels);
  if (!share.there) return;
  const auto mask = share.load_mask(params.ffn_mask);
  for (int64_t n = share.begin; n < share.end; ++n) {
    const T* const gate_up = params.gate_up + n * params.gate_up_row_stride + share.channel;
    const auto gate = load_floats<kVec>(gate_up), up = load_floats<kVec>(gate_up + params.num_channels);
    Pack<float, kVec> h;
    COPPICE_UNROLL
    for (int i = 0; i < kVec; ++i) h[i] = gate[i] * sigmoid(gate[i]) * (mask[i] * up[i]);
    store_floats(params.h + n * params.num_channels + share.channel, h);
  }
}

template <class T, int kVec>
__global__ void __launch_bounds__(kThreads) swiglu_backward_kernel(SwigluBackwardParams<T> params) {
  const Share<kVec> share(params.num_tokens, params.num_channels);
  if (!share.there) return;
  const auto mask = share.load_mask(params.ffn_mask);
  Pack<float, kVec> mask_grad{};
  for (int64_t n = share.begin; n < share.end; ++n) {
    const T* const gate_up = params.gate_up + n * params.gate_up_row_stride + share.channel;
    const auto gate = load_floats<kVec>(gate_up), up = load_floats<kVec>(gate_up + params.num_channels),
               h_grad = load_floats<kVec>(params.h_grad + n * params.h_grad_row_stride + share.channel);
    Pack<float, kVec> gate_grad, up_grad, h;
    COPPICE_UNROLL
    for (int i = 0; i < kVec; ++i) {
      const float s = sigmoid(gate[i]), silu = gate[i] * s, masked_up = mask[i] * up[i];
      const float of_product = h_grad[i] * silu;
      gate_grad[i] = h_grad[i] * masked_up * (s * (1.0f + (gate[i] - silu)));
      up_grad[i] = of_product * mask[i];
      mask_grad[i] += of_product * up[i];
      h[i] = silu * masked_up;
    }
    T* const gate_up_grad = params.gate_up_grad + n * 2 * params.num_channels + share.channel;
    store_floats(gate_up_grad, gate_grad);
    store_floats(gate_up_grad + params.num_channels, up_grad);
    if (params.h != nullptr) store_floats(params.h + n * params.num_channels + share.channel, h);
  }
  if (params.ffn_mask_grad != nullptr)
    store_pack(params.ffn_mask_grad_partial + blockIdx.x * params.num_channels + share.channel, mask_grad);
}

/// Launches kernel(params) with one block for each group of rows and each kThreads packs of kVec channels.
template <int kVec, class Params>
int launch_groups(void (*kernel)(Params), const Params& params, CUstream_st* stream) {
  constexpr int64_t kChannels = int64_t{kThreads} * kVec;
  const int64_t channel_blocks = (params.num_channels + kChannels - 1) / kChannels;
  return launch(kernel, {swiglu_row_groups(params.num_tokens), channel_blocks}, kThreads, 0, stream, params);
}

}  // namespace

template <class T>
int swiglu(const SwigluParams<T>& params, CUstream_st* stream) {
  if (params.num_tokens == 0) return 0;
  const bool packs = params.num_channels % 8 == 0 && starts_at_packs(params.gate_up, params.gate_up_row_stride) &&
                     starts_at_packs(params.ffn_mask, 0) && starts_at_packs(params.h, 0);
  return packs ? launch_groups<8>(swiglu_kernel<T, 8>, params, stream)
               : launch_groups<1>(swiglu_kernel<T, 1>, params, stream);
}

template <class T>
int swiglu_backward(const SwigluBackwardParams<T>& params, CUstream_st* stream) {
  const bool packs = params.num_channels % 8 == 0 && starts_at_packs(params.gate_up, params.gate_up_row_stride) &&
                     starts_at_packs(params.ffn_mask, 0) && starts_at_packs(params.h_grad, params.h_grad_row_stride) &&
                     starts_at_packs(params.gate_up_grad, 0) && starts_at_packs(params.h, 0) &&
                     starts_at_packs(params.ffn_mask_grad_partial, 0);
  if (params.num_tokens > 0) {
    const int error = packs ? launch_groups<8>(swiglu_backward_kernel<T, 8>, params, stream)
                            : launch_groups<1>(swiglu_backward_kernel<T, 1>, params, stream);
    if (error != 0) return error;
  }
  if (params.ffn_mask_grad == nullptr) return 0;
  return add_up_rows({.rows = params.ffn_mask_grad_partial,
                      .sum = params.ffn_mask_grad,
                      .num_rows = static_cast<int>(swiglu_row_groups(params.num_tokens)),
                      .num_columns = params.num_channels},
                     stream);
}

template int swiglu(const SwigluParams<float>&, CUstream_st*);
template int swiglu(const SwigluParams<Bf16>&, CUstream_st*);
template int swiglu_backward(const SwigluBackwardParams<float>&, CUstream_st*);
template int swiglu_backward(const SwigluBackwardParams<Bf16>&, CUstream_st*);

}  // namespace coppice::COPPICE_EXECUTION
