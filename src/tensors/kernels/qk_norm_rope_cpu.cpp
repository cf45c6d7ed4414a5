#include "src/tensors/kernels/qk_norm_rope.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>

#include "src/tensors/kernels/parallel_rows.h"
#include "src/tensors/kernels/vector_math.h"

namespace coppice {

std::shared_ptr<const RopeTable> rope_table(std::span<const double> frequencies, int64_t max_position) {
  static std::mutex mutex;
  static std::map<std::vector<double>, std::shared_ptr<const RopeTable>> tables;
  const std::lock_guard lock(mutex);
  std::shared_ptr<const RopeTable>& table = tables[std::vector(frequencies.begin(), frequencies.end())];
  if (table != nullptr && table->num_positions > max_position) return table;
  auto grown = std::make_shared<RopeTable>();
  grown->num_positions = 512;
  while (grown->num_positions <= max_position) grown->num_positions *= 2;
  const auto half = static_cast<int64_t>(frequencies.size());
  grown->cos.resize(grown->num_positions * half);
  grown->sin.resize(grown->num_positions * half);
  for (int64_t i = 0; i < half; ++i) {
    for (int64_t position = 0; position < grown->num_positions; ++position) {
      const double angle = static_cast<double>(position) * frequencies[i];
      grown->cos[position * half + i] = static_cast<float>(std::cos(angle));
      grown->sin[position * half + i] = static_cast<float>(std::sin(angle));
    }
  }
  table = std::move(grown);
  return table;
}

// ---- the reference ----

namespace {

/// 1 / sqrt(mean x^2 + eps) in double.
double rstd_of(const float* x, int64_t head_size, double eps) {
  double square_sum = 0.0;
  for (int64_t i = 0; i < head_size; ++i) square_sum += double{x[i]} * x[i];
  return 1.0 / std::sqrt(square_sum / static_cast<double>(head_size) + eps);
}

/// The gradient of rotated head `head` of token n, key heads behind the query heads.
const float* rotated_grad(const QkNormRopeBackwardParams<float>& params, int64_t n, int64_t head) {
  return head < params.num_heads
             ? params.q_grad + n * params.q_grad_row_stride + head * params.head_size
             : params.k_grad + n * params.k_grad_row_stride + (head - params.num_heads) * params.head_size;
}

}  // namespace

void qk_norm_rope_reference(const QkNormRopeParams<float>& params) {
  const int64_t head_size = params.head_size, half = head_size / 2,
                num_rotated = params.num_heads + params.num_kv_heads;
  const int64_t width = (num_rotated + (params.copies_values ? params.num_kv_heads : 0)) * head_size;
  for (int64_t n = 0; n < params.num_tokens; ++n) {
    const float* cos = params.cos + params.position[n] * half;
    const float* sin = params.sin + params.position[n] * half;
    for (int64_t head = 0; head < num_rotated; ++head) {
      const float* x = params.qkv + n * params.qkv_row_stride + head * head_size;
      float* y = params.out + n * width + head * head_size;
      const float* weight = head < params.num_heads ? params.q_weight : params.k_weight;
      const double rstd = weight == nullptr ? 1.0 : rstd_of(x, head_size, params.eps);
      for (int64_t i = 0; i < half; ++i) {
        const double left = x[i] * rstd * (weight == nullptr ? 1.0 : weight[i]);
        const double right = x[i + half] * rstd * (weight == nullptr ? 1.0 : weight[i + half]);
        y[i] = static_cast<float>(left * cos[i] - right * sin[i]);
        y[i + half] = static_cast<float>(right * cos[i] + left * sin[i]);
      }
    }
    for (int64_t i = num_rotated * head_size; i < width; ++i)
      params.out[n * width + i] = params.qkv[n * params.qkv_row_stride + i];
  }
}

void qk_norm_rope_backward_reference(const QkNormRopeBackwardParams<float>& params) {
  const int64_t head_size = params.head_size, half = head_size / 2,
                num_rotated = params.num_heads + params.num_kv_heads;
  const int64_t width = (params.num_heads + 2 * params.num_kv_heads) * head_size;
  std::vector<double> weight_grad(2 * head_size, 0.0);  // q, then k
  std::vector<double> g(head_size);
  for (int64_t n = 0; n < params.num_tokens; ++n) {
    const float* cos = params.cos + params.position[n] * half;
    const float* sin = params.sin + params.position[n] * half;
    for (int64_t head = 0; head < num_rotated; ++head) {
      const float* y_grad = rotated_grad(params, n, head);
      float* x_grad = params.qkv_grad + n * width + head * head_size;
      for (int64_t i = 0; i < half; ++i) {
        g[i] = double{y_grad[i]} * cos[i] + double{y_grad[i + half]} * sin[i];
        g[i + half] = double{y_grad[i + half]} * cos[i] - double{y_grad[i]} * sin[i];
      }
      const float* weight = head < params.num_heads ? params.q_weight : params.k_weight;
      if (weight == nullptr) {
        for (int64_t i = 0; i < head_size; ++i) x_grad[i] = static_cast<float>(g[i]);
        continue;
      }
      const float* x = params.qkv + n * params.qkv_row_stride + head * head_size;
      const double rstd = rstd_of(x, head_size, params.eps);
      double along = 0.0;
      for (int64_t i = 0; i < head_size; ++i) {
        weight_grad[(head < params.num_heads ? 0 : head_size) + i] += g[i] * x[i] * rstd;
        g[i] *= weight[i];
        along += g[i] * x[i] * rstd;
      }
      for (int64_t i = 0; i < head_size; ++i)
        x_grad[i] = static_cast<float>(rstd * (g[i] - x[i] * rstd * along / static_cast<double>(head_size)));
    }
    for (int64_t i = num_rotated * head_size; i < width; ++i)
      params.qkv_grad[n * width + i] = params.v_grad[n * params.v_grad_row_stride + i - num_rotated * head_size];
  }
  for (float* out : {params.q_weight_grad, params.k_weight_grad}) {
    if (out == nullptr) continue;
    const double* sums = weight_grad.data() + (out == params.q_weight_grad ? 0 : head_size);
    for (int64_t i = 0; i < head_size; ++i)
      out[i] = static_cast<float>(sums[i] + (params.accumulate_weight_grad ? out[i] : 0.0));
  }
}

// ---- the quick path: one head at a time; the usual head sizes are compile-time constants so that its loops unroll
// ----

namespace {

template <int64_t kHalf>
COPPICE_INLINE void rotate_head(const float* __restrict x, const float* __restrict weight, const float* __restrict cos,
                                const float* __restrict sin, float* __restrict y, int64_t half_size, float eps) {
  const int64_t half = kHalf > 0 ? kHalf : half_size;
  if (weight == nullptr) {
#pragma omp simd
    for (int64_t i = 0; i < half; ++i) {
      y[i] = x[i] * cos[i] - x[i + half] * sin[i];
      y[i + half] = x[i + half] * cos[i] + x[i] * sin[i];
    }
    return;
  }
  float square_sum = 0.0f;
#pragma omp simd reduction(+ : square_sum)
  for (int64_t i = 0; i < 2 * half; ++i) square_sum += x[i] * x[i];
  const float rstd = 1.0f / std::sqrt(square_sum / static_cast<float>(2 * half) + eps);
#pragma omp simd
  for (int64_t i = 0; i < half; ++i) {
    const float left = x[i] * rstd * weight[i], right = x[i + half] * rstd * weight[i + half];
    y[i] = left * cos[i] - right * sin[i];
    y[i + half] = right * cos[i] + left * sin[i];
  }
}

template <int64_t kHalf>
COPPICE_INLINE void rotate_head_back(const float* __restrict y_grad, const float* __restrict x,
                                     const float* __restrict weight, const float* __restrict cos,
                                     const float* __restrict sin, float* __restrict x_grad,
                                     float* __restrict weight_grad, int64_t half_size, float eps) {
  const int64_t half = kHalf > 0 ? kHalf : half_size;
  if (weight == nullptr) {
#pragma omp simd
    for (int64_t i = 0; i < half; ++i) {
      x_grad[i] = y_grad[i] * cos[i] + y_grad[i + half] * sin[i];
      x_grad[i + half] = y_grad[i + half] * cos[i] - y_grad[i] * sin[i];
    }
    return;
  }
  float square_sum = 0.0f;
#pragma omp simd reduction(+ : square_sum)
  for (int64_t i = 0; i < 2 * half; ++i) square_sum += x[i] * x[i];
  const float rstd = 1.0f / std::sqrt(square_sum / static_cast<float>(2 * half) + eps);
  float along = 0.0f;
#pragma omp simd reduction(+ : along)
  for (int64_t i = 0; i < half; ++i) {
    const float left = y_grad[i] * cos[i] + y_grad[i + half] * sin[i];
    const float right = y_grad[i + half] * cos[i] - y_grad[i] * sin[i];
    const float left_hat = left * (x[i] * rstd), right_hat = right * (x[i + half] * rstd);
    weight_grad[i] += left_hat;
    weight_grad[i + half] += right_hat;
    along += left_hat * weight[i] + right_hat * weight[i + half];
    x_grad[i] = left * weight[i];
    x_grad[i + half] = right * weight[i + half];
  }
  const float pull = along / static_cast<float>(2 * half) * rstd;
#pragma omp simd
  for (int64_t i = 0; i < 2 * half; ++i) x_grad[i] = rstd * (x_grad[i] - x[i] * pull);
}

template <int64_t kHalf>
COPPICE_INLINE void rows_of_head_size(const QkNormRopeParams<float>& params, int64_t begin, int64_t end) {
  const int64_t half = kHalf > 0 ? kHalf : params.head_size / 2, head_size = 2 * half,
                num_rotated = params.num_heads + params.num_kv_heads;
  const int64_t num_values = params.copies_values ? params.num_kv_heads * head_size : 0;
  const int64_t width = num_rotated * head_size + num_values;
  for (int64_t n = begin; n < end; ++n) {
    const float* cos = params.cos + params.position[n] * half;
    const float* sin = params.sin + params.position[n] * half;
    const float* x = params.qkv + n * params.qkv_row_stride;
    float* y = params.out + n * width;
    for (int64_t head = 0; head < num_rotated; ++head)
      rotate_head<kHalf>(x + head * head_size, head < params.num_heads ? params.q_weight : params.k_weight, cos, sin,
                         y + head * head_size, half, params.eps);
    std::memcpy(y + num_rotated * head_size, x + num_rotated * head_size, sizeof(float) * num_values);
  }
}

template <int64_t kHalf>
COPPICE_INLINE void backward_rows_of_head_size(const QkNormRopeBackwardParams<float>& params, int64_t begin,
                                               int64_t end, float* weight_grad) {
  const int64_t half = kHalf > 0 ? kHalf : params.head_size / 2, head_size = 2 * half,
                num_rotated = params.num_heads + params.num_kv_heads;
  const int64_t width = (num_rotated + params.num_kv_heads) * head_size;
  for (int64_t n = begin; n < end; ++n) {
    const float* cos = params.cos + params.position[n] * half;
    const float* sin = params.sin + params.position[n] * half;
    const float* x = params.qkv == nullptr ? nullptr : params.qkv + n * params.qkv_row_stride;
    float* x_grad = params.qkv_grad + n * width;
    for (int64_t head = 0; head < num_rotated; ++head) {
      const bool is_query = head < params.num_heads;
      rotate_head_back<kHalf>(rotated_grad(params, n, head), x == nullptr ? nullptr : x + head * head_size,
                              is_query ? params.q_weight : params.k_weight, cos, sin, x_grad + head * head_size,
                              weight_grad + (is_query ? 0 : head_size), half, params.eps);
    }
    std::memcpy(x_grad + num_rotated * head_size, params.v_grad + n * params.v_grad_row_stride,
                sizeof(float) * params.num_kv_heads * head_size);
  }
}

COPPICE_INLINE void qk_norm_rope_rows_loop(const QkNormRopeParams<float>& params, int64_t begin, int64_t end) {
  switch (params.head_size) {
    case 32:
      return rows_of_head_size<16>(params, begin, end);
    case 64:
      return rows_of_head_size<32>(params, begin, end);
    case 128:
      return rows_of_head_size<64>(params, begin, end);
    default:
      return rows_of_head_size<0>(params, begin, end);
  }
}
constexpr auto qk_norm_rope_rows = per_instruction_set<qk_norm_rope_rows_loop>;

/// weight_grad: 2K float sums (q, then k), added to.
COPPICE_INLINE void qk_norm_rope_backward_rows_loop(const QkNormRopeBackwardParams<float>& params, int64_t begin,
                                                    int64_t end, float* weight_grad) {
  switch (params.head_size) {
    case 32:
      return backward_rows_of_head_size<16>(params, begin, end, weight_grad);
    case 64:
      return backward_rows_of_head_size<32>(params, begin, end, weight_grad);
    case 128:
      return backward_rows_of_head_size<64>(params, begin, end, weight_grad);
    default:
      return backward_rows_of_head_size<0>(params, begin, end, weight_grad);
  }
}
constexpr auto qk_norm_rope_backward_rows = per_instruction_set<qk_norm_rope_backward_rows_loop>;

}  // namespace

void qk_norm_rope_cpu(const QkNormRopeParams<float>& params) {
  parallel_rows(params.num_tokens,
                threads_for(params.num_tokens * (params.num_heads + params.num_kv_heads) * params.head_size),
                [&](int64_t begin, int64_t end, int) { qk_norm_rope_rows(params, begin, end); });
}

void qk_norm_rope_backward_cpu(const QkNormRopeBackwardParams<float>& params) {
  const int threads = threads_for(params.num_tokens * (params.num_heads + params.num_kv_heads) * params.head_size);
  ColumnSums weight_grad(2 * params.head_size, threads);
  parallel_rows(params.num_tokens, threads, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t n = begin; n < end; n += ColumnSums::kBlockRows) {
      qk_norm_rope_backward_rows(params, n, std::min(n + ColumnSums::kBlockRows, end), weight_grad.block(thread));
      weight_grad.flush(thread);
    }
  });
  if (params.q_weight_grad != nullptr)
    weight_grad.write(params.q_weight_grad, params.accumulate_weight_grad, 0, params.head_size);
  if (params.k_weight_grad != nullptr)
    weight_grad.write(params.k_weight_grad, params.accumulate_weight_grad, params.head_size, params.head_size);
}

}  // namespace coppice
