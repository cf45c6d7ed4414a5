#include "src/tensors/kernels/residual_rms_norm.h"

#include <cmath>

#include "src/tensors/kernels/parallel_rows.h"
#include "src/tensors/kernels/vector_math.h"

namespace coppice {

// ---- the reference ----

void residual_rms_norm_reference(const ResidualRmsNormParams<float>& params) {
  const int64_t hidden_size = params.hidden_size;
  for (int64_t n = 0; n < params.num_tokens; ++n) {
    double square_sum = 0.0;
    std::vector<float> residual(hidden_size);
    for (int64_t d = 0; d < hidden_size; ++d) {
      residual[d] = params.x[n * params.x_row_stride + d] +
                    (params.delta == nullptr ? 0.0f : params.delta[n * params.delta_row_stride + d]);
      square_sum += double{residual[d]} * residual[d];
    }
    const double rstd = 1.0 / std::sqrt(square_sum / static_cast<double>(hidden_size) + params.eps);
    params.rstd[n] = static_cast<float>(rstd);
    for (int64_t d = 0; d < hidden_size; ++d) {
      if (params.residual != nullptr) params.residual[n * hidden_size + d] = residual[d];
      params.normed[n * hidden_size + d] = static_cast<float>(residual[d] * rstd * params.weight[d]);
    }
  }
}

void residual_rms_norm_backward_reference(const ResidualRmsNormBackwardParams<float>& params) {
  const int64_t hidden_size = params.hidden_size;
  std::vector<double> weight_grad(hidden_size, 0.0);
  for (int64_t n = 0; n < params.num_tokens; ++n) {
    const float* residual = params.residual + n * params.residual_row_stride;
    const float* normed_grad = params.normed_grad + n * params.normed_grad_row_stride;
    const double rstd = params.rstd[n];
    double along = 0.0;  // sum of g * xhat
    for (int64_t d = 0; d < hidden_size; ++d) {
      const double xhat = residual[d] * rstd;
      along += double{normed_grad[d]} * params.weight[d] * xhat;
      weight_grad[d] += normed_grad[d] * xhat;
    }
    for (int64_t d = 0; d < hidden_size; ++d) {
      const double g = double{normed_grad[d]} * params.weight[d];
      const double from_norm = rstd * (g - residual[d] * rstd * along / static_cast<double>(hidden_size));
      const double from_residual =
          params.residual_grad == nullptr ? 0.0 : params.residual_grad[n * params.residual_grad_row_stride + d];
      params.x_grad[n * hidden_size + d] = static_cast<float>(from_residual + from_norm);
    }
  }
  if (params.weight_grad == nullptr) return;
  for (int64_t d = 0; d < hidden_size; ++d)
    params.weight_grad[d] =
        static_cast<float>(weight_grad[d] + (params.accumulate_weight_grad ? params.weight_grad[d] : 0.0));
}

// ---- the quick path ----

namespace {

COPPICE_INLINE void residual_rms_norm_rows_loop(const ResidualRmsNormParams<float>& params, int64_t begin,
                                                int64_t end) {
  const int64_t hidden_size = params.hidden_size;
  const float* __restrict weight = params.weight;
  for (int64_t n = begin; n < end; ++n) {
    const float* __restrict x = params.x + n * params.x_row_stride;
    float* __restrict normed = params.normed + n * hidden_size;
    const float* residual = x;
    float square_sum = 0.0f;
    if (params.delta != nullptr) {
      const float* __restrict delta = params.delta + n * params.delta_row_stride;
      float* __restrict sum = params.residual + n * hidden_size;
#pragma omp simd reduction(+ : square_sum)
      for (int64_t d = 0; d < hidden_size; ++d) {
        const float value = x[d] + delta[d];
        sum[d] = value;
        square_sum += value * value;
      }
      residual = sum;
    } else {
#pragma omp simd reduction(+ : square_sum)
      for (int64_t d = 0; d < hidden_size; ++d) square_sum += x[d] * x[d];
    }
    const float rstd = 1.0f / std::sqrt(square_sum / static_cast<float>(hidden_size) + params.eps);
    params.rstd[n] = rstd;
#pragma omp simd
    for (int64_t d = 0; d < hidden_size; ++d) normed[d] = residual[d] * rstd * weight[d];
  }
}
constexpr auto residual_rms_norm_rows = per_instruction_set<residual_rms_norm_rows_loop>;

/// weight_grad: D float sums, added to.
COPPICE_INLINE void residual_rms_norm_backward_rows_loop(const ResidualRmsNormBackwardParams<float>& params,
                                                         int64_t begin, int64_t end, float* __restrict weight_grad) {
  const int64_t hidden_size = params.hidden_size;
  const float* __restrict weight = params.weight;
  for (int64_t n = begin; n < end; ++n) {
    const float* __restrict residual = params.residual + n * params.residual_row_stride;
    const float* __restrict normed_grad = params.normed_grad + n * params.normed_grad_row_stride;
    float* __restrict x_grad = params.x_grad + n * hidden_size;
    const float rstd = params.rstd[n];
    float along = 0.0f;
#pragma omp simd reduction(+ : along)
    for (int64_t d = 0; d < hidden_size; ++d) {
      const float raw = normed_grad[d] * (residual[d] * rstd);
      weight_grad[d] += raw;
      along += raw * weight[d];
    }
    const float pull = along / static_cast<float>(hidden_size) * rstd;
    if (params.residual_grad != nullptr) {
      const float* __restrict residual_grad = params.residual_grad + n * params.residual_grad_row_stride;
#pragma omp simd
      for (int64_t d = 0; d < hidden_size; ++d)
        x_grad[d] = residual_grad[d] + rstd * (normed_grad[d] * weight[d] - residual[d] * pull);
    } else {
#pragma omp simd
      for (int64_t d = 0; d < hidden_size; ++d) x_grad[d] = rstd * (normed_grad[d] * weight[d] - residual[d] * pull);
    }
  }
}
constexpr auto residual_rms_norm_backward_rows = per_instruction_set<residual_rms_norm_backward_rows_loop>;

}  // namespace

void residual_rms_norm_cpu(const ResidualRmsNormParams<float>& params) {
  parallel_rows(params.num_tokens, threads_for(params.num_tokens * params.hidden_size),
                [&](int64_t begin, int64_t end, int) { residual_rms_norm_rows(params, begin, end); });
}

void residual_rms_norm_backward_cpu(const ResidualRmsNormBackwardParams<float>& params) {
  const int threads = threads_for(params.num_tokens * params.hidden_size);
  ColumnSums weight_grad(params.hidden_size, threads);
  parallel_rows(params.num_tokens, threads, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t n = begin; n < end; n += ColumnSums::kBlockRows) {
      residual_rms_norm_backward_rows(params, n, std::min(n + ColumnSums::kBlockRows, end), weight_grad.block(thread));
      weight_grad.flush(thread);
    }
  });
  if (params.weight_grad != nullptr) weight_grad.write(params.weight_grad, params.accumulate_weight_grad);
}

}  // namespace coppice
