// Calibration error by hand; the fitted temperature beside a search over losses in double, and where its formula is
// known.
#include "src/evaluate/calibration.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <cmath>

using namespace coppice;

namespace {

CalibrationSums sums_of(const at::Tensor& logits_NV, const at::Tensor& label_N) {
  return calibrated_cross_entropy(
             {.hidden_ND = logits_NV, .head_VD = at::eye(logits_NV.size(1)), .true_label_N = label_N}, {}, 0)
      .parts[1];
}

/// `count` rows with logits (0, gap), of which `ones` have label 1: the best b is ln(ones / zeros) / gap.
CalibrationSums two_way(double gap, int64_t ones, int64_t count) {
  const at::Tensor logits_NV = at::tensor({0.0, gap}, at::kFloat).expand({count, 2}).contiguous(),
                   label_N = at::arange(count, at::kLong).lt(ones).to(at::kLong);
  return sums_of(logits_NV, label_N);
}

double loss_in_double(const at::Tensor& logits_NV, const at::Tensor& label_N, double b) {
  return at::cross_entropy_loss(b * logits_NV.to(at::kDouble), label_N).item<double>();
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("expected_calibration_error: four rows by hand") {
    CalibrationSums sums;
    sums.add_row({}, 0.92, true);
    sums.add_row({}, 0.88, false);  // in (13/15, 14/15], as the first: |1 - 1.80| of 4
    sums.add_row({}, 0.30, true);   // |1 - 0.30|
    sums.add_row({}, 0.50, false);  // |0 - 0.50|
    CHECK(expected_calibration_error(sums) == doctest::Approx((0.80 + 0.70 + 0.50) / 4));
    CHECK(std::isnan(expected_calibration_error({})));
    // right three times out of four at 3/4: nothing is wrong
    CalibrationSums right;
    for (const bool is_correct : {true, true, true, false}) right.add_row({}, 0.75, is_correct);
    CHECK(expected_calibration_error(right) == doctest::Approx(0));
  }

  TEST_CASE("fit_inverse_temperature: where the answer has a formula, and at the ends of the range") {
    CHECK(fit_inverse_temperature(two_way(2, 80, 100)) == doctest::Approx(std::log(4.0) / 2).epsilon(1e-5));
    CHECK(fit_inverse_temperature(two_way(2.5, 60, 100)) == doctest::Approx(std::log(1.5) / 2.5).epsilon(1e-5));
    CHECK(fit_inverse_temperature(two_way(1, 80, 100)) == doctest::Approx(std::log(4.0)).epsilon(1e-5));
    CHECK(fit_inverse_temperature(two_way(2, 100, 100)) == 2);  // always right: as sharp as may be
    CHECK(fit_inverse_temperature(two_way(2, 10, 100)) == 0.125);
    CHECK(loss_at(two_way(2, 100, 100), 2) == doctest::Approx(std::log1p(std::exp(-4.0))).epsilon(1e-6));
  }

  TEST_CASE("loss_at, fit_inverse_temperature: beside the loss in double at every temperature") {
    at::manual_seed(11);
    for (const double truth : {0.3, 0.77, 1.4}) {
      const at::Tensor logits_NV = 3 * at::randn({400, 97}),
                       label_N = at::multinomial((truth * logits_NV).softmax(1), 1).squeeze(1);
      const CalibrationSums sums = sums_of(logits_NV, label_N);
      double best = 0, least = 1e9;
      for (double b = 0.125; b <= 2; b += 0.005) {
        const double loss = loss_in_double(logits_NV, label_N, b);
        CHECK(std::abs(loss_at(sums, b) - loss) <= 1e-5);
        if (loss >= least) continue;
        least = loss;
        best = b;
      }
      const double fitted = fit_inverse_temperature(sums);
      CHECK(std::abs(fitted - best) <= 0.005);
      CHECK(loss_in_double(logits_NV, label_N, fitted) <= least + 1e-7);
      CHECK(std::abs(fitted - truth) <= 0.1);
    }
  }

  TEST_CASE("calibrate: each part is scored at the temperature of the other") {
    const auto loss = [](double share, double gap, double b) {  // of labels 1 in `share` of the rows
      return std::log1p(std::exp(b * gap)) - share * b * gap;
    };
    const std::optional<Calibration> got = calibrate(two_way(2, 80, 100), two_way(2, 180, 300));
    REQUIRE(got.has_value());
    const double b_one = std::log(4.0) / 2, b_other = std::log(1.5) / 2;
    CHECK(got->loss == doctest::Approx((100 * loss(0.8, 2, b_other) + 300 * loss(0.6, 2, b_one)) / 400).epsilon(1e-6));
    CHECK(1 / got->temperature == doctest::Approx(std::log(260.0 / 140) / 2).epsilon(1e-5));
    const double confidence = 1 / (1 + std::exp(-2.0));
    CHECK(got->ece == doctest::Approx(std::abs(260.0 / 400 - confidence)).epsilon(1e-6));
    CHECK_FALSE(calibrate({}, two_way(2, 1, 2)).has_value());
    CHECK_FALSE(calibrate(two_way(2, 1, 2), {}).has_value());
  }
}
