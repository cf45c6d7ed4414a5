// A row is read once for its maximum and once in blocks, whose powers stay in the core's first cache while they are
// raised and summed.
#include "src/tensors/kernels/calibrated_cross_entropy.h"

#include <algorithm>
#include <cmath>

#include "src/tensors/kernels/loss_rows.h"
#include "src/tensors/kernels/parallel_rows.h"
#include "src/tensors/kernels/vector_math.h"

namespace coppice {

void calibrated_rows_reference(const CalibratedRowsParams& params) {
  for (int64_t row = 0; row < params.num_rows; ++row) {
    if (params.true_label[row] == kIgnoredLabel) continue;
    const float* const z = params.logits + row * params.num_vocab;
    const double largest = *std::max_element(z, z + params.num_vocab), d_true = z[params.true_label[row]] - largest;
    for (size_t point = 0; point < kTemperaturePoints; ++point) {
      const double b = inverse_temperature_of(point);
      double zeroth = 0, first = 0, second = 0;
      for (int64_t v = 0; v < params.num_vocab; ++v) {
        const double d = z[v] - largest, e = std::exp(b * d);
        zeroth += e;
        first += d * e;
        second += d * d * e;
      }
      const double mean = first / zeroth;
      params.rows[row].curve[point] = {
          .ce = std::log(zeroth) - b * d_true, .slope = mean - d_true, .curvature = second / zeroth - mean * mean};
      if (point == kUnitPoint) params.rows[row].confidence = 1 / zeroth;
    }
  }
}

namespace {

constexpr float kNothing = 1e-30f;  // a power below counts as 0: products of subnormal numbers are slow

struct PowerSums {
  double zeroth = 0, first = 0, second = 0;
};

COPPICE_INLINE void sum_powers_loop(const float* z, int64_t n, float largest, PowerSums* sums) {
  constexpr float kStep = kInverseTemperatureStep;
  float d[kSumBlock], e[kSumBlock], power[kSumBlock];
  for (int64_t begin = 0; begin < n; begin += kSumBlock) {
    const int64_t count = std::min(kSumBlock, n - begin);
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
      d[i] = z[begin + i] - largest;
      e[i] = vector_exp_flushed(d[i] * kStep);
      power[i] = 1.0f;
    }
    for (size_t point = 0; point < kTemperaturePoints; ++point) {
      float zeroth = 0, first = 0, second = 0;
#pragma omp simd reduction(+ : zeroth, first, second)
      for (int64_t i = 0; i < count; ++i) {
        const float next = power[i] * e[i], kept = next < kNothing ? 0.0f : next, moment = kept * d[i];
        power[i] = kept;
        zeroth += kept;
        first += moment;
        second += moment * d[i];
      }
      sums[point].zeroth += zeroth;
      sums[point].first += first;
      sums[point].second += second;
    }
  }
}
constexpr auto sum_powers = per_instruction_set<sum_powers_loop>;

void calibrate_row(const float* z, int64_t num_vocab, int64_t true_label, CalibratedRow& row) {
  const float largest = find_largest(z, num_vocab).value;
  PowerSums sums[kTemperaturePoints];
  sum_powers(z, num_vocab, largest, sums);
  const double d_true = double{z[true_label]} - largest;
  for (size_t point = 0; point < kTemperaturePoints; ++point) {
    const double b = inverse_temperature_of(point), mean = sums[point].first / sums[point].zeroth;
    row.curve[point] = {.ce = std::log(sums[point].zeroth) - b * d_true,
                        .slope = mean - d_true,
                        .curvature = sums[point].second / sums[point].zeroth - mean * mean};
  }
  row.confidence = 1 / sums[kUnitPoint].zeroth;
}

}  // namespace

void calibrated_rows_cpu(const CalibratedRowsParams& params) {
  const int64_t n = params.num_vocab;
  parallel_rows(params.num_rows, threads_for(params.num_rows * n), [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row)
      if (params.true_label[row] != kIgnoredLabel)
        calibrate_row(params.logits + row * n, n, params.true_label[row], params.rows[row]);
  });
}

}  // namespace coppice
