// Draws from a row of logits by inverting its distribution function, ids in their order: with e_v = exp((z_v - max) /
// tau) the draw of u is the first id whose sum e_0 + .. + e_v exceeds u sum e. Where weights are asked for, ids are
// drawn in this way at tau t, t the proposal's temperature, and that of a draw is q / r, q = softmax(z / tau) and r =
// softmax(z / (tau t)): with e and S = sum e at tau t, log(q / r) = (t - 1) log e - log S_tau + log S. C = tokens of a
// chunk, V = vocabulary, R = draws.
#pragma once

#include <cstdint>

#include "src/tensors/kernels/loss_rows.h"

struct CUstream_st;  // cudaStream_t points to one

namespace coppice {

struct DrawParams {
  float* logits = nullptr;          // (C, V): on the CPU overwritten by e
  int64_t num_rows = 0;             // C
  int64_t num_vocab = 0;            // V
  int64_t num_draws = 1;            // R
  double temperature = 1;           // tau
  double proposal_temperature = 1;  // t; other than 1 where there are weights alone
  const double* uniform = nullptr;  // (C, R), in [0, 1)
  int64_t* id = nullptr;            // (C, R)
  float* log_weight = nullptr;      // (C, R): log(q / r), or null
  TopFact* fact = nullptr;          // (C), or null
};
/// An id whose e is 0 in float32 (87 tau t below the largest logit) is never drawn.
void draw_ids_cpu(const DrawParams& params);

// One launch, a block a row; V below 2^31. The ids and weights of draw_ids_cpu(), but where a draw lies within rounding
// of the boundary between two ids. Each enqueues and returns the launch's error, 0 for none.
namespace device {
int draw_ids(const DrawParams& params, CUstream_st* stream);
}
namespace emulated {
int draw_ids(const DrawParams& params, CUstream_st* stream);
}

}  // namespace coppice
