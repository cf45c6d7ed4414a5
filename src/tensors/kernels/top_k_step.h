// Torch at the door of the losses over a row's k ids: what they check, and the walk over chunks.
#pragma once

#include "src/tensors/kernels/launch.h"
#include "src/tensors/kernels/linear_loss.h"
#include "src/tensors/kernels/linear_top_k_cross_entropy.h"

namespace coppice {

template <class Statistics>
using TopKShardKernels = ShardKernels<TopKCrossEntropyParams<float>, Statistics>;

/// Shapes, types, ids and settings; the rows as checked_rows() leaves them.
HeadRows checked_top_k_rows(const HeadRows& rows, const TopK& top, const TopKSettings& settings);

/// `whole(where, params)` runs rows of the whole vocabulary, params of either element type. `cross_entropy` is that of
/// the params: for kernels alone.
template <class Statistics, class Whole>
LinearLoss top_k_step(const HeadRows& given_rows, const TopK& top, const TopKSettings& settings, const Whole& whole,
                      const TopKShardKernels<Statistics>& of_shard, bool cross_entropy = false) {
  const HeadRows rows = checked_top_k_rows(given_rows, top, settings);
  const int64_t k = top.id_NK.size(1);
  return walk_chunks(rows, [&](int64_t first, at::Tensor& logits_CV, const RowResults& results) {
    with_elements_of(logits_CV, [&]<class T>() {
      const TopKCrossEntropyParams<T> params{.logits = mutable_elements<T>(logits_CV),
                                             .true_label = elements<int64_t>(rows.true_label_N) + first,
                                             .top_id = elements<int64_t>(top.id_NK) + first * k,
                                             .top_logp = elements<float>(top.logp_NK) + first * k,
                                             .tail_logp = elements<float>(top.tail_logp_N) + first,
                                             .rows = results.rows,
                                             .terms = results.terms,
                                             .num_rows = logits_CV.size(0),
                                             .num_vocab = rows.head_VD.size(0),
                                             .first_id = rows.shard.first,
                                             .k = k,
                                             .settings = settings,
                                             .scale = rows.scale,
                                             .write_gradient = rows.head_grad_VD.defined(),
                                             .argmax = rows.argmax,
                                             .cross_entropy = cross_entropy};
      run_rows(
          rows, params, [&](const auto& of_chunk) { whole(rows.hidden_ND, of_chunk); }, of_shard);
    });
  });
}

}  // namespace coppice
