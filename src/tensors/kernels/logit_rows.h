// What the kernels that choose ids from rows of float32 logits share: the best entry, whether it is to be trusted, and
// an order of all entries. For .cu files, after src/tensors/kernels/cuda_dialect.h.
#pragma once

#include <cfloat>

#include "src/tensors/kernels/cuda_dialect.h"
#include "src/tensors/kernels/loss_rows.h"
#include "src/tensors/kernels/row_groups.h"

namespace coppice::COPPICE_EXECUTION {

/// The largest logit with the lowest id that has it, and the largest of all others.
struct Best {
  float value;
  int id;
  float second;
  int has_nan;
  /// Columns come in ascending order.
  __device__ __forceinline__ void add(float logit, int column) {
    has_nan |= logit != logit ? 1 : 0;
    if (logit > value) {
      second = value;
      value = logit;
      id = column;
    } else {
      second = fmaxf(second, logit);
    }
  }
};

/// Of a thread whose first column is `first`; of one without columns that is behind the row.
__device__ __forceinline__ Best no_best(int first) { return {-INFINITY, first, -INFINITY, 0}; }

struct JoinBest {
  __device__ __forceinline__ Best operator()(const Best& a, const Best& b) const {
    const bool a_first = a.value > b.value || (a.value == b.value && a.id < b.id);
    const float lower = a_first ? b.value : a.value;
    return {a_first ? a.value : b.value, a_first ? a.id : b.id, fmaxf(lower, fmaxf(a.second, b.second)),
            a.has_nan | b.has_nan};
  }
};

/// As judge_top() of loss_rows.h, but for the rounding of its bound.
__device__ __forceinline__ TopFact judge(const Best& best) {
  if (best.has_nan != 0 || !(fabsf(best.value) < INFINITY)) return TopFact::not_finite;
  return best.second < best.value - kNearTie * fabsf(best.value) ? TopFact::clear : TopFact::near_tie;
}

/// e^x, 0 below -87 as in vector_exp_flushed(): what is 0 there is never drawn and leaves no tail here.
__device__ __forceinline__ float exp_flushed(float x) { return x < -87.0f ? 0.0f : expf(x); }

}  // namespace coppice::COPPICE_EXECUTION
