#include "src/tensors/kernels/calibrated_cross_entropy.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cfloat>

#include "src/tensors/ignored_label.h"
#include "tests/executor/outputs.h"
#include "tests/kernels/every_schedule.h"
#include "tests/kernels/last_row.h"
#include "tests/kernels/table_bytes.h"

using namespace coppice;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// Row 1 is ignored.
struct Problem {
  int64_t num_rows;
  int64_t num_vocab;
  float range = 8.0f;  // of logits, either way
  int64_t shift = 0;   // elements that the logits start behind a pack's place

  std::vector<float> logits() const { return numbers<float>(shift + num_rows * num_vocab, 1, range); }
  std::vector<int64_t> true_label() const {
    return values_of<int64_t>(
        num_rows, [&](int64_t n) { return n == 1 ? kIgnoredLabel : (n * 131 + num_vocab - 1) % num_vocab; });
  }
};

void run_kernel(const CalibratedRowsParams& params) { REQUIRE(emulated::calibrated_rows(params, nullptr) == 0); }

/// Slopes in units of a row's range, curvatures in those of its square: what their roundings are multiplied by.
void append_row(Outputs& outputs, const CalibratedRow& row, double range) {
  for (const TemperaturePoint& point : row.curve)
    for (const double value : {point.ce, point.slope / range, point.curvature / (range * range)})
      outputs.push_back(static_cast<float>(value));
  outputs.push_back(static_cast<float>(row.confidence));
}

/// Rows one after the other, with a sentinel in ignored ones and behind the last.
template <class Run>
Outputs calibrate(const Problem& problem, const Run& run) {
  const std::vector<float> logits = problem.logits();
  const std::vector<int64_t> true_label = problem.true_label();
  CalibratedRow sentinel{.confidence = -7.0};
  sentinel.curve.fill({-7.0, -7.0, -7.0});
  std::vector<CalibratedRow> rows(static_cast<size_t>(problem.num_rows) + 1, sentinel);
  run({.logits = logits.data() + problem.shift,
       .true_label = true_label.data(),
       .rows = rows.data(),
       .num_rows = problem.num_rows,
       .num_vocab = problem.num_vocab});
  Outputs outputs;
  for (const CalibratedRow& row : rows) append_row(outputs, row, std::max(1.0f, 2.0f * problem.range));
  return outputs;
}

CalibratedRow calibrate_row(const std::vector<float>& logits, int64_t true_label) {
  CalibratedRow row;
  run_kernel({.logits = logits.data(),
              .true_label = &true_label,
              .rows = &row,
              .num_rows = 1,
              .num_vocab = static_cast<int64_t>(logits.size())});
  return row;
}

}  // namespace

TEST_SUITE("kernel") {
  TEST_CASE("calibrated_rows: equal the reference with equal bits under every schedule") {
    for (const Problem& problem : std::initializer_list<Problem>{{1, 1},
                                                                 {3, 2},
                                                                 {3, 31, 0.3f},
                                                                 {2, 127, 30.0f},
                                                                 {3, 128, 3.0f},
                                                                 {3, 257},
                                                                 {2, 264, 12.0f, 1},
                                                                 {2, 4097},
                                                                 {1, 49'152},
                                                                 {1, 50'257, 12.0f},
                                                                 {1, 128'256, 20.0f}}) {
      if (kUnderRaceCheck && problem.num_vocab > 300) continue;
      CAPTURE(problem.num_vocab);
      CAPTURE(problem.range);
      const Outputs reference = calibrate(problem, calibrated_rows_reference);
      check_every_schedule<float>([&] { return calibrate(problem, run_kernel); }, reference);
      CHECK(error_of(calibrate(problem, calibrated_rows_cpu), {reference.begin(), reference.end()}) < 2e-6);
    }
  }

  TEST_CASE("calibrated_rows: a row worked out by hand") {
    // logits (0, ln 3), true 0. b = 1: p = (1/4, 3/4), loss ln 4, slope 3/4 ln 3, variance 3/16 ln^2 3; b = 2: p =
    // (1/10, 9/10)
    const double ln3 = std::log(3.0);
    const CalibratedRow row = calibrate_row({0.0f, static_cast<float>(ln3)}, 0);
    CHECK(row.curve[kUnitPoint].ce == doctest::Approx(std::log(4.0)).epsilon(1e-6));
    CHECK(row.curve[kUnitPoint].slope == doctest::Approx(0.75 * ln3).epsilon(1e-6));
    CHECK(row.curve[kUnitPoint].curvature == doctest::Approx(3.0 / 16 * ln3 * ln3).epsilon(1e-6));
    CHECK(row.curve[15].ce == doctest::Approx(std::log(10.0)).epsilon(1e-6));
    CHECK(row.curve[15].curvature == doctest::Approx(0.09 * ln3 * ln3).epsilon(1e-6));
    CHECK(row.confidence == doctest::Approx(0.75).epsilon(1e-6));
  }

  TEST_CASE("calibrated_rows: far logits leave numbers, a NaN and an infinity above do not") {
    const std::vector<float> near = {0.0f, -40.0f, -60.0f, -200.0f};
    std::vector<float> far = near;
    far.insert(far.end(), {-1e4f, -FLT_MAX, -kInfinity});
    for (const int64_t label : {0, 2, 3}) {
      Outputs with, without;
      append_row(with, calibrate_row(far, label), 200.0);
      append_row(without, calibrate_row(near, label), 200.0);
      CHECK(same_bits(with, without));
    }
    for (const float value : {std::numeric_limits<float>::quiet_NaN(), kInfinity}) {
      std::vector<float> broken(300, 1.0f);
      broken[170] = value;
      const CalibratedRow row = calibrate_row(broken, 3);
      for (const TemperaturePoint& point : row.curve) CHECK(std::isnan(point.ce));
      CHECK(std::isnan(row.confidence));
    }
  }

  TEST_CASE("calibrated_rows: bytes of a row") {
    for (const int64_t vocab : {256, 257, 8192}) {
      if (kUnderRaceCheck && vocab > 300) continue;
      check_table_bytes(Kernel::calibrated_rows, {.rows = 1, .vocab_size = vocab}, [&] {
        calibrate({1, vocab}, run_kernel);
      });
      CHECK(executor::counts().launches == 1);
      const executor::Counts alone = executor::counts();
      executor::reset_counts();
      calibrate({2, vocab}, run_kernel);  // an ignored row moves nothing
      CHECK(executor::counts().bytes_loaded == alone.bytes_loaded);
      CHECK(executor::counts().bytes_stored == alone.bytes_stored);
    }
  }

#ifndef COPPICE_RACE_CHECK  // too wide for it
  TEST_CASE("calibrated_rows: offsets beyond 32 bits") {
    constexpr int64_t kRows = 50'000, kVocab = 49'152;
    static_assert(kRows * kVocab > int64_t{1} << 31);
    const Problem problem{1, kVocab};
    const LastRow<float> logits(kRows, kVocab);
    logits.write_row(problem.logits());
    const std::vector<int64_t> true_label(kRows, problem.true_label()[0]);
    std::vector<CalibratedRow> rows(kRows);
    executor::run_only_last_block(true);
    run_kernel({.logits = logits.data(),
                .true_label = true_label.data(),
                .rows = rows.data(),
                .num_rows = kRows,
                .num_vocab = kVocab});
    executor::run_only_last_block(false);
    Outputs outputs;
    append_row(outputs, rows.back(), 2.0f * problem.range);
    Outputs alone = calibrate(problem, run_kernel);
    alone.resize(outputs.size());  // without the sentinel
    CHECK(same_bits(outputs, alone));
    CHECK(rows.front().confidence == 0.0);
  }
#endif
}
