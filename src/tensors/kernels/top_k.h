// A teacher's choices as kernels: what top_1_cpu() and top_k_cpu() of loss_rows.h give for rows of float32 logits.
// C = rows, V = vocabulary (below 2^31), K = ids kept. Torch-free.
#pragma once

#include <cstdint>

#include "src/tensors/kernels/loss_rows.h"

struct CUstream_st;  // cudaStream_t points to one

namespace coppice {

struct Top1Params {
  const float* logits = nullptr;  // (C, V)
  int64_t num_rows = 0;           // C
  int64_t num_vocab = 0;          // V
  int64_t* id = nullptr;          // (C), overwritten: the largest logit, lowest id on ties
  TopFact* fact = nullptr;        // (C), overwritten, or null
};

// One launch each, a block a row. Each enqueues and returns the launch's error, 0 for none.
namespace device {
int top_1(const Top1Params& params, CUstream_st* stream);
int top_k(const TopKParams& params, CUstream_st* stream);
}  // namespace device
namespace emulated {
int top_1(const Top1Params& params, CUstream_st* stream);
int top_k(const TopKParams& params, CUstream_st* stream);
}  // namespace emulated

/// Threads of a block where a row has that many groups of four logits.
inline constexpr int kTopKThreads = 512;
/// Entries that are put in order at once. A larger K is found in several goes, each of which looks for a bound.
inline constexpr int kTopKCandidates = 2048;

}  // namespace coppice
