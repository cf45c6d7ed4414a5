// The walk of linear_mixed_cross_entropy with one more pass over the logits of every chunk; what rows leave is added up
// on the host.
#include "src/tensors/calibrated_cross_entropy.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "src/tensors/kernels/calibrated_cross_entropy.h"
#include "src/tensors/kernels/launch.h"
#include "src/tensors/kernels/linear_loss.h"
#include "src/tensors/kernels/linear_mixed_cross_entropy.h"
#include "src/tensors/kernels/op_checks.h"

namespace coppice {

void CalibrationSums::add_row(const TemperatureCurve& row, double confidence, bool is_correct) {
  ++num_live;
  for (size_t point = 0; point < kTemperaturePoints; ++point) {
    curve[point].ce += row[point].ce;
    curve[point].slope += row[point].slope;
    curve[point].curvature += row[point].curvature;
  }
  constexpr double kLast = kConfidenceBins - 1;
  const double bin = std::ceil(confidence * kConfidenceBins) - 1;
  ConfidenceBin& own = bins[static_cast<size_t>(std::min(kLast, std::max(0.0, bin)))];  // a NaN falls into the first
  ++own.count;
  own.correct += is_correct;
  own.confidence += confidence;
}

void CalibrationSums::add(const CalibrationSums& other) {
  num_live += other.num_live;
  for (size_t point = 0; point < kTemperaturePoints; ++point) {
    curve[point].ce += other.curve[point].ce;
    curve[point].slope += other.curve[point].slope;
    curve[point].curvature += other.curve[point].curvature;
  }
  for (size_t bin = 0; bin < kConfidenceBins; ++bin) {
    bins[bin].count += other.bins[bin].count;
    bins[bin].correct += other.bins[bin].correct;
    bins[bin].confidence += other.bins[bin].confidence;
  }
}

CalibratedLoss calibrated_cross_entropy(const HeadRows& given_rows, const at::Tensor& teacher_label_N, int64_t split) {
  const at::NoGradGuard no_grad;
  const HeadRows rows = checked_rows(given_rows);
  const int64_t num_rows = rows.hidden_ND.size(0);
  COPPICE_CHECK(!rows.head_grad_VD.defined() && rows.shard.total == 0,
                "calibration is of forward passes over the whole vocabulary");
  if (teacher_label_N.defined())
    check_labels(teacher_label_N, num_rows, rows.num_vocab(), rows.labels_below, rows.hidden_ND.device(),
                 "teacher_label_N");
  constexpr int64_t kNumbers = sizeof(CalibratedRow) / sizeof(double);
  const at::Tensor calibrated_NX = at::empty({num_rows, kNumbers}, rows.hidden_ND.options().dtype(at::kDouble));
  CalibratedRow* const calibrated = reinterpret_cast<CalibratedRow*>(mutable_elements<double>(calibrated_NX));
  std::vector<int64_t> top_1;  // of the CPU's loops
  const RowPass pass = [&](int64_t first, at::Tensor& logits_CV, const RowResults& results) {
    const MixedCrossEntropyParams<float> loss{
        .logits = mutable_elements<float>(logits_CV),
        .true_label = elements<int64_t>(rows.true_label_N) + first,
        .teacher_label = teacher_label_N.defined() ? elements<int64_t>(teacher_label_N) + first : nullptr,
        .rows = results.rows,
        .terms = results.terms,
        .num_rows = logits_CV.size(0),
        .num_vocab = logits_CV.size(1),
        .argmax = true};
    COPPICE_RUN(rows.hidden_ND, mixed_cross_entropy, loss);
    const CalibratedRowsParams curves{.logits = loss.logits,
                                      .true_label = loss.true_label,
                                      .rows = calibrated + first,
                                      .num_rows = loss.num_rows,
                                      .num_vocab = loss.num_vocab};
    COPPICE_RUN(rows.hidden_ND, calibrated_rows, curves);
    if (results.rows == nullptr) return;
    for (int64_t n = 0; n < loss.num_rows; ++n) top_1.push_back(results.rows[n].top_1);
  };
  at::Tensor terms_N4;
  CalibratedLoss result{.loss = walk_chunks(rows, pass, &terms_N4).read(), .parts = {}};
  const at::Tensor host_NX = calibrated_NX.cpu(), true_label_N = rows.true_label_N.cpu();
  if (terms_N4.defined()) terms_N4 = terms_N4.cpu();
  const auto* const row = reinterpret_cast<const CalibratedRow*>(elements<double>(host_NX));
  const auto* const terms = reinterpret_cast<const LossTerms*>(elements<float>(terms_N4));
  const int64_t* const true_label = elements<int64_t>(true_label_N);
  for (int64_t n = 0; n < num_rows; ++n) {
    if (true_label[n] == kIgnoredLabel) continue;
    const bool is_correct =
        terms == nullptr ? top_1[static_cast<size_t>(n)] == true_label[n] : (terms[n].marks & kCorrectRow) != 0;
    result.parts[n < split ? 0 : 1].add_row(row[n].curve, row[n].confidence, is_correct);
  }
  return result;
}

}  // namespace coppice
