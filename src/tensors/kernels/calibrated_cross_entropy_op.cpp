// The walk of linear_mixed_cross_entropy with one more pass over the logits of every chunk.
#include "src/tensors/calibrated_cross_entropy.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "src/tensors/kernels/calibrated_cross_entropy.h"
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

CalibratedLoss calibrated_cross_entropy(const HeadRows& given_rows, const at::Tensor& teacher_label, int64_t split) {
  const at::NoGradGuard no_grad;
  HeadRows rows = checked_rows(given_rows);
  COPPICE_CHECK(!rows.head_grad_VD.defined() && rows.shard.total == 0,
                "calibration is of forward passes over the whole vocabulary");
  at::Tensor teacher_label_N = teacher_label;
  if (teacher_label_N.defined()) {
    check_labels(teacher_label_N, rows.hidden_ND.size(0), rows.num_vocab(), rows.labels_below, rows.hidden_ND.device(),
                 "teacher_label_N");
    teacher_label_N = teacher_label_N.cpu();
  }
  rows.true_label_N = rows.true_label_N.cpu();
  const int64_t* const true_label = rows.true_label_N.const_data_ptr<int64_t>();
  CalibratedLoss result;
  std::vector<CalibratedRow> calibrated;
  const RowPass pass = [&](int64_t first, at::Tensor& logits_CV, const RowResults& results) {
    const int64_t num_rows = logits_CV.size(0), num_vocab = logits_CV.size(1);
    mixed_cross_entropy_cpu(
        {.logits = logits_CV.mutable_data_ptr<float>(),
         .true_label = true_label + first,
         .teacher_label = teacher_label_N.defined() ? teacher_label_N.const_data_ptr<int64_t>() + first : nullptr,
         .rows = results.rows,
         .num_rows = num_rows,
         .num_vocab = num_vocab,
         .argmax = true});
    calibrated.resize(static_cast<size_t>(num_rows));
    calibrated_rows_cpu({.logits = logits_CV.const_data_ptr<float>(),
                         .true_label = true_label + first,
                         .rows = calibrated.data(),
                         .num_rows = num_rows,
                         .num_vocab = num_vocab});
    for (int64_t n = 0; n < num_rows; ++n) {
      if (true_label[first + n] == kIgnoredLabel) continue;
      const CalibratedRow& row = calibrated[static_cast<size_t>(n)];
      result.parts[first + n < split ? 0 : 1].add_row(row.curve, row.confidence,
                                                      results.rows[n].top_1 == true_label[first + n]);
    }
  };
  result.loss = walk_chunks_on_host(rows, pass).read();
  return result;
}

}  // namespace coppice
