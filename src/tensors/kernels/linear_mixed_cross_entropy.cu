// Mixed cross-entropy of rows of logits. One block a row: the first walk keeps the row in shared memory while its
// log-sum-exp is taken online, the second turns what was kept into the gradient, in place of the logits. Without a
// gradient, and for rows that do not fit, nothing is kept; then the second walk reads the row again.
// Bytes of a row, s = bytes of an element: (V + 2) s read, V s + 16 written; rows that are read again: (2 V + 2) s
// read; without a gradient: (V + 2) s read, 16 written; ignored rows: nothing read, V s + 16 (or 16) written.
#include "src/tensors/kernels/linear_mixed_cross_entropy.h"

#include "src/tensors/kernels/loss_walk.h"

namespace coppice::COPPICE_EXECUTION {
namespace {

/// kArgmax: as params.argmax says. Another branch in the walk would keep its loads from being under way together.
template <class T, int kVec, bool kKeep, bool kArgmax>
__global__ void __launch_bounds__(kMostWalkThreads, 1) mixed_cross_entropy_kernel(MixedCrossEntropyParams<T> params) {
  COPPICE_SHARED(Exponentials, shared_exponentials, ReduceScratch<Exponentials>::kCount);
  COPPICE_SHARED(Choice, shared_choices, ReduceScratch<Choice>::kCount);
  const int64_t n = blockIdx.x;
  const int columns = static_cast<int>(params.num_vocab);
  T* const row = params.logits + n * params.num_vocab;
  T* const kept = static_cast<T*>(dynamic_shared());
  const int64_t true_label = params.true_label[n];
  if (true_label == kIgnoredLabel) {
    if (params.write_gradient) store_zeros<kVec>(row, columns);
    if (threadIdx.x == 0) store_pack<1>(params.terms + n, Pack<LossTerms, 1>{});
    return;
  }
  const int64_t given = params.teacher_label == nullptr ? kIgnoredLabel : params.teacher_label[n];
  const LabelShares labels = share_labels(true_label, given, params.teacher_weight);
  float z_true = 0.0f, z_teacher = 0.0f;
  if (threadIdx.x == 0) {  // before anybody writes: all meet in the reduction
    z_true = to_float(load_pack<1>(row + true_label)[0]);
    z_teacher = to_float(load_pack<1>(row + labels.teacher)[0]);
  }

  Exponentials all = no_exponentials();
  Choice choice = no_choice();
  walk_row<kVec>(row, columns, [&](int v, const Pack<T, kVec>& pack) {
    if constexpr (kKeep) store_shared<kVec>(kept + v, pack);
    const auto z = floats_of(pack);
    add_exponentials(all, z, kLog2E);
    if constexpr (kArgmax) add_choices(choice, z, v);
  });
  ReduceScratch<Exponentials> scratch(shared_exponentials);
  all = block_reduce(all, JoinExponentials(), no_exponentials(), scratch);
  if constexpr (kArgmax) {
    ReduceScratch<Choice> choices(shared_choices);
    choice = block_reduce(choice, JoinChoices(), no_choice(), choices);
  }

  const float lse = kLn2 * log2_of(all), scale = static_cast<float>(params.scale),
              z_loss = static_cast<float>(params.z_loss);
  if (threadIdx.x == 0) {
    const auto below_lse = [&](float z) { return kLn2 * (log2f(all.sum) - fmaf(z, kLog2E, -all.largest)); };
    LossTerms terms{below_lse(z_true), params.teacher_weight == 0.0 ? 0.0f : below_lse(z_teacher), z_loss * lse * lse,
                    kLiveRow};
    if (kArgmax && choice.id == true_label) terms.marks += kCorrectRow;
    if (kArgmax && given >= 0 && choice.id == given) terms.marks += kAgreeingRow;
    store_pack<1>(params.terms + n, Pack<LossTerms, 1>{{terms}});
  }
  if (!params.write_gradient) return;

  const float factor = scale * (1.0f + 2.0f * z_loss * lse) / all.sum,
              true_share = scale * static_cast<float>(labels.true_share),
              teacher_share = scale * static_cast<float>(labels.teacher_share);
  const int true_column = static_cast<int>(true_label), teacher_column = static_cast<int>(labels.teacher);
  const auto differentiate = [&](int v, const Pack<T, kVec>& pack) {
    auto gradient = floats_of(pack);
    COPPICE_UNROLL
    for (int i = 0; i < kVec; ++i) gradient[i] = factor * fast_exp2(fmaf(gradient[i], kLog2E, -all.largest));
    take_off(gradient, v, true_column, true_share);
    take_off(gradient, v, teacher_column, teacher_share);
    store_floats(row + v, gradient);
  };
  if constexpr (kKeep)
    walk_columns<kVec>(columns, [&](int v) { differentiate(v, load_shared<kVec>(kept + v)); });
  else
    walk_row<kVec>(row, columns, differentiate);
}

}  // namespace

template <class T>
int mixed_cross_entropy(const MixedCrossEntropyParams<T>& params, CUstream_st* stream) {
  if (params.num_rows == 0) return 0;
  return launch_walk<T>(params.num_vocab, 1, starts_at_packs(params.logits, params.num_vocab), params.write_gradient, 0,
                        [&]<int kVec, bool kKeep>(int threads, int64_t shared_bytes) {
                          const auto kernel = params.argmax ? mixed_cross_entropy_kernel<T, kVec, kKeep, true>
                                                            : mixed_cross_entropy_kernel<T, kVec, kKeep, false>;
                          return launch(kernel, params.num_rows, threads, shared_bytes, stream, params);
                        });
}
template int mixed_cross_entropy(const MixedCrossEntropyParams<float>&, CUstream_st*);
template int mixed_cross_entropy(const MixedCrossEntropyParams<Bf16>&, CUstream_st*);

}  // namespace coppice::COPPICE_EXECUTION
