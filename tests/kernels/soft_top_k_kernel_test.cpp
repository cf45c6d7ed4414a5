#include "src/tensors/kernels/soft_top_k.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <functional>

#include "tests/executor/outputs.h"
#include "tests/kernels/every_schedule.h"
#include "tests/kernels/last_row.h"
#include "tests/kernels/table_bytes.h"

using namespace coppice;

namespace {

constexpr int64_t kGuard = 4;  // floats in front of an output and behind it
constexpr float kSentinel = -7.0f;

struct Problem {
  int64_t num_rows;
  int64_t num_channels;
  int64_t padding;  // of a row's end, full of NaN
  double k;
  double epsilon;
  std::function<float(int64_t i)> score = [](int64_t i) { return 3.0f * number(i, 1); };

  int64_t stride() const { return num_channels + padding; }
  std::vector<float> scores() const {
    std::vector<float> scores(static_cast<size_t>(num_rows * stride()), std::numeric_limits<float>::quiet_NaN());
    for (int64_t i = 0; i < num_rows * num_channels; ++i)
      scores[static_cast<size_t>(i / num_channels * stride() + i % num_channels)] = score(i);
    return scores;
  }
  std::vector<float> guarded() const {
    return std::vector<float>(static_cast<size_t>(num_rows * num_channels + 2 * kGuard), kSentinel);
  }
  SoftTopKSolution solution(int64_t row) const {
    const std::vector<float> all = scores();
    const auto begin = all.begin() + row * stride();
    return soft_top_k_reference(std::vector<double>(begin, begin + num_channels), k, epsilon);
  }
};

/// Mask, free mask, number of bad scores.
Outputs forward(const Problem& problem, bool with_free = true) {
  const std::vector<float> scores = problem.scores();
  std::vector<float> soft_mask = problem.guarded(), free_mask = problem.guarded();
  std::vector<int32_t> num_bad(static_cast<size_t>(problem.num_rows), -1);
  REQUIRE(emulated::soft_top_k({.scores = scores.data(),
                                .soft_mask = soft_mask.data() + kGuard,
                                .free_mask = with_free ? free_mask.data() + kGuard : nullptr,
                                .num_bad = num_bad.data(),
                                .num_rows = problem.num_rows,
                                .num_channels = problem.num_channels,
                                .scores_row_stride = problem.stride(),
                                .k = problem.k,
                                .epsilon = problem.epsilon},
                               nullptr) == 0);
  Outputs outputs(soft_mask);
  append(outputs, free_mask);
  for (const int32_t bad : num_bad) outputs.push_back(static_cast<float>(bad));
  return outputs;
}

Outputs forward_reference(const Problem& problem) {
  std::vector<float> soft_mask = problem.guarded(), free_mask = problem.guarded();
  for (int64_t row = 0; row < problem.num_rows; ++row) {
    const SoftTopKSolution solution = problem.solution(row);
    for (int64_t f = 0; f < problem.num_channels; ++f) {
      const auto from = static_cast<size_t>(f), to = static_cast<size_t>(kGuard + row * problem.num_channels + f);
      soft_mask[to] = static_cast<float>(solution.soft_mask[from]);
      free_mask[to] = solution.saturated[from] ? 0.0f : soft_mask[to];
    }
  }
  Outputs outputs(soft_mask);
  append(outputs, free_mask);
  outputs.resize(outputs.size() + static_cast<size_t>(problem.num_rows), 0.0f);
  return outputs;
}

Outputs backward(const Problem& problem, const std::vector<float>& free_mask, const std::vector<float>& grad) {
  std::vector<float> scores_grad = problem.guarded();
  REQUIRE(emulated::soft_top_k_backward({.free_mask = free_mask.data(),
                                         .soft_mask_grad = grad.data(),
                                         .scores_grad = scores_grad.data() + kGuard,
                                         .num_rows = problem.num_rows,
                                         .num_channels = problem.num_channels,
                                         .epsilon = problem.epsilon},
                                        nullptr) == 0);
  return scores_grad;
}

void check(const Problem& problem) {
  CAPTURE(problem.num_channels);
  CAPTURE(problem.k);
  CAPTURE(problem.epsilon);
  const Outputs reference = forward_reference(problem);
  check_every_schedule<float>([&] { return forward(problem); }, reference);
  const Outputs masks = forward(problem), without = forward(problem, false);
  const auto size = static_cast<size_t>(problem.num_rows * problem.num_channels), behind = size + 2 * kGuard;
  CHECK(std::equal(masks.begin(), masks.begin() + static_cast<int64_t>(behind), without.begin()));
  for (int64_t row = 0; row < problem.num_rows; ++row) {
    const auto begin = masks.begin() + kGuard + row * problem.num_channels;
    double sum = 0;
    std::for_each(begin, begin + problem.num_channels, [&](float lambda) { sum += lambda; });
    CHECK(std::fabs(sum - problem.k) <= 1e-6 * problem.k);
  }

  // backward of the very mask that forward left
  const std::vector<float> free_mask(
      masks.begin() + static_cast<int64_t>(behind) + kGuard,
      masks.begin() + static_cast<int64_t>(behind) + kGuard + static_cast<int64_t>(size)),
      grad = numbers<float>(static_cast<int64_t>(size), 2);
  Outputs slope = problem.guarded();
  for (int64_t row = 0; row < problem.num_rows; ++row) {
    const auto first = static_cast<size_t>(row * problem.num_channels),
               count = static_cast<size_t>(problem.num_channels);
    SoftTopKSolution solution;
    for (size_t f = first; f < first + count; ++f) {
      solution.soft_mask.push_back(free_mask[f]);
      solution.saturated.push_back(free_mask[f] == 0.0f);
    }
    const std::vector<double> of_row =
        soft_top_k_backward_reference(solution,
                                      std::vector<double>(grad.begin() + static_cast<int64_t>(first),
                                                          grad.begin() + static_cast<int64_t>(first + count)),
                                      problem.epsilon);
    std::transform(of_row.begin(), of_row.end(), slope.begin() + kGuard + static_cast<int64_t>(first),
                   [](double value) { return static_cast<float>(value); });
  }
  check_every_schedule<float>([&] { return backward(problem, free_mask, grad); }, slope);
}

}  // namespace

TEST_SUITE("kernel") {
  TEST_CASE("soft_top_k: equals the sorted reference both ways, with equal bits under every schedule") {
    for (const Problem& problem : std::initializer_list<Problem>{{1, 1, 0, 0.5, 0.1},
                                                                 {2, 1, 3, 1.0, 0.1},
                                                                 {3, 2, 0, 1.5, 1.0},
                                                                 {2, 31, 2, 7.0, 0.3},
                                                                 {3, 32, 0, 11.0, 0.05},
                                                                 {2, 33, 7, 13.3, 2.0},
                                                                 {2, 128, 4, 128.0, 0.1},
                                                                 {2, 257, 0, 0.01, 0.02},
                                                                 {2, 260, 4, 259.5, 0.002},
                                                                 {1, 2051, 0, 700.0, 0.05},
                                                                 {1, 3072, 0, 1365.0, 0.05},
                                                                 {1, 8064, 0, 2688.0, 10.0},
                                                                 {1, 23296, 0, 8064.0, 0.02},
                                                                 {1, kSoftTopKColumnsHeld, 0, 8192.0, 0.05},
                                                                 {1, kSoftTopKColumnsHeld + 3, 0, 9000.5, 0.05},
                                                                 {1, kSoftTopKColumnsHeld + 4, 0, 9000.5, 0.05}}) {
      if (kUnderRaceCheck && problem.num_channels > 300) continue;
      check(problem);
    }
  }

  TEST_CASE("soft_top_k: skewed, equal and huge scores") {
    const auto skewed = [](int64_t i) { return std::exp(9.0f * number(i, 3)); };
    const auto tied = [](int64_t i) { return static_cast<float>(i % 7); };
    const auto equal = [](int64_t) { return 0.25f; };
    // the longest way for the bisection
    const auto far = [](int64_t i) { return i == 17 ? 1e38f : i == 18 ? -1e38f : 0.25f; };
    // one entry far above the ceil(k)-th that does not saturate
    const auto alone = [](int64_t i) { return i == 99 ? 6.0f : 0.0f; };
    // each entry on its own scale: the longest way for Newton
    const auto geometric = [](int64_t i) { return -0.7f * static_cast<float>(i); };
    // no threshold in double is near enough
    const auto at_1e17 = [](int64_t i) { return i == 1 ? 0.0f : 1e17f; };
    // the free entry that is next to the threshold rounds to 1
    const auto next_to = [](int64_t i) { return i == 0 ? 40.0f : i == 1 ? 1.0f : -24.0f; };
    for (const Problem& problem : std::initializer_list<Problem>{{1, 280, 0, 1.0, 0.5, skewed},
                                                                 {1, 280, 0, 170.0, 0.5, skewed},
                                                                 {1, 280, 0, 1e-6, 0.1, skewed},
                                                                 {1, 280, 0, 1.0, 0.01, tied},
                                                                 {1, 280, 0, 100.0, 0.01, tied},
                                                                 {1, 280, 0, 279.5, 0.01, tied},
                                                                 {1, 280, 0, 1e-3, 0.002, equal},
                                                                 {1, 280, 0, 93.0, 0.002, equal},
                                                                 {1, 280, 0, 2.0, 0.002, far},
                                                                 {1, 280, 0, 279.0, 0.002, far},
                                                                 {1, 280, 0, 1.5, 1.0, alone},
                                                                 {1, 120, 0, 40.0, 0.3, geometric},
                                                                 {1, 120, 0, 80.5, 0.3, geometric},
                                                                 {1, 3, 0, 1.5, 1.0, at_1e17},
                                                                 {1, 4, 0, 2.0, 1.0, next_to},
                                                                 // thresholds that exponentials in float do not reach
                                                                 {1, 280, 0, 1e-36, 1.0, equal},
                                                                 {1, 33, 0, 1e-36, 0.1, tied}})
      check(problem);
    const Outputs masks = forward({1, 4, 0, 2.0, 1.0, next_to});
    CHECK(masks[kGuard] == 1.0f);
    CHECK(masks[kGuard + 1] == 1.0f);
    CHECK(masks[12 + kGuard] == 0.0f);  // saturated
    CHECK(masks[12 + kGuard + 1] == 1.0f);
  }

  TEST_CASE("soft_top_k: k = F is all ones and free of gradient; a bad row says so and leaves its neighbours alone") {
    const Problem whole{2, 33, 0, 33.0, 0.1};
    CHECK(forward(whole) == forward_reference(whole));
    const auto broken = [](int64_t i) {
      if (i == 33 + 4) return std::numeric_limits<float>::infinity();
      if (i == 33 + 7) return std::nanf("");
      return i == 33 + 8 ? -2e38f : number(i, 1);
    };
    const Problem problem{3, 33, 1, 7.0, 0.1, broken};
    const Outputs masks = forward(problem);
    const size_t behind = 3 * 33 + 2 * kGuard;
    for (size_t f = 0; f < 33; ++f)
      for (const size_t start : {size_t{kGuard}, behind + kGuard}) {
        CHECK(std::isfinite(masks[start + f]));
        CHECK(std::isnan(masks[start + 33 + f]));
        CHECK(std::isfinite(masks[start + 66 + f]));
      }
    CHECK(std::vector<float>(masks.end() - 3, masks.end()) == std::vector<float>{0.0f, 3.0f, 0.0f});
    REQUIRE(masks[behind - 1] == kSentinel);
  }

  TEST_CASE("soft_top_k: bytes of a row") {
    constexpr int64_t kRows = 2, kSize = kUnderRaceCheck ? 256 : 3072;
    const Problem problem{kRows, kSize, 0, kSize / 3.0, 0.05};
    const KernelShape shape{.rows = kRows, .ffn_size = kSize};
    check_table_bytes(Kernel::soft_top_k, shape, [&] { forward(problem); });
    CHECK(executor::counts().launches == 1);
    executor::reset_counts();
    forward(problem, false);
    CHECK(executor::counts().bytes_loaded == kRows * 4 * kSize);
    CHECK(executor::counts().bytes_stored == kRows * (4 * kSize + 4));
    const std::vector<float> values = numbers<float>(kRows * kSize, 1);
    check_table_bytes(Kernel::soft_top_k_backward, shape, [&] { backward(problem, values, values); });
    CHECK(executor::counts().launches == 1);
  }

#ifndef COPPICE_RACE_CHECK  // too wide for it
  TEST_CASE("soft_top_k: offsets beyond 32 bits") {
    constexpr int64_t kRows = 88'000, kSize = kSoftTopKColumnsHeld;
    static_assert(kRows * kSize > int64_t{1} << 31);
    const Problem problem{1, kSize, 0, 8192.0, 0.05};
    const LastRow<float> scores(kRows, kSize), soft_mask(kRows, kSize), free_mask(kRows, kSize);
    const std::vector<float> grad = numbers<float>(kSize, 2);
    scores.write_row(problem.scores());
    std::vector<int32_t> num_bad(kRows, -1);
    executor::run_only_last_block(true);
    emulated::soft_top_k({.scores = scores.data(),
                          .soft_mask = soft_mask.data(),
                          .free_mask = free_mask.data(),
                          .num_bad = num_bad.data(),
                          .num_rows = kRows,
                          .num_channels = kSize,
                          .scores_row_stride = kSize,
                          .k = problem.k,
                          .epsilon = problem.epsilon},
                         nullptr);
    executor::run_only_last_block(false);
    CHECK(num_bad.front() == -1);
    CHECK(num_bad.back() == 0);
    const Outputs masks = forward(problem);
    CHECK(std::equal(soft_mask.row(), soft_mask.row() + kSize, masks.begin() + kGuard));
    const auto free_begin = masks.begin() + 3 * kGuard + kSize;
    CHECK(std::equal(free_mask.row(), free_mask.row() + kSize, free_begin));

    const Outputs slope = backward(problem, {free_begin, free_begin + kSize}, grad);
    soft_mask.write_row(grad);
    executor::run_only_last_block(true);
    emulated::soft_top_k_backward({.free_mask = free_mask.data(),
                                   .soft_mask_grad = soft_mask.data(),
                                   .scores_grad = scores.data(),
                                   .num_rows = kRows,
                                   .num_channels = kSize,
                                   .epsilon = problem.epsilon},
                                  nullptr);
    executor::run_only_last_block(false);
    CHECK(std::equal(scores.row(), scores.row() + kSize, slope.begin() + kGuard));
  }
#endif
}
