#include "src/tensors/kernels/residual_rms_norm.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "tests/executor/outputs.h"
#include "tests/kernels/every_schedule.h"
#include "tests/kernels/last_row.h"
#include "tests/kernels/table_bytes.h"

using namespace coppice;

namespace {

constexpr float kEps = 1e-5f;

struct Shape {
  int64_t num_tokens;
  int64_t hidden_size;
  int64_t padding;  // of a row's end, full of NaN
  bool has_delta;   // forward; a gradient of the residual, backward
  bool accumulate;
};

/// Multiples of 1/16 below 1: sums of two are exact in bfloat16, so that its kernel differs by the last rounding alone.
template <class T>
std::vector<T> matrix(const Shape& shape, uint32_t stream) {
  const int64_t row = shape.hidden_size + shape.padding;
  std::vector<T> values(static_cast<size_t>(shape.num_tokens * row));
  for (int64_t i = 0; i < shape.num_tokens * row; ++i) {
    const float value = i % row < shape.hidden_size ? std::trunc(number(i, stream) * 16.0f) / 16.0f
                                                    : std::numeric_limits<float>::quiet_NaN();
    if constexpr (std::is_same_v<T, Bf16>)
      values[static_cast<size_t>(i)] = to_bf16(value);
    else
      values[static_cast<size_t>(i)] = value;
  }
  return values;
}

/// A kernel is asked for T and, with the same numbers, its reference for float: residual, normed, rstd one after the
/// other.
template <class T, class Run>
Outputs forward(const Shape& shape, const Run& run) {
  const std::vector<T> x = matrix<T>(shape, 1), delta = matrix<T>(shape, 2);
  const std::vector<float> weight = numbers<float>(shape.hidden_size, 3);
  const auto size = static_cast<size_t>(shape.num_tokens * shape.hidden_size);
  std::vector<T> residual(size), normed(size);
  std::vector<float> rstd(static_cast<size_t>(shape.num_tokens));
  run(ResidualRmsNormParams<T>{.x = x.data(),
                               .delta = shape.has_delta ? delta.data() : nullptr,
                               .weight = weight.data(),
                               .residual = shape.has_delta ? residual.data() : nullptr,
                               .normed = normed.data(),
                               .rstd = rstd.data(),
                               .num_tokens = shape.num_tokens,
                               .hidden_size = shape.hidden_size,
                               .x_row_stride = shape.hidden_size + shape.padding,
                               .delta_row_stride = shape.hidden_size + shape.padding,
                               .eps = kEps});
  Outputs outputs;
  append(outputs, residual);
  append(outputs, normed);
  append(outputs, rstd);
  return outputs;
}

template <class T, class Run>
Outputs backward(const Shape& shape, const Run& run) {
  const std::vector<T> residual = matrix<T>(shape, 1), normed_grad = matrix<T>(shape, 4),
                       residual_grad = matrix<T>(shape, 5);
  const std::vector<float> weight = numbers<float>(shape.hidden_size, 3);
  std::vector<float> rstd = numbers<float>(shape.num_tokens, 6),
                     weight_grad(static_cast<size_t>(shape.hidden_size), 0.5f),
                     partial(static_cast<size_t>(kResidualRmsNormBlocks * shape.hidden_size));
  std::vector<T> x_grad(static_cast<size_t>(shape.num_tokens * shape.hidden_size));
  const int64_t row_stride = shape.hidden_size + shape.padding;
  run(ResidualRmsNormBackwardParams<T>{.residual = residual.data(),
                                       .weight = weight.data(),
                                       .rstd = rstd.data(),
                                       .normed_grad = normed_grad.data(),
                                       .residual_grad = shape.has_delta ? residual_grad.data() : nullptr,
                                       .x_grad = x_grad.data(),
                                       .weight_grad = weight_grad.data(),
                                       .accumulate_weight_grad = shape.accumulate,
                                       .weight_grad_partial = partial.data(),
                                       .num_tokens = shape.num_tokens,
                                       .hidden_size = shape.hidden_size,
                                       .residual_row_stride = row_stride,
                                       .normed_grad_row_stride = row_stride,
                                       .residual_grad_row_stride = row_stride});
  Outputs outputs;
  append(outputs, x_grad);
  append(outputs, weight_grad);
  return outputs;
}

template <class T>
void check_shape(const Shape& shape) {
  CAPTURE(shape.num_tokens);
  CAPTURE(shape.hidden_size);
  CAPTURE(shape.padding);
  check_every_schedule<T>([&]<class Element>(const auto& run) { return forward<Element>(shape, run); },
                          emulated::residual_rms_norm<T>, residual_rms_norm_reference);
  check_every_schedule<T>([&]<class Element>(const auto& run) { return backward<Element>(shape, run); },
                          emulated::residual_rms_norm_backward<T>, residual_rms_norm_backward_reference);
}

}  // namespace

TEST_SUITE("kernel") {
  TEST_CASE("residual_rms_norm: equals the reference with equal bits under every schedule") {
    for (const Shape& shape : std::initializer_list<Shape>{{1, 1, 0, true, false},
                                                           {3, 31, 2, false, true},
                                                           {2, 32, 0, true, true},
                                                           {2, 33, 7, true, false},
                                                           {5, 257, 0, false, false},
                                                           {2, 64, 8, true, true},
                                                           {300, 64, 0, true, false},
                                                           {1, 3072, 0, true, true},
                                                           {1, 4099, 0, true, false},
                                                           {1, kResidualRmsNormMostColumns, 0, false, false}}) {
      if (kUnderRaceCheck && shape.hidden_size > 300) continue;
      check_shape<float>(shape);
      check_shape<Bf16>(shape);
    }
  }

  TEST_CASE("residual_rms_norm: bytes are those of the table of costs") {
    const Shape shape{2, kUnderRaceCheck ? 256 : 3072, 0, true, false};
    const KernelShape costs{.rows = shape.num_tokens, .hidden_size = shape.hidden_size};
    check_table_bytes(Kernel::residual_rms_norm, costs, [&] {
      forward<Bf16>(shape, [](const auto& params) { emulated::residual_rms_norm<Bf16>(params, nullptr); });
    });
    check_table_bytes(Kernel::residual_rms_norm_backward, costs, [&] {
      backward<Bf16>(shape, [](const auto& params) { emulated::residual_rms_norm_backward<Bf16>(params, nullptr); });
    });
  }

  TEST_CASE("residual_rms_norm: a weight's gradient that is not wanted is not touched") {
    const Shape shape{3, 64, 0, true, true};
    const Outputs wanted = backward<float>(
        shape, [](const auto& params) { emulated::residual_rms_norm_backward<float>(params, nullptr); });
    Outputs expected = wanted;
    std::fill(expected.end() - shape.hidden_size, expected.end(), 0.5f);
    const Outputs unwanted = backward<float>(shape, [](auto params) {
      params.weight_grad = params.weight_grad_partial = nullptr;
      REQUIRE(emulated::residual_rms_norm_backward<float>(params, nullptr) == 0);
    });
    CHECK(same_bits(unwanted, expected));
    CHECK_FALSE(same_bits(unwanted, wanted));
  }

#ifndef COPPICE_RACE_CHECK  // too wide for it
  TEST_CASE("residual_rms_norm: the last of 800,000 rows of 3072") {
    constexpr int64_t kRows = 800'000, kSize = 3072;
    static_assert(kRows * kSize > int64_t{1} << 31);
    const Shape shape{1, kSize, 0, true, false};
    const LastRow<Bf16> x(kRows, kSize), delta(kRows, kSize), residual(kRows, kSize), normed(kRows, kSize);
    x.write_row(matrix<Bf16>(shape, 1));
    delta.write_row(matrix<Bf16>(shape, 2));
    std::vector<float> rstd(kRows);
    executor::run_only_last_block(true);
    const Outputs alone = forward<Bf16>(shape, [&](ResidualRmsNormParams<Bf16> params) {
      Bf16 *const residual_of_one = params.residual, *const normed_of_one = params.normed;
      float* const rstd_of_one = params.rstd;
      params.x = x.data(), params.delta = delta.data(), params.residual = residual.data();
      params.normed = normed.data(), params.rstd = rstd.data(), params.num_tokens = kRows;
      REQUIRE(emulated::residual_rms_norm<Bf16>(params, nullptr) == 0);
      std::copy_n(residual.row(), kSize, residual_of_one);
      std::copy_n(normed.row(), kSize, normed_of_one);
      *rstd_of_one = rstd.back();
    });
    executor::run_only_last_block(false);
    CHECK(same_bits(alone, forward<Bf16>(shape, [](const auto& params) {
                      REQUIRE(emulated::residual_rms_norm<Bf16>(params, nullptr) == 0);
                    })));
    CHECK(rstd.front() == 0.0f);
  }

  TEST_CASE("residual_rms_norm: backward of rows that lie beyond 2^32 elements") {
    // One row a block: the last block has the last row, and the rows of what is read lie far apart.
    constexpr int64_t kRows = kResidualRmsNormBlocks, kSize = 64, kStride = int64_t{1} << 24;
    static_assert((kRows - 1) * kStride > int64_t{1} << 32);
    const Shape shape{1, kSize, 0, true, false};
    const LastRow<Bf16> residual(kRows, kStride), normed_grad(kRows, kStride), residual_grad(kRows, kStride);
    residual.write_row(matrix<Bf16>(shape, 1));
    normed_grad.write_row(matrix<Bf16>(shape, 4));
    residual_grad.write_row(matrix<Bf16>(shape, 5));
    const LastRow<Bf16> x_grad(kRows, kSize);
    std::vector<float> rstd(kRows, numbers<float>(1, 6)[0]);
    executor::run_only_last_block(true);
    const Outputs alone = backward<Bf16>(shape, [&](ResidualRmsNormBackwardParams<Bf16> params) {
      Bf16* const x_grad_of_one = params.x_grad;
      params.residual = residual.data(), params.normed_grad = normed_grad.data();
      params.residual_grad = residual_grad.data(), params.x_grad = x_grad.data(), params.rstd = rstd.data();
      params.residual_row_stride = params.normed_grad_row_stride = params.residual_grad_row_stride = kStride;
      params.num_tokens = kRows, params.weight_grad = nullptr;
      REQUIRE(emulated::residual_rms_norm_backward<Bf16>(params, nullptr) == 0);
      std::copy_n(x_grad.row(), kSize, x_grad_of_one);
    });
    executor::run_only_last_block(false);
    const Outputs expected = backward<Bf16>(shape, [](auto params) {
      params.weight_grad = nullptr;
      REQUIRE(emulated::residual_rms_norm_backward<Bf16>(params, nullptr) == 0);
    });
    CHECK(same_bits(alone, expected));
  }
#endif
}
