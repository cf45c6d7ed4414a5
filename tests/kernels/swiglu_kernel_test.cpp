#include "src/tensors/kernels/swiglu.h"

#include <doctest/doctest.h>

#include "tests/executor/outputs.h"
#include "tests/kernels/every_schedule.h"
#include "tests/kernels/sparse_rows.h"
#include "tests/kernels/table_bytes.h"

using namespace coppice;

namespace {

struct Shape {
  int64_t num_tokens;
  int64_t num_channels;
  int64_t padding;
  bool has_mask;  // and wants its gradient
  bool wants_h;   // in backward
};

/// A kernel is asked for T and, with the same numbers, its reference for float.
template <class T, class Run>
Outputs forward(const Shape& shape, const Run& run) {
  const auto gate_up = rows_of_numbers<T>(shape.num_tokens, 2 * shape.num_channels, shape.padding, 1, 2.0f);
  const auto mask = rows_of_numbers<float>(1, shape.num_channels, 0, 2);
  auto h = guarded<T>(shape.num_tokens * shape.num_channels);
  run(SwigluParams<T>{.gate_up = gate_up.data(),
                      .ffn_mask = shape.has_mask ? mask.data() : nullptr,
                      .h = h.data(),
                      .num_tokens = shape.num_tokens,
                      .num_channels = shape.num_channels,
                      .gate_up_row_stride = 2 * shape.num_channels + shape.padding});
  Outputs outputs;
  append(outputs, h);
  return outputs;
}

template <class T, class Run>
Outputs backward(const Shape& shape, const Run& run) {
  const auto gate_up = rows_of_numbers<T>(shape.num_tokens, 2 * shape.num_channels, shape.padding, 1, 2.0f);
  const auto h_grad = rows_of_numbers<T>(shape.num_tokens, shape.num_channels, shape.padding, 3);
  const auto mask = rows_of_numbers<float>(1, shape.num_channels, 0, 2);
  auto gate_up_grad = guarded<T>(2 * shape.num_tokens * shape.num_channels),
       h = guarded<T>(shape.num_tokens * shape.num_channels);
  auto mask_grad = guarded<float>(shape.num_channels),
       partial = guarded<float>(swiglu_row_groups(shape.num_tokens) * shape.num_channels);
  run(SwigluBackwardParams<T>{.gate_up = gate_up.data(),
                              .ffn_mask = shape.has_mask ? mask.data() : nullptr,
                              .h_grad = h_grad.data(),
                              .gate_up_grad = gate_up_grad.data(),
                              .ffn_mask_grad = shape.has_mask ? mask_grad.data() : nullptr,
                              .h = shape.wants_h ? h.data() : nullptr,
                              .ffn_mask_grad_partial = partial.data(),
                              .num_tokens = shape.num_tokens,
                              .num_channels = shape.num_channels,
                              .gate_up_row_stride = 2 * shape.num_channels + shape.padding,
                              .h_grad_row_stride = shape.num_channels + shape.padding});
  Outputs outputs;
  append(outputs, gate_up_grad);
  append(outputs, mask_grad);
  append(outputs, h);
  partial.erase(partial.begin(), partial.end() - 16);  // what lies behind it
  append(outputs, partial);
  return outputs;
}

template <class T>
void check_shape(const Shape& shape) {
  CAPTURE(shape.num_tokens);
  CAPTURE(shape.num_channels);
  CAPTURE(shape.padding);
  check_every_schedule<T>([&]<class Element>(const auto& run) { return forward<Element>(shape, run); },
                          emulated::swiglu<T>, swiglu_reference);
  check_every_schedule<T>([&]<class Element>(const auto& run) { return backward<Element>(shape, run); },
                          emulated::swiglu_backward<T>, swiglu_backward_reference);
}

}  // namespace

TEST_SUITE("kernel") {
  TEST_CASE("swiglu: equals the reference with equal bits under every schedule") {
    for (const Shape& shape : std::initializer_list<Shape>{{1, 1, 0, true, true},
                                                           {3, 31, 2, false, true},
                                                           {64, 33, 0, true, false},
                                                           {65, 257, 7, true, true},
                                                           {2, 8, 0, false, false},
                                                           {63, 64, 8, true, true},
                                                           {130, 40, 0, true, false},
                                                           {2, 2056, 0, true, true},
                                                           {1, 8064, 16, false, true},
                                                           {3, 8064, 0, true, true},
                                                           {1, 23'296, 0, false, true}}) {
      if (kUnderRaceCheck && shape.num_channels > 300) continue;
      check_shape<float>(shape);
      check_shape<Bf16>(shape);
    }
  }

  TEST_CASE("swiglu: the h of backward has the bits of the forward's") {
    const Shape shape{5, 264, 0, true, true};
    const Outputs h = forward<Bf16>(shape, [](const auto& params) { emulated::swiglu<Bf16>(params, nullptr); });
    const Outputs grads =
        backward<Bf16>(shape, [](const auto& params) { emulated::swiglu_backward<Bf16>(params, nullptr); });
    const auto behind_h = grads.end() - 16;
    CHECK(same_bits(Outputs(behind_h - static_cast<int64_t>(h.size()), behind_h), h));
  }

  TEST_CASE("swiglu: far gates neither overflow nor lose their limit; no row, and the mask's gradient is zero") {
    const std::vector<float> gate_up = {-1e4f, -100.0f, 0.0f, 100.0f, 1e4f, 2.0f, 2.0f, 2.0f, 2.0f, 2.0f},
                             h_grad(5, 1.0f);
    std::vector<float> gate_up_grad(10), h(5), mask_grad(5, 7.0f), partial(5);
    SwigluBackwardParams<float> params{.gate_up = gate_up.data(),
                                       .h_grad = h_grad.data(),
                                       .gate_up_grad = gate_up_grad.data(),
                                       .ffn_mask_grad = mask_grad.data(),
                                       .h = h.data(),
                                       .ffn_mask_grad_partial = partial.data(),
                                       .num_tokens = 1,
                                       .num_channels = 5,
                                       .gate_up_row_stride = 10,
                                       .h_grad_row_stride = 5};
    REQUIRE(emulated::swiglu_backward<float>(params, nullptr) == 0);
    CHECK(h == std::vector<float>{0.0f, 0.0f, 0.0f, 200.0f, 2e4f});
    CHECK(gate_up_grad == std::vector<float>{0.0f, 0.0f, 1.0f, 2.0f, 2.0f, 0.0f, 0.0f, 0.0f, 100.0f, 1e4f});
    CHECK(mask_grad == h);
    params.num_tokens = 0;
    REQUIRE(emulated::swiglu_backward<float>(params, nullptr) == 0);
    CHECK(mask_grad == std::vector<float>(5, 0.0f));
    CHECK(emulated::swiglu<float>({.num_tokens = 0, .num_channels = 5}, nullptr) == 0);
  }

  TEST_CASE("swiglu: bytes of a row, and of the partial rows") {
    constexpr int64_t kRows = kSwigluRows + 1, kChannels = kUnderRaceCheck ? 64 : 2056;
    const auto run_backward = [](bool has_mask, bool wants_h) {
      backward<Bf16>({kRows, kChannels, 0, has_mask, wants_h},
                     [](const auto& params) { emulated::swiglu_backward<Bf16>(params, nullptr); });
    };
    const auto run_forward = [](bool has_mask) {
      forward<Bf16>({kRows, kChannels, 0, has_mask, false},
                    [](const auto& params) { emulated::swiglu<Bf16>(params, nullptr); });
    };
    for (const bool has_mask : {false, true}) {
      const KernelShape shape{.rows = kRows, .ffn_size = kChannels, .ffn_mask = has_mask};
      check_table_bytes(Kernel::swiglu, shape, [&] { run_forward(has_mask); });
      check_table_bytes(Kernel::swiglu_backward, shape, [&] { run_backward(has_mask, false); });
      check_table_bytes(Kernel::swiglu_backward_with_hidden, shape, [&] { run_backward(has_mask, true); });
    }
  }

#ifndef COPPICE_RACE_CHECK  // too wide for it
  TEST_CASE("swiglu: the last rows of more than 2^32 elements") {
    // F of the source; the last group has three rows, its last block the last 768 channels.
    constexpr int64_t kChannels = 23'296, kRows = 64 * 1600 + 3, kLastRows = 3, kFirst = kRows - kLastRows;
    static_assert(kRows * kChannels > int64_t{1} << 31 && kRows * 2 * kChannels > int64_t{1} << 32);
    const auto gate_up_rows = rows_of_numbers<Bf16>(kLastRows, 2 * kChannels, 0, 1, 2.0f),
               h_grad_rows = rows_of_numbers<Bf16>(kLastRows, kChannels, 0, 3);
    const auto mask = rows_of_numbers<float>(1, kChannels, 0, 2);
    SparseRows<Bf16> gate_up(kRows * 2 * kChannels), h_grad(kRows * kChannels), gate_up_grad(kRows * 2 * kChannels),
        h(kRows * kChannels), forward_h(kRows * kChannels);
    SparseRows<float> partial(swiglu_row_groups(kRows) * kChannels), mask_grad(kChannels);
    gate_up.write(kFirst * 2 * kChannels, gate_up_rows);
    h_grad.write(kFirst * kChannels, h_grad_rows);
    executor::run_only_last_block(true);
    const int forward_error = emulated::swiglu<Bf16>({.gate_up = gate_up.data(),
                                                      .ffn_mask = mask.data(),
                                                      .h = forward_h.data(),
                                                      .num_tokens = kRows,
                                                      .num_channels = kChannels,
                                                      .gate_up_row_stride = 2 * kChannels},
                                                     nullptr);
    const int backward_error = emulated::swiglu_backward<Bf16>({.gate_up = gate_up.data(),
                                                                .ffn_mask = mask.data(),
                                                                .h_grad = h_grad.data(),
                                                                .gate_up_grad = gate_up_grad.data(),
                                                                .ffn_mask_grad = mask_grad.data(),
                                                                .h = h.data(),
                                                                .ffn_mask_grad_partial = partial.data(),
                                                                .num_tokens = kRows,
                                                                .num_channels = kChannels,
                                                                .gate_up_row_stride = 2 * kChannels,
                                                                .h_grad_row_stride = kChannels},
                                                               nullptr);
    executor::run_only_last_block(false);
    REQUIRE((forward_error == 0 && backward_error == 0));
    // Those rows alone, of which the last block must have left the last channels.
    const Outputs expected = backward<float>({kLastRows, kChannels, 0, true, true},
                                             [](const auto& params) { swiglu_backward_reference(params); });
    constexpr int64_t kDone = kChannels % 2048, kSkipped = kChannels - kDone;
    static_assert(kDone == 768);
    const auto part = [&](int64_t at, int64_t count) {
      return std::vector<double>(expected.begin() + at, expected.begin() + at + count);
    };
    const auto error_in = [&](const SparseRows<Bf16>& left, int64_t at, int64_t of_expected) {
      Outputs outputs;
      append(outputs, left.read(at, kDone));
      return error_of(outputs, part(of_expected, kDone));
    };
    constexpr int64_t kMaskGrad = kLastRows * 2 * kChannels + 16, kH = kMaskGrad + kChannels + 16;  // in `expected`
    for (int64_t row = 0; row < kLastRows; ++row) {
      CHECK(error_in(h, (kFirst + row) * kChannels + kSkipped, kH + row * kChannels + kSkipped) < 0x1p-8);
      CHECK(error_in(forward_h, (kFirst + row) * kChannels + kSkipped, kH + row * kChannels + kSkipped) < 0x1p-8);
      for (const int64_t half : {int64_t{0}, kChannels})
        CHECK(error_in(gate_up_grad, (kFirst + row) * 2 * kChannels + half + kSkipped,
                       row * 2 * kChannels + half + kSkipped) < 0x1p-8);
    }
    CHECK(error_of(mask_grad.read(kChannels - 32, 32), part(kMaskGrad + kChannels - 32, 32)) < 2e-6);
  }
#endif
}
