// What the sums of calibrated_cross_entropy say: expected calibration error, and the loss once a model's sharpness is
// set right by one temperature, fitted on other text than it is scored on (Guo et al. 2017, arXiv 1706.04599).
#pragma once

#include <optional>

#include "src/tensors/calibrated_cross_entropy.h"

namespace coppice {

/// Their eq. 3: sum over bins of count / n |accuracy - mean confidence|, 0 to 1, over live rows. NaN without one.
double expected_calibration_error(const CalibrationSums& sums);

/// Mean cross-entropy in nats at inverse temperature b, 1/8 to 2: between two points of the curve the polynomial of
/// degree 5 that has the values and both derivatives of either. Off by at most (1/16)^6 / 720 of the sixth cumulant of
/// the logits and the rounding of the curve; the tests hold it to 1e-5 of the loss in double.
double loss_at(const CalibrationSums& sums, double b);
/// The b of least loss in [1/8, 2]: golden section between the two points where the slope changes its sign; an end of
/// the range where it does not.
double fit_inverse_temperature(const CalibrationSums& sums);

struct Calibration {
  double ece = 0;
  double temperature = 1;  // of all rows together
  double loss = 0;         // of each part at the temperature that the other part gives, nats a row
};
/// Of two parts of the text. Nothing where a part has no live row.
std::optional<Calibration> calibrate(const CalibrationSums& one, const CalibrationSums& other);

}  // namespace coppice
