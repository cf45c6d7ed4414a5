// Torch at the door of the losses over a row's k ids: what they check, and the walk over chunks.
#pragma once

#include "src/tensors/kernels/linear_loss.h"
#include "src/tensors/kernels/linear_top_k_cross_entropy.h"

namespace coppice {

/// Rows in one walk, or over a part of the vocabulary in two.
template <class Statistics>
struct TopKKernels {
  void (*whole)(const TopKCrossEntropyParams<float>& params);
  void (*measure)(const TopKCrossEntropyParams<float>& params, Statistics* statistics);
  void (*finish)(const TopKCrossEntropyParams<float>& params, const RowParts<Statistics>& parts);
};

/// Shapes, types, ids and settings; the rows as checked_rows() leaves them.
HeadRows checked_top_k_rows(const HeadRows& rows, const TopK& top, const TopKSettings& settings);

template <class Statistics>
LinearLoss top_k_step(const HeadRows& given_rows, const TopK& top, const TopKSettings& settings,
                      const TopKKernels<Statistics>& kernels) {
  const HeadRows rows = checked_top_k_rows(given_rows, top, settings);
  const int64_t k = top.id_NK.size(1);
  return walk_chunks(rows, [&](int64_t first, at::Tensor& logits_CV, LossRow* loss) {
    const TopKCrossEntropyParams<float> params{.logits = logits_CV.mutable_data_ptr<float>(),
                                               .true_label = rows.true_label_N.const_data_ptr<int64_t>() + first,
                                               .top_id = top.id_NK.const_data_ptr<int64_t>() + first * k,
                                               .top_logp = top.logp_NK.const_data_ptr<float>() + first * k,
                                               .tail_logp = top.tail_logp_N.const_data_ptr<float>() + first,
                                               .rows = loss,
                                               .num_rows = logits_CV.size(0),
                                               .num_vocab = rows.head_VD.size(0),
                                               .first_id = rows.shard.first,
                                               .k = k,
                                               .settings = settings,
                                               .scale = rows.scale,
                                               .write_gradient = rows.head_grad_VD.defined(),
                                               .argmax = rows.argmax};
    if (rows.shard.total == 0) return kernels.whole(params);
    RowExchange<Statistics> statistics(params.num_rows);
    kernels.measure(params, statistics.own());
    kernels.finish(params, statistics.exchange(rows.shard));
  });
}

}  // namespace coppice
