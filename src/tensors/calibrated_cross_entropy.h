// Next-token loss with what tells whether its probabilities are to be believed: the loss at other temperatures, and how
// often the most probable token is right, by how probable it is called (Guo et al. 2017, arXiv 1706.04599). Logits
// exist a chunk at a time.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstddef>
#include <cstdint>

#include "src/tensors/ops.h"
#include "src/tensors/temperature_curve.h"

namespace coppice {

inline constexpr size_t kConfidenceBins = 15;
/// Of one logit, beside the head's product: an exponential and six operations a point of the curve.
inline constexpr double kCalibrationFlopsPerLogit = 20 + 6 * static_cast<double>(kTemperaturePoints);

/// Rows whose most probable token has a probability in (m / 15, (m + 1) / 15].
struct ConfidenceBin {
  int64_t count = 0, correct = 0;
  double confidence = 0;  // the probabilities' sum
};

/// Sums over live rows.
struct CalibrationSums {
  int64_t num_live = 0;
  TemperatureCurve curve{};
  std::array<ConfidenceBin, kConfidenceBins> bins{};
  /// One row: its curve, the probability of its most probable token, and whether that one is right.
  void add_row(const TemperatureCurve& row, double confidence, bool is_correct);
  void add(const CalibrationSums& other);
};

struct CalibratedLoss {
  LinearLossSums loss;
  std::array<CalibrationSums, 2> parts;  // rows before the split, and the others
};
/// The sums of mixed_cross_entropy_step bit for bit, for rows without a gradient and with the whole vocabulary; argmax
/// is always taken. Rows [0, split) are one part of the calibration, [split, N) the other; their sums are taken on the
/// host, in row order in double. Logits, exponentials and sums over some ids are float32 wherever they are computed,
/// which leaves a curve good to about 2e-6 nats a row.
CalibratedLoss calibrated_cross_entropy(const HeadRows& rows, const at::Tensor& teacher_label_N, int64_t split);

}  // namespace coppice
