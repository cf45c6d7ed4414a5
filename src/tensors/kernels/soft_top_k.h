// Soft-Top-K of every row: maximise s.lambda + epsilon H(lambda) under sum lambda = k, 0 <= lambda <= 1 (CoDA, arXiv
// 2304.04947).
//   lambda_f = min(1, exp((s_f - t) / epsilon)), one threshold t a row; the m entries with s_f > t are saturated, and
//   with S the sum of exp(s_f / epsilon) over the others t = epsilon log(S / (k - m)).
// Backward on the unsaturated entries U: ds_f = lambda_f / epsilon (g_f - sum_U g lambda / sum_U lambda); exactly 0 for
// saturated ones. What backward keeps is lambda with its saturated entries set to 0: lambda = 1 alone would not tell,
// an entry just below t rounds to 1 as well and still has its gradient. L = rows (layers), F = entries of a row (FFN
// channels).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

struct CUstream_st;  // cudaStream_t points to one

namespace coppice {

struct SoftTopKParams {
  const float* scores = nullptr;  // (L, F), rows scores_row_stride elements apart
  float* soft_mask = nullptr;     // (L, F), overwritten
  float* free_mask = nullptr;     // (L, F), overwritten: lambda where s <= t, 0 where s > t (everywhere when k = F);
                                  // nullptr when no backward follows
  int32_t* num_bad = nullptr;  // (L), overwritten, not for the CPU: scores of the row that are not finite or larger in
                               // size than kLargestSoftTopKScore; its outputs are NaN where that is not 0
  int64_t num_rows = 0;        // L
  int64_t num_channels = 0;    // F
  int64_t scores_row_stride = 0;
  double k = 0;        // 0 < k <= F, may be real
  double epsilon = 0;  // > 0
};
inline constexpr float kLargestSoftTopKScore = 1e38f;
/// Solves every row without a sort, |sum lambda - k| <= 1e-6 k. Returns the first row with a score that is not finite
/// or larger in size than kLargestSoftTopKScore (outputs of that row are then undefined), or -1.
int64_t soft_top_k_cpu(const SoftTopKParams& params);

struct SoftTopKBackwardParams {
  const float* free_mask = nullptr;       // (L, F), from forward
  const float* soft_mask_grad = nullptr;  // (L, F): g
  float* scores_grad = nullptr;           // (L, F), overwritten
  int64_t num_rows = 0;
  int64_t num_channels = 0;
  double epsilon = 0;
};
void soft_top_k_backward_cpu(const SoftTopKBackwardParams& params);

// One launch each, a block a row; F below 2^31. Each enqueues and returns the launch's error, 0 for none.
namespace device {
int soft_top_k(const SoftTopKParams& params, CUstream_st* stream);
int soft_top_k_backward(const SoftTopKBackwardParams& params, CUstream_st* stream);
}  // namespace device
namespace emulated {
int soft_top_k(const SoftTopKParams& params, CUstream_st* stream);
int soft_top_k_backward(const SoftTopKBackwardParams& params, CUstream_st* stream);
}  // namespace emulated
/// Wider rows are walked in memory, not held in registers.
inline constexpr int64_t kSoftTopKColumnsHeld = 24576;

/// One row solved by sorting, everything in double: the oracle of both paths.
struct SoftTopKSolution {
  std::vector<double> soft_mask;   // (F)
  std::vector<uint8_t> saturated;  // (F)
  int64_t num_saturated = 0;       // m
  double threshold = 0;            // t; NaN when k = F
};
SoftTopKSolution soft_top_k_reference(std::span<const double> scores, double k, double epsilon);
std::vector<double> soft_top_k_backward_reference(const SoftTopKSolution& solution,
                                                  std::span<const double> soft_mask_grad, double epsilon);

}  // namespace coppice
