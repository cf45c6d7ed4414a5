// The loss with its calibration: sums of the loss beside mixed_cross_entropy_step, the curve beside softmax in double,
// bins by hand, edges. The identity as head makes the hidden states the logits.
#include "src/tensors/calibrated_cross_entropy.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "tests/caught.h"
#include "tests/tensors/loss_problem.h"

using namespace coppice;

namespace {

CalibratedLoss of_logits(const at::Tensor& logits_NV, const at::Tensor& true_label_N, int64_t split = 0) {
  return calibrated_cross_entropy(
      {.hidden_ND = logits_NV, .head_VD = at::eye(logits_NV.size(1)), .true_label_N = true_label_N}, {}, split);
}

/// One row's point at b in double.
TemperaturePoint point_of(const at::Tensor& logits_V, int64_t true_label, double b) {
  const at::Tensor z_V = logits_V.to(at::kDouble), p_V = (b * z_V).softmax(0), mean = (p_V * z_V).sum();
  return {.ce = ((b * z_V).logsumexp(0) - b * z_V[true_label]).item<double>(),
          .slope = (mean - z_V[true_label]).item<double>(),
          .curvature = (p_V * (z_V - mean).square()).sum().item<double>()};
}

int64_t bin_of(double confidence) {
  CalibrationSums sums;
  sums.add_row({}, confidence, false);
  for (size_t bin = 0; bin < kConfidenceBins; ++bin)
    if (sums.bins[bin].count > 0) return static_cast<int64_t>(bin);
  return -1;
}

/// The op at `on` beside the loops of the CPU on the same numbers, and beside the loss of a training step there.
void check_rows_on(const OpPlacement& on) {
  const LossProblem p = rounded(make_problem(40, 8, 129), on);
  HeadRows head{.hidden_ND = p.hidden_ND.to(on.device, on.compute),
                .head_VD = p.head_VD.to(on.device, on.compute),
                .true_label_N = p.true_label_N.to(on.device),
                .argmax = true};
  const at::Tensor teacher_label_N = p.teacher_label_N.to(on.device);
  const CalibratedLoss ours = calibrated_cross_entropy(head, teacher_label_N, 13);
  const LinearLossSums step = mixed_cross_entropy_step(head, teacher_label_N, 0.5, 0).read();
  CHECK(ours.loss.num_live == step.num_live);
  CHECK(ours.loss.ce == step.ce);
  CHECK(ours.loss.correct == step.correct);
  CHECK(ours.loss.agree == step.agree);
  head.chunk_rows = 7;
  const double in_chunks = calibrated_cross_entropy(head, teacher_label_N, 13).parts[1].curve[3].ce,
               at_once = ours.parts[1].curve[3].ce;
  if (on.execution == Execution::device)  // a product of fewer rows may add up in another order there
    CHECK(in_chunks == doctest::Approx(at_once).epsilon(1e-5));
  else
    CHECK(in_chunks == at_once);

  const at::Tensor logits_NV = p.hidden_ND.to(at::kDouble).mm(p.head_VD.to(at::kDouble).t());
  std::array<CalibrationSums, 2> wanted;
  for (int64_t n = 0; n < 40; ++n) {
    const auto label = p.true_label_N[n].item<int64_t>();
    if (label == kIgnoredLabel) continue;
    TemperatureCurve curve;
    for (size_t point = 0; point < kTemperaturePoints; ++point)
      curve[point] = point_of(logits_NV[n], label, inverse_temperature_of(point));
    wanted[n < 13 ? 0 : 1].add_row(curve, logits_NV[n].softmax(0).max().item<double>(),
                                   logits_NV[n].argmax().item<int64_t>() == label);
  }
  for (size_t part = 0; part < 2; ++part) {
    CHECK(ours.parts[part].num_live == wanted[part].num_live);
    for (size_t point = 0; point < kTemperaturePoints; ++point) {
      CHECK(ours.parts[part].curve[point].ce == doctest::Approx(wanted[part].curve[point].ce).epsilon(1e-5));
      CHECK(ours.parts[part].curve[point].slope == doctest::Approx(wanted[part].curve[point].slope).epsilon(1e-4));
      CHECK(ours.parts[part].curve[point].curvature ==
            doctest::Approx(wanted[part].curve[point].curvature).epsilon(1e-4));
    }
    for (size_t bin = 0; bin < kConfidenceBins; ++bin) {
      CHECK(ours.parts[part].bins[bin].count == wanted[part].bins[bin].count);
      CHECK(ours.parts[part].bins[bin].correct == wanted[part].bins[bin].correct);
      CHECK(ours.parts[part].bins[bin].confidence == doctest::Approx(wanted[part].bins[bin].confidence).epsilon(1e-5));
    }
  }
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("calibrated_cross_entropy: a row worked out by hand") {
    // logits (0, ln 3), true 0. b = 1: p = (1/4, 3/4), loss ln 4, slope 3/4 ln 3 - 0, variance 3/16 ln^2 3. b = 2: p =
    // (1/10, 9/10).
    const double ln3 = std::log(3.0);
    const CalibratedLoss got = of_logits(at::tensor({0.0f, static_cast<float>(ln3)}).unsqueeze(0), labels({0}));
    const CalibrationSums& sums = got.parts[1];
    CHECK(got.parts[0].num_live == 0);
    CHECK(sums.num_live == 1);
    CHECK(sums.curve[7].ce == doctest::Approx(std::log(4.0)).epsilon(1e-6));
    CHECK(sums.curve[7].slope == doctest::Approx(0.75 * ln3).epsilon(1e-6));
    CHECK(sums.curve[7].curvature == doctest::Approx(3.0 / 16 * ln3 * ln3).epsilon(1e-6));
    CHECK(sums.curve[15].ce == doctest::Approx(std::log(10.0)).epsilon(1e-6));
    CHECK(sums.curve[15].slope == doctest::Approx(0.9 * ln3).epsilon(1e-6));
    CHECK(sums.curve[15].curvature == doctest::Approx(0.09 * ln3 * ln3).epsilon(1e-6));
    CHECK(sums.bins[11].count == 1);  // 3/4 lies in (11/15, 12/15]
    CHECK(sums.bins[11].correct == 0);
    CHECK(sums.bins[11].confidence == doctest::Approx(0.75).epsilon(1e-6));
  }

  TEST_CASE("calibrated_cross_entropy: bins are open below and closed above; the ends and a NaN have one") {
    CHECK(bin_of(0.2) == 2);  // (2/15, 3/15]
    CHECK(bin_of(std::nextafter(0.2, 1.0)) == 3);
    CHECK(bin_of(1.0) == 14);
    CHECK(bin_of(1e-9) == 0);
    CHECK(bin_of(1.0000002) == 14);
    CHECK(bin_of(std::numeric_limits<double>::quiet_NaN()) == 0);
  }

  TEST_CASE("calibrated_cross_entropy: the loss is that of the training step bit for bit, whatever the chunks") {
    for (const auto& [rows, width, vocab] :
         {std::tuple<int64_t, int64_t, int64_t>{1, 3, 1}, {65, 33, 31}, {64, 8, 128}, {33, 8, 129}, {700, 16, 5003}}) {
      CAPTURE(vocab);
      const LossProblem p = make_problem(rows, width, vocab);
      const HeadRows head{
          .hidden_ND = p.hidden_ND, .head_VD = p.head_VD, .true_label_N = p.true_label_N, .argmax = true};
      const LinearLossSums wanted = mixed_cross_entropy_step(head, p.teacher_label_N, 0.5, 0).read();
      for (const int64_t chunk_rows : {0, 1, 7}) {
        HeadRows cut = head;
        cut.chunk_rows = chunk_rows;
        const auto [loss, parts] = calibrated_cross_entropy(cut, p.teacher_label_N, rows / 3);
        CHECK(loss.num_live == wanted.num_live);
        CHECK(loss.ce == wanted.ce);
        CHECK(loss.correct == wanted.correct);
        CHECK(loss.agree == wanted.agree);
        int64_t correct = 0, count = 0;
        for (const CalibrationSums& part : parts)
          for (const ConfidenceBin& bin : part.bins) {
            correct += bin.correct;
            count += bin.count;
          }
        CHECK(correct == wanted.correct);
        CHECK(count == wanted.num_live);
        CHECK(parts[0].num_live == p.true_label_N.narrow(0, 0, rows / 3).ne(kIgnoredLabel).sum().item<int64_t>());
        CHECK(parts[0].curve[7].ce + parts[1].curve[7].ce == doctest::Approx(wanted.ce).epsilon(4e-6));
      }
    }
  }

  TEST_CASE("calibrated_cross_entropy: logits are float32 whatever the element type, by loops and by kernels") {
    on_each(host_placements(), check_rows_on);
  }

  TEST_CASE("calibrated_cross_entropy: the curve beside softmax in double") {
    // Powers of one exponential carry up to 16 roundings of it, and what multiplies them its size: bounds in units of
    // float32's rounding.
    constexpr double kBound = 32 * std::numeric_limits<float>::epsilon();
    at::manual_seed(5);
    for (const int64_t vocab : {1, 31, 127, 128, 129, 1000})
      for (const double scale : {0.3, 3.0, 12.0}) {
        CAPTURE(vocab);
        CAPTURE(scale);
        const at::Tensor logits = scale * at::randn({8, vocab}), label = at::randint(vocab, {8}, at::kLong);
        for (int64_t row = 0; row < 8; ++row) {
          const CalibrationSums sums = of_logits(logits.narrow(0, row, 1), label.narrow(0, row, 1)).parts[1];
          const double range = std::max(1.0, (logits[row].max() - logits[row].min()).item<double>());
          for (size_t point = 0; point < kTemperaturePoints; ++point) {
            const TemperaturePoint wanted =
                point_of(logits[row], label[row].item<int64_t>(), inverse_temperature_of(point));
            CHECK(std::abs(sums.curve[point].ce - wanted.ce) <= kBound * range);
            CHECK(std::abs(sums.curve[point].slope - wanted.slope) <= kBound * range);
            CHECK(std::abs(sums.curve[point].curvature - wanted.curvature) <= kBound * range * range);
          }
          double confidence = 0;
          for (const ConfidenceBin& bin : sums.bins) confidence += bin.confidence;
          CHECK(std::abs(confidence - logits[row].to(at::kDouble).softmax(0).max().item<double>()) <= kBound);
        }
      }
  }

  TEST_CASE("calibrated_cross_entropy: far logits are finite, a NaN is carried on, an ignored row counts nowhere") {
    const at::Tensor far = at::tensor({0.0f, -40.0f, -60.0f, -200.0f, -1e4f}).unsqueeze(0);
    for (const int64_t label : {0, 3, 4}) {
      const CalibrationSums sums = of_logits(far, labels({label})).parts[1];
      for (size_t point = 0; point < kTemperaturePoints; ++point) {
        const TemperaturePoint wanted = point_of(far[0], label, inverse_temperature_of(point));
        CHECK(sums.curve[point].ce == doctest::Approx(wanted.ce).epsilon(1e-5));
        CHECK(sums.curve[point].slope == doctest::Approx(wanted.slope).epsilon(1e-5));
      }
    }
    at::Tensor broken = at::zeros({1, 40});
    broken[0][33] = std::numeric_limits<float>::quiet_NaN();
    CHECK(std::isnan(of_logits(broken, labels({1})).parts[1].curve[3].ce));
    const CalibratedLoss ignored = of_logits(at::randn({3, 5}), labels({kIgnoredLabel, 2, kIgnoredLabel}), 1);
    CHECK(ignored.parts[0].num_live == 0);
    CHECK(ignored.parts[1].num_live == 1);
    CHECK(caught([] {
            calibrated_cross_entropy({.hidden_ND = at::zeros({1, 2}),
                                      .head_VD = at::zeros({3, 2}),
                                      .head_grad_VD = at::zeros({3, 2}),
                                      .true_label_N = labels({0})},
                                     {}, 0);
          }).code == 1);
  }
}

TEST_SUITE("gpu") {
  TEST_CASE("calibrated_cross_entropy: the loss of the training step and the curves of double on a device") {
    on_each(device_placements(), check_rows_on);
  }
}
