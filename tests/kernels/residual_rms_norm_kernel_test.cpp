#include "src/tensors/kernels/residual_rms_norm.h"

#include <doctest/doctest.h>

#include "src/tensors/kernels/kernel_costs.h"
#include "tests/executor/outputs.h"
#include "tests/kernels/every_schedule.h"

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
  const auto kernel = [](const auto& params) { REQUIRE(emulated::residual_rms_norm<T>(params, nullptr) == 0); };
  check_every_schedule<T>([&] { return forward<T>(shape, kernel); },
                          forward<float>(shape, [](const auto& params) { residual_rms_norm_reference(params); }));
  const auto backward_kernel = [](const auto& params) {
    REQUIRE(emulated::residual_rms_norm_backward<T>(params, nullptr) == 0);
  };
  check_every_schedule<T>(
      [&] { return backward<T>(shape, backward_kernel); },
      backward<float>(shape, [](const auto& params) { residual_rms_norm_backward_reference(params); }));
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
    const auto check = [&](Kernel kernel, const auto& run) {
      executor::reset_counts();
      run();
      const KernelBytes bytes = cost_of(kernel).bytes({.rows = shape.num_tokens, .hidden_size = shape.hidden_size});
      CHECK(executor::counts().bytes_loaded == bytes.loaded);
      CHECK(executor::counts().bytes_stored == bytes.stored);
    };
    check(Kernel::residual_rms_norm, [&] {
      forward<Bf16>(shape, [](const auto& params) { emulated::residual_rms_norm<Bf16>(params, nullptr); });
    });
    check(Kernel::residual_rms_norm_backward, [&] {
      backward<Bf16>(shape, [](const auto& params) { emulated::residual_rms_norm_backward<Bf16>(params, nullptr); });
    });
  }
}
