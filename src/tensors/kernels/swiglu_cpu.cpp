#include <cmath>

#include "src/tensors/kernels/parallel_rows.h"
#include "src/tensors/kernels/swiglu.h"
#include "src/tensors/kernels/vector_math.h"

namespace coppice {

// ---- the reference ----

void swiglu_reference(const SwigluParams<float>& params) {
  for (int64_t n = 0; n < params.num_tokens; ++n)
    for (int64_t f = 0; f < params.num_channels; ++f) {
      const double gate = params.gate_up[n * params.gate_up_row_stride + f];
      const double up = params.gate_up[n * params.gate_up_row_stride + params.num_channels + f];
      const double mask = params.ffn_mask == nullptr ? 1.0 : params.ffn_mask[f];
      params.h[n * params.num_channels + f] = static_cast<float>(gate / (1.0 + std::exp(-gate)) * (mask * up));
    }
}

void swiglu_backward_reference(const SwigluBackwardParams<float>& params) {
  for (int64_t f = 0; f < params.num_channels; ++f) {
    double mask_grad = 0.0;
    for (int64_t n = 0; n < params.num_tokens; ++n) {
      const double gate = params.gate_up[n * params.gate_up_row_stride + f];
      const double up = params.gate_up[n * params.gate_up_row_stride + params.num_channels + f];
      const double mask = params.ffn_mask == nullptr ? 1.0 : params.ffn_mask[f];
      const double h_grad = params.h_grad[n * params.h_grad_row_stride + f];
      const double sigmoid = 1.0 / (1.0 + std::exp(-gate));
      float* row = params.gate_up_grad + n * 2 * params.num_channels;
      row[f] = static_cast<float>(h_grad * mask * up * sigmoid * (1.0 + gate * (1.0 - sigmoid)));
      row[params.num_channels + f] = static_cast<float>(h_grad * mask * gate * sigmoid);
      if (params.h != nullptr) params.h[n * params.num_channels + f] = static_cast<float>(gate * sigmoid * (mask * up));
      mask_grad += h_grad * gate * sigmoid * up;
    }
    if (params.ffn_mask_grad != nullptr) params.ffn_mask_grad[f] = static_cast<float>(mask_grad);
  }
}

// ---- the quick path ----

namespace {

COPPICE_INLINE void swiglu_rows_loop(const SwigluParams<float>& params, int64_t begin, int64_t end) {
  const int64_t num_channels = params.num_channels;
  const float* __restrict mask = params.ffn_mask;
  for (int64_t n = begin; n < end; ++n) {
    const float* __restrict gate = params.gate_up + n * params.gate_up_row_stride;
    const float* __restrict up = gate + num_channels;
    float* __restrict h = params.h + n * num_channels;
    if (mask == nullptr) {
      for (int64_t f = 0; f < num_channels; ++f) h[f] = gate[f] * vector_sigmoid(gate[f]) * up[f];
    } else {
      for (int64_t f = 0; f < num_channels; ++f) h[f] = gate[f] * vector_sigmoid(gate[f]) * (mask[f] * up[f]);
    }
  }
}
constexpr auto swiglu_rows = per_instruction_set<swiglu_rows_loop>;

/// mask_grad: F float sums, added to; null when there is no mask or its gradient is not wanted.
COPPICE_INLINE void swiglu_backward_rows_loop(const SwigluBackwardParams<float>& params, int64_t begin, int64_t end,
                                              float* __restrict mask_grad) {
  const int64_t num_channels = params.num_channels;
  const float* __restrict mask = params.ffn_mask;
  for (int64_t n = begin; n < end; ++n) {
    const float* __restrict gate = params.gate_up + n * params.gate_up_row_stride;
    const float* __restrict up = gate + num_channels;
    const float* __restrict h_grad = params.h_grad + n * params.h_grad_row_stride;
    float* __restrict gate_grad = params.gate_up_grad + n * 2 * num_channels;
    float* __restrict up_grad = gate_grad + num_channels;
    if (mask == nullptr) {
      for (int64_t f = 0; f < num_channels; ++f) {
        const float sigmoid = vector_sigmoid(gate[f]), silu = gate[f] * sigmoid;
        gate_grad[f] = h_grad[f] * up[f] * (sigmoid * (1.0f + (gate[f] - silu)));
        up_grad[f] = h_grad[f] * silu;
      }
    } else if (mask_grad == nullptr) {
      for (int64_t f = 0; f < num_channels; ++f) {
        const float sigmoid = vector_sigmoid(gate[f]), silu = gate[f] * sigmoid;
        gate_grad[f] = h_grad[f] * (mask[f] * up[f]) * (sigmoid * (1.0f + (gate[f] - silu)));
        up_grad[f] = h_grad[f] * silu * mask[f];
      }
    } else {
      for (int64_t f = 0; f < num_channels; ++f) {
        const float sigmoid = vector_sigmoid(gate[f]), silu = gate[f] * sigmoid;
        gate_grad[f] = h_grad[f] * (mask[f] * up[f]) * (sigmoid * (1.0f + (gate[f] - silu)));
        const float raw_up_grad = h_grad[f] * silu;
        up_grad[f] = raw_up_grad * mask[f];
        mask_grad[f] += raw_up_grad * up[f];
      }
    }
  }
}
constexpr auto swiglu_backward_rows = per_instruction_set<swiglu_backward_rows_loop>;

}  // namespace

void swiglu_cpu(const SwigluParams<float>& params) {
  parallel_rows(params.num_tokens, threads_for(params.num_tokens * params.num_channels),
                [&](int64_t begin, int64_t end, int) { swiglu_rows(params, begin, end); });
}

void swiglu_backward_cpu(const SwigluBackwardParams<float>& params) {
  if (params.h != nullptr)
    swiglu_cpu({.gate_up = params.gate_up,
                .ffn_mask = params.ffn_mask,
                .h = params.h,
                .num_tokens = params.num_tokens,
                .num_channels = params.num_channels,
                .gate_up_row_stride = params.gate_up_row_stride});
  const int threads = threads_for(params.num_tokens * params.num_channels);
  if (params.ffn_mask == nullptr || params.ffn_mask_grad == nullptr) {
    parallel_rows(params.num_tokens, threads,
                  [&](int64_t begin, int64_t end, int) { swiglu_backward_rows(params, begin, end, nullptr); });
    return;
  }
  ColumnSums mask_grad(params.num_channels, threads);
  parallel_rows(params.num_tokens, threads, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t n = begin; n < end; n += ColumnSums::kBlockRows) {
      swiglu_backward_rows(params, n, std::min(n + ColumnSums::kBlockRows, end), mask_grad.block(thread));
      mask_grad.flush(thread);
    }
  });
  mask_grad.write(params.ffn_mask_grad, /*accumulate=*/false);
}

}  // namespace coppice
