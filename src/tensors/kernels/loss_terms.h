// What a row of a loss contributes, as the kernels over rows of logits leave it, and its sums over rows. Torch-free.
#pragma once

#include <cstdint>

struct CUstream_st;  // cudaStream_t points to one

namespace coppice {

/// All zero for an ignored row. The fields of LossRow, float32.
struct alignas(16) LossTerms {
  float ce;       // -log p[true]
  float kd;       // the teacher's term
  float z;        // zeta lse^2
  int32_t marks;  // of the row, added up
};
inline constexpr int32_t kLiveRow = 1;
inline constexpr int32_t kCorrectRow = 2;   // its argmax is the true label
inline constexpr int32_t kAgreeingRow = 4;  // its argmax is the teacher's

/// ce, kd, z, then how many rows are live, correct, agreeing: the places of LinearLoss::sum_S.
inline constexpr int64_t kNumLossTermSums = 6;

struct AddLossTermsParams {
  const LossTerms* terms = nullptr;  // (num_rows)
  double* sum = nullptr;             // (kNumLossTermSums), added to
  int64_t num_rows = 0;              // of all chunks, so that the sums do not depend on how they were cut
};

// Each enqueues and returns the launch's error, 0 for none.
namespace device {
int add_loss_terms(const AddLossTermsParams& params, CUstream_st* stream);
}
namespace emulated {
int add_loss_terms(const AddLossTermsParams& params, CUstream_st* stream);
}

}  // namespace coppice
