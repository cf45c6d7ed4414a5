// The product of hidden states and output head, logits_NV = hidden_ND head_VD^T: N = rows, D = width, V = ids, T =
// element type.
#pragma once

#include <cstdint>

#include "src/tensors/kernels/instruction_set.h"

namespace coppice {

template <class T>
struct LogitsParams {
  const T* hidden;  // [num_rows, width], contiguous
  const T* head;    // [num_vocab, width], contiguous
  T* logits;        // [num_rows, num_vocab], contiguous, written
  int64_t num_rows, num_vocab, width;
};

/// Every logit is one chain of float32 multiply-adds, d ascending (fused where the machine has FMA): off by at most
/// width 2^-23 sum_d |hidden_d head_d|. So it depends on its own two rows and on nothing else: not on the rows beside
/// it, on chunks, or on threads. `lanes`: 16, 8 or 4, what the processor has.
void logits_cpu(const LogitsParams<float>& params, int lanes = vector_lanes());

}  // namespace coppice
