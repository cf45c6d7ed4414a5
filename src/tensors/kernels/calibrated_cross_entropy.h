// The loss of a row at many temperatures in one pass: the inverse temperatures b = 1/8, 2/8 .. 2 are multiples of one
// step, so that exp(b d) of an id are powers of one exponential. With d = z - max z,
//   S0 = sum e^(b d),  S1 = sum d e^(b d),  S2 = sum d^2 e^(b d)
//   loss = ln S0 - b d[true],  loss' = S1/S0 - d[true],  loss'' = S2/S0 - (S1/S0)^2
// and 1 / S0 at b = 1 is the probability of the most probable token. C = tokens of a chunk, V = vocabulary. Logits are
// float32 on every device, as all that is printed is made of them. Torch-free.
#pragma once

#include <cstdint>

#include "src/tensors/temperature_curve.h"

struct CUstream_st;  // cudaStream_t points to one

namespace coppice {

/// The point of b = 1.
inline constexpr size_t kUnitPoint = static_cast<size_t>(1 / kInverseTemperatureStep) - 1;

struct CalibratedRow {
  TemperatureCurve curve{};
  double confidence = 0;
};

struct CalibratedRowsParams {
  const float* logits = nullptr;        // (C, V)
  const int64_t* true_label = nullptr;  // (C): in [0, V), or kIgnoredLabel: the row is left as it is
  CalibratedRow* rows = nullptr;        // (C)
  int64_t num_rows = 0;                 // C
  int64_t num_vocab = 0;                // V; on a device below 2^31
};
void calibrated_rows_reference(const CalibratedRowsParams& params);  // plain loops in double
void calibrated_rows_cpu(const CalibratedRowsParams& params);

// One launch, a block a row. Each enqueues and returns the launch's error, 0 for none.
namespace device {
int calibrated_rows(const CalibratedRowsParams& params, CUstream_st* stream);
}
namespace emulated {
int calibrated_rows(const CalibratedRowsParams& params, CUstream_st* stream);
}

}  // namespace coppice
