#include "src/tensors/kernels/qk_norm_rope.h"

#include <doctest/doctest.h>

#include <cmath>

#include "tests/executor/outputs.h"
#include "tests/kernels/every_schedule.h"
#include "tests/kernels/sparse_rows.h"
#include "tests/kernels/table_bytes.h"

using namespace coppice;

namespace {

constexpr float kEps = 1e-6f;

struct Shape {
  int64_t num_tokens;
  int64_t num_heads;
  int64_t num_kv_heads;
  int64_t head_size;
  int64_t padding;
  bool normalises;
  bool copies_values;  // forward
  bool wants_weights;  // backward
  bool accumulate;

  int64_t num_rotated() const { return num_heads + num_kv_heads; }
  int64_t width() const { return (num_heads + 2 * num_kv_heads) * head_size; }
};

/// Frequencies of which no two neighbours follow one law, as a scaled table has them.
std::shared_ptr<const RopeTable> table_of(const Shape& shape, int64_t largest_position) {
  std::vector<double> frequencies;
  for (int64_t i = 0; i < shape.head_size / 2; ++i)
    frequencies.push_back(std::pow(1e4, -2.0 * static_cast<double>(i) / static_cast<double>(shape.head_size)) /
                          (i % 3 == 1 ? 8.0 : 1.0));
  return rope_table(frequencies, largest_position);
}

/// The projection: no number near zero, so that a head of two has no large rstd.
template <class T>
std::vector<T> projection(const Shape& shape) {
  std::vector<T> rows;
  for (int64_t n = 0, i = 0; n < shape.num_tokens; ++n)
    for (int64_t column = 0; column < shape.width() + shape.padding; ++column, ++i)
      rows.push_back(element<T>(
          column < shape.width() ? to_float(to_bf16(std::copysign(0.5f + 0.5f * std::fabs(number(i, 1)), number(i, 2))))
                                 : std::numeric_limits<float>::quiet_NaN()));
  return rows;
}

struct Shared {
  explicit Shared(const Shape& shape) : position(static_cast<size_t>(shape.num_tokens)) {
    for (int64_t n = 0; n < shape.num_tokens; ++n) position[static_cast<size_t>(n)] = 5 * n % 37 + 3;
    table = table_of(shape, 40);
    q_weight = rows_of_numbers<float>(1, shape.head_size, 0, 2);
    k_weight = rows_of_numbers<float>(1, shape.head_size, 0, 3);
  }
  std::vector<int64_t> position;
  std::shared_ptr<const RopeTable> table;
  std::vector<float> q_weight, k_weight;
};

/// A kernel is asked for T and, with the same numbers, its reference for float.
template <class T, class Run>
Outputs forward(const Shape& shape, const Run& run) {
  const Shared shared(shape);
  const auto qkv = projection<T>(shape);
  const int64_t out_width = shape.width() - (shape.copies_values ? 0 : shape.num_kv_heads * shape.head_size);
  auto out = guarded<T>(shape.num_tokens * out_width);
  run(QkNormRopeParams<T>{.qkv = qkv.data(),
                          .q_weight = shape.normalises ? shared.q_weight.data() : nullptr,
                          .k_weight = shape.normalises ? shared.k_weight.data() : nullptr,
                          .position = shared.position.data(),
                          .cos = shared.table->cos.data(),
                          .sin = shared.table->sin.data(),
                          .out = out.data(),
                          .copies_values = shape.copies_values,
                          .num_tokens = shape.num_tokens,
                          .num_heads = shape.num_heads,
                          .num_kv_heads = shape.num_kv_heads,
                          .head_size = shape.head_size,
                          .qkv_row_stride = shape.width() + shape.padding,
                          .eps = kEps});
  Outputs outputs;
  append(outputs, out);
  return outputs;
}

template <class T, class Run>
Outputs backward(const Shape& shape, const Run& run) {
  const Shared shared(shape);
  const auto qkv = projection<T>(shape);
  const int64_t q_width = shape.num_heads * shape.head_size, kv_width = shape.num_kv_heads * shape.head_size;
  const auto q_grad = rows_of_numbers<T>(shape.num_tokens, q_width, shape.padding, 4),
             k_grad = rows_of_numbers<T>(shape.num_tokens, kv_width, 2 * shape.padding, 5),
             v_grad = rows_of_numbers<T>(shape.num_tokens, kv_width, 3 * shape.padding, 6);
  auto qkv_grad = guarded<T>(shape.num_tokens * shape.width());
  auto q_weight_grad = guarded<float>(shape.head_size), k_weight_grad = guarded<float>(shape.head_size);
  auto partial = guarded<float>(2 * qk_norm_rope_partial_rows(shape.num_heads, shape.num_kv_heads, shape.head_size) *
                                shape.head_size);
  const bool wants_weights = shape.normalises && shape.wants_weights;
  run(QkNormRopeBackwardParams<T>{.qkv = shape.normalises ? qkv.data() : nullptr,
                                  .q_weight = shape.normalises ? shared.q_weight.data() : nullptr,
                                  .k_weight = shape.normalises ? shared.k_weight.data() : nullptr,
                                  .position = shared.position.data(),
                                  .cos = shared.table->cos.data(),
                                  .sin = shared.table->sin.data(),
                                  .q_grad = q_grad.data(),
                                  .k_grad = k_grad.data(),
                                  .v_grad = v_grad.data(),
                                  .qkv_grad = qkv_grad.data(),
                                  .q_weight_grad = wants_weights ? q_weight_grad.data() : nullptr,
                                  .k_weight_grad = wants_weights ? k_weight_grad.data() : nullptr,
                                  .accumulate_weight_grad = shape.accumulate,
                                  .weight_grad_partial = wants_weights ? partial.data() : nullptr,
                                  .num_tokens = shape.num_tokens,
                                  .num_heads = shape.num_heads,
                                  .num_kv_heads = shape.num_kv_heads,
                                  .head_size = shape.head_size,
                                  .qkv_row_stride = shape.width() + shape.padding,
                                  .q_grad_row_stride = q_width + shape.padding,
                                  .k_grad_row_stride = kv_width + 2 * shape.padding,
                                  .v_grad_row_stride = kv_width + 3 * shape.padding,
                                  .eps = kEps});
  Outputs outputs;
  append(outputs, qkv_grad);
  append(outputs, q_weight_grad);
  append(outputs, k_weight_grad);
  partial.erase(partial.begin(), partial.end() - 16);  // what lies behind it
  append(outputs, partial);
  return outputs;
}

template <class T>
void check_shape(const Shape& shape) {
  CAPTURE(shape.num_tokens);
  CAPTURE(shape.num_heads);
  CAPTURE(shape.head_size);
  CAPTURE(shape.padding);
  check_every_schedule<T>([&]<class Element>(const auto& run) { return forward<Element>(shape, run); },
                          emulated::qk_norm_rope<T>, qk_norm_rope_reference);
  check_every_schedule<T>([&]<class Element>(const auto& run) { return backward<Element>(shape, run); },
                          emulated::qk_norm_rope_backward<T>, qk_norm_rope_backward_reference);
}

}  // namespace

TEST_SUITE("kernel") {
  TEST_CASE("qk_norm_rope: equals the reference with equal bits under every schedule") {
    for (const Shape& shape :
         std::initializer_list<Shape>{{1, 1, 1, 2, 0, true, true, true, false},
                                      {3, 3, 1, 6, 1, true, false, true, true},
                                      {2, 2, 2, 18, 0, false, true, true, false},
                                      {2, 5, 1, 32, 8, true, true, false, false},
                                      {530, 1, 1, 16, 0, true, false, true, true},
                                      {2, 3, 3, 48, 0, true, true, true, false},
                                      {2, 3, 1, 80, 3, false, false, true, false},
                                      {2, 2, 1, 96, 16, true, false, true, true},
                                      {1, 2, 1, 256, 0, false, true, true, false},
                                      {2, 2, 1, 256, 8, true, false, true, false},
                                      {1, 1, 1, kQkNormRopeMostHeadSize, 0, true, true, true, false},
                                      {2, 24, 8, 128, 0, true, false, true, false}}) {
      if (kUnderRaceCheck && shape.width() > 100) continue;
      check_shape<float>(shape);
      if (shape.head_size % 16 == 0) check_shape<Bf16>(shape);  // the others' instance is that of one element
    }
  }

#ifndef COPPICE_RACE_CHECK  // too wide for it
  TEST_CASE("qk_norm_rope: more heads than a block has threads for") {
    const Shape shape{2, 57, 8, 128, 0, true, true, true, false};
    REQUIRE(qk_norm_rope_shares(shape.num_rotated(), shape.head_size).head_groups == 2);
    const Outputs outputs = backward<float>(
        shape, [](const auto& params) { REQUIRE(emulated::qk_norm_rope_backward<float>(params, nullptr) == 0); });
    const Outputs expected =
        backward<float>(shape, [](const auto& params) { qk_norm_rope_backward_reference(params); });
    CHECK(error_of(outputs, std::vector<double>(expected.begin(), expected.end())) < 2e-6);
    check_every_schedule<Bf16>(
        [&] {
          return forward<Bf16>(shape,
                               [](const auto& params) { REQUIRE(emulated::qk_norm_rope<Bf16>(params, nullptr) == 0); });
        },
        forward<float>(shape, [](const auto& params) { qk_norm_rope_reference(params); }));
  }
#endif

  TEST_CASE("qk_norm_rope: shares of threads, and rows of partial gradients") {
    const auto shares = [](int64_t num_rotated, int64_t head_size) {
      const QkNormRopeShares of = qk_norm_rope_shares(num_rotated, head_size);
      return std::vector<int64_t>{int64_t{1} << of.log2_lanes, of.heads, of.head_groups};
    };
    CHECK(shares(32, 128) == std::vector<int64_t>{8, 32, 1});
    CHECK(shares(72, 128) == std::vector<int64_t>{8, 36, 2});
    CHECK(shares(4, 2) == std::vector<int64_t>{1, 4, 1});
    CHECK(shares(4, 80) == std::vector<int64_t>{8, 4, 1});
    CHECK(shares(17, 512) == std::vector<int64_t>{32, 9, 2});
    CHECK(qk_norm_rope_partial_rows(64, 8, 128) == 2 * kQkNormRopeBlocks);
  }

  TEST_CASE("qk_norm_rope: no token leaves the weights' gradients zero, or as they were") {
    const Shape shape{0, 2, 1, 16, 0, true, true, true, false};
    const auto kernel = [](const auto& params) { emulated::qk_norm_rope_backward<float>(params, nullptr); };
    CHECK(backward<float>(shape, kernel)[16] == 0.0f);  // behind the sentinels of the projection's gradient
    Shape added = shape;
    added.accumulate = true;
    CHECK(backward<float>(added, kernel)[16] == 42.0f);
    CHECK(emulated::qk_norm_rope<float>({.num_heads = 2, .num_kv_heads = 1, .head_size = 16}, nullptr) == 0);
  }

  TEST_CASE("qk_norm_rope: bytes of a row, of the table and the weights, and of the partial rows") {
    constexpr int64_t kRows = 3, kHeads = kUnderRaceCheck ? 2 : 24, kKvHeads = kUnderRaceCheck ? 1 : 8,
                      kSize = kUnderRaceCheck ? 16 : 128;
    constexpr int64_t kRotated = (kHeads + kKvHeads) * kSize, kValues = kKvHeads * kSize;
    const auto bytes_of = [](const auto& run) {
      executor::reset_counts();
      run();
      return std::pair(executor::counts().bytes_loaded, executor::counts().bytes_stored);
    };
    const auto of_forward = [&](bool normalises, bool copies_values) {
      return bytes_of([&] {
        forward<Bf16>({kRows, kHeads, kKvHeads, kSize, 0, normalises, copies_values, true, false},
                      [](const auto& params) { emulated::qk_norm_rope<Bf16>(params, nullptr); });
      });
    };
    const auto of_backward = [&](bool normalises, bool wants_weights) {
      return bytes_of([&] {
        backward<Bf16>({kRows, kHeads, kKvHeads, kSize, 0, normalises, true, wants_weights, false},
                       [](const auto& params) { emulated::qk_norm_rope_backward<Bf16>(params, nullptr); });
      });
    };
    constexpr int64_t kTable = 4 * kRotated, kWeights = 4 * kRotated;  // of a row, of a row or block
    const KernelShape shape{
        .rows = kRows, .query_size = kHeads * kSize, .key_value_size = kKvHeads * kSize, .head_size = kSize};
    check_table_bytes(Kernel::qk_norm_rope, shape, [&] { of_forward(true, false); });
    CHECK(of_forward(false, false) == std::pair(kRows * (2 * kRotated + kTable), kRows * 2 * kRotated));
    CHECK(of_forward(true, true) ==
          std::pair(kRows * (2 * (kRotated + kValues) + kTable + kWeights), kRows * 2 * (kRotated + kValues)));
    constexpr int64_t kOfBlocks = kQkNormRopeBlocks * kWeights;
    CHECK(of_backward(false, true) ==
          std::pair(kRows * (2 * (kRotated + kValues) + kTable), kRows * 2 * (kRotated + kValues)));
    CHECK(of_backward(true, false) ==
          std::pair(kRows * (4 * kRotated + 2 * kValues + kTable) + kOfBlocks, kRows * 2 * (kRotated + kValues)));
    check_table_bytes(Kernel::qk_norm_rope_backward, shape, [&] { of_backward(true, true); });
  }

#ifndef COPPICE_RACE_CHECK  // too wide for it
  TEST_CASE("qk_norm_rope: the last row of more than 2^31 elements") {
    // The student's heads; the last block of the backward takes 800 rows, of which all but the last are zero.
    constexpr int64_t kHeads = 24, kKvHeads = 8, kSize = 128, kWidth = (kHeads + 2 * kKvHeads) * kSize,
                      kRotated = (kHeads + kKvHeads) * kSize, kValues = kKvHeads * kSize,
                      kRows = 1000 * kQkNormRopeBlocks, kGradStride = 8192;
    static_assert(kRows * kRotated > int64_t{1} << 31 && kRows * kGradStride > int64_t{1} << 32);
    const Shape last{1, kHeads, kKvHeads, kSize, 0, true, true, true, false};
    const Shared shared(last);
    std::vector<int64_t> position(kRows);
    position.back() = shared.position[0];
    SparseRows<Bf16> qkv(kRows * kWidth);
    qkv.write((kRows - 1) * kWidth, projection<Bf16>(last));
    QkNormRopeParams<Bf16> params{.qkv = qkv.data(),
                                  .q_weight = shared.q_weight.data(),
                                  .k_weight = shared.k_weight.data(),
                                  .position = position.data(),
                                  .cos = shared.table->cos.data(),
                                  .sin = shared.table->sin.data(),
                                  .copies_values = false,
                                  .num_tokens = kRows,
                                  .num_heads = kHeads,
                                  .num_kv_heads = kKvHeads,
                                  .head_size = kSize,
                                  .qkv_row_stride = kWidth,
                                  .eps = kEps};
    SparseRows<Bf16> out(kRows * kRotated), q_grad(kRows * kGradStride), k_grad(kRows * kGradStride),
        v_grad(kRows * kGradStride), qkv_grad(kRows * kWidth);
    params.out = out.data();
    q_grad.write((kRows - 1) * kGradStride, rows_of_numbers<Bf16>(1, kHeads * kSize, 0, 4));
    k_grad.write((kRows - 1) * kGradStride, rows_of_numbers<Bf16>(1, kValues, 0, 5));
    v_grad.write((kRows - 1) * kGradStride, rows_of_numbers<Bf16>(1, kValues, 0, 6));
    std::vector<float> weight_grads(2 * kSize), partial(2 * kQkNormRopeBlocks * kSize);
    executor::run_only_last_block(true);
    const int forward_error = emulated::qk_norm_rope<Bf16>(params, nullptr);
    const int backward_error = emulated::qk_norm_rope_backward<Bf16>({.qkv = params.qkv,
                                                                      .q_weight = params.q_weight,
                                                                      .k_weight = params.k_weight,
                                                                      .position = params.position,
                                                                      .cos = params.cos,
                                                                      .sin = params.sin,
                                                                      .q_grad = q_grad.data(),
                                                                      .k_grad = k_grad.data(),
                                                                      .v_grad = v_grad.data(),
                                                                      .qkv_grad = qkv_grad.data(),
                                                                      .q_weight_grad = weight_grads.data(),
                                                                      .k_weight_grad = weight_grads.data() + kSize,
                                                                      .weight_grad_partial = partial.data(),
                                                                      .num_tokens = kRows,
                                                                      .num_heads = kHeads,
                                                                      .num_kv_heads = kKvHeads,
                                                                      .head_size = kSize,
                                                                      .qkv_row_stride = kWidth,
                                                                      .q_grad_row_stride = kGradStride,
                                                                      .k_grad_row_stride = kGradStride,
                                                                      .v_grad_row_stride = kGradStride,
                                                                      .eps = kEps},
                                                                     nullptr);
    executor::run_only_last_block(false);
    REQUIRE((forward_error == 0 && backward_error == 0));
    const auto part = [](const Outputs& outputs, int64_t at, int64_t count) {
      return std::vector<double>(outputs.begin() + at, outputs.begin() + at + count);
    };
    const auto row_of = [](const SparseRows<Bf16>& rows, int64_t at, int64_t count) {
      Outputs outputs;
      append(outputs, rows.read(at, count));
      return outputs;
    };
    const Outputs expected = forward<float>(last, [](const auto& params) { qk_norm_rope_reference(params); });
    CHECK(error_of(row_of(out, (kRows - 1) * kRotated, kRotated), part(expected, 0, kRotated)) < 0x1p-8);
    const Outputs grads = backward<float>(last, [](const auto& params) { qk_norm_rope_backward_reference(params); });
    CHECK(error_of(row_of(qkv_grad, (kRows - 1) * kWidth, kWidth), part(grads, 0, kWidth)) < 0x1p-8);
    // The second launch's last block takes the last 32 columns of each weight.
    for (const int64_t weight : {0, 1}) {
      const Outputs left(weight_grads.begin() + (weight + 1) * kSize - 32, weight_grads.begin() + (weight + 1) * kSize);
      CHECK(error_of(left, part(grads, kWidth + 16 + weight * (kSize + 16) + kSize - 32, 32)) < 2e-6);
    }
  }
#endif
}
