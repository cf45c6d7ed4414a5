// The update of the flat parameter buffer, torch-free: a norm pass, then per optimizer one or two passes over blocks of
// the arena.
//   adastar: v = b2 v + (1-b2)(g^2 + 1e-30), u = g / sqrt(v / (1 - b2^t)); per block u /= max(1, rms(u)); m = b1 m +
//   (1-b1) u;
//            theta -= move m + decay theta
//   adamw:   m = b1 m + (1-b1) g, v = b2 v + (1-b2) g^2, u = m / (1-b1^t) / (sqrt(v / (1-b2^t)) + 1e-8); theta -= move
//   u + decay theta
// g is the gradient times clip; move = sched(t) lr multiplier and decay = sched(t) weight_decay of the block. The last
// pass zeroes the gradient. Work is cut into pieces of kPieceSize elements, sums are double per piece and added in
// order: results do not depend on the number of threads.
#pragma once

#include <cstdint>
#include <span>

namespace coppice {

struct OptimizerBlock {
  int64_t offset = 0, size = 0;  // elements
  double move = 0, decay = 0;
};

struct OptimizerStepParams {
  float* theta = nullptr;     // master weights
  float* gradient = nullptr;  // zeroed inside the blocks
  float* v = nullptr;
  float* m = nullptr;
  std::span<const OptimizerBlock> blocks;
  double clip = 1;  // factor on the gradient
  double beta_1 = 0, beta_2 = 0;
  int64_t t = 1;  // applied steps, this one included
};
void adastar_step_cpu(const OptimizerStepParams& params);
void adamw_step_cpu(const OptimizerStepParams& params);

/// Sum of squares over the blocks; not finite exactly when an entry is not finite.
double gradient_square_sum_cpu(const float* gradient, std::span<const OptimizerBlock> blocks);

/// The same steps written to be read: double arithmetic in the stated order, state kept in double.
struct OptimizerStepReference {
  double* theta = nullptr;
  const double* gradient = nullptr;
  double* v = nullptr;
  double* m = nullptr;
  std::span<const OptimizerBlock> blocks;
  double clip = 1;
  double beta_1 = 0, beta_2 = 0;
  int64_t t = 1;
};
void adastar_step_reference(const OptimizerStepReference& params);
void adamw_step_reference(const OptimizerStepReference& params);

}  // namespace coppice
