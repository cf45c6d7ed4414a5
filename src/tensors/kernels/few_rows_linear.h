// y = x w^T + b for the few rows of decoding: every weight is read from memory once, and that is what it costs. N =
// rows, I = inputs, O = outputs. Torch-free.
#pragma once

#include <cstdint>

namespace coppice {

struct FewRowsLinearParams {
  const float* x = nullptr;       // (N, I) contiguous
  const float* weight = nullptr;  // (O, I) contiguous
  const float* bias = nullptr;    // (O), or null: none
  float* y = nullptr;             // (N, O) contiguous, overwritten
  int64_t num_rows = 0;
  int64_t num_inputs = 0;
  int64_t num_outputs = 0;
};

void few_rows_linear_cpu(const FewRowsLinearParams& params);  // vectorised, all threads

}  // namespace coppice
