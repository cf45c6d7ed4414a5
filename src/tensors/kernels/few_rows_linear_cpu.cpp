#include "src/tensors/kernels/few_rows_linear.h"

#include "src/tensors/kernels/instruction_set.h"
#include "src/tensors/kernels/parallel_rows.h"

namespace coppice {

namespace {

/// Outputs [begin, end): four weight rows at a time, so that four sums run side by side.
COPPICE_INLINE void outputs_loop(const FewRowsLinearParams& params, int64_t begin, int64_t end) {
  const int64_t inputs = params.num_inputs;
  const auto bias = [&](int64_t o) { return params.bias == nullptr ? 0.0f : params.bias[o]; };
  int64_t o = begin;
  for (; o + 4 <= end; o += 4) {
    const float* __restrict w0 = params.weight + o * inputs;
    const float* __restrict w1 = w0 + inputs, * __restrict w2 = w1 + inputs, * __restrict w3 = w2 + inputs;
    for (int64_t n = 0; n < params.num_rows; ++n) {
      const float* __restrict x = params.x + n * inputs;
      float sum0 = 0.0f, sum1 = 0.0f, sum2 = 0.0f, sum3 = 0.0f;
#pragma omp simd reduction(+ : sum0, sum1, sum2, sum3)
      for (int64_t i = 0; i < inputs; ++i) {
        sum0 += x[i] * w0[i];
        sum1 += x[i] * w1[i];
        sum2 += x[i] * w2[i];
        sum3 += x[i] * w3[i];
      }
      float* y = params.y + n * params.num_outputs + o;
      y[0] = sum0 + bias(o);
      y[1] = sum1 + bias(o + 1);
      y[2] = sum2 + bias(o + 2);
      y[3] = sum3 + bias(o + 3);
    }
  }
  for (; o < end; ++o) {
    const float* __restrict w = params.weight + o * inputs;
    for (int64_t n = 0; n < params.num_rows; ++n) {
      const float* __restrict x = params.x + n * inputs;
      float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
      for (int64_t i = 0; i < inputs; ++i) sum += x[i] * w[i];
      params.y[n * params.num_outputs + o] = sum + bias(o);
    }
  }
}
constexpr auto outputs = per_instruction_set<outputs_loop>;

}  // namespace

void few_rows_linear_cpu(const FewRowsLinearParams& params) {
  parallel_rows(params.num_outputs, threads_for(params.num_outputs * params.num_inputs),
                [&](int64_t begin, int64_t end, int) { outputs(params, begin, end); });
}

}  // namespace coppice
