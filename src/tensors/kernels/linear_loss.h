// What the linear + loss operations share: logits = hidden head^T a chunk of tokens at a time, a pass over the chunk's
// rows that leaves d(logits) in place of the logits, and two more products that turn them into d(hidden) and an
// addition to d(head). Never tokens x vocabulary in memory.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string_view>
#include <type_traits>
#include <vector>

#include "src/tensors/kernels/loss_rows.h"
#include "src/tensors/kernels/loss_terms.h"
#include "src/tensors/ops.h"

namespace coppice {

/// float32 or bfloat16 both, on one device, widths equal, not empty.
void check_head(const at::Tensor& hidden_ND, const at::Tensor& head_VD, std::string_view hidden_name,
                std::string_view head_name);
/// One contiguous int64 label a row on `device`, in [0, num_vocab) or kIgnoredLabel: looked at unless `labels_below`
/// says so.
void check_labels(const at::Tensor& label_N, int64_t num_rows, int64_t num_vocab, int64_t labels_below,
                  at::Device device, const char* name);
/// `rows` outside autograd, shapes, types and true labels checked.
HeadRows checked_rows(const HeadRows& rows);

/// What rows of logits say of their choices, for kernels to fill in; all null where nobody asks for it.
class RowFacts {
 public:
  RowFacts(const at::Tensor& hidden_ND, TopFacts* facts);
  TopFact* from(int64_t row);

 private:
  at::Tensor fact_N_;
};

/// Logits of one chunk after the other, all in one buffer. On the CPU every logit is a float32 sum of its own, whatever
/// the operands' type.
class LogitChunks {
 public:
  /// `rows` of a chunk; 0 = by the size of `num_vocab` logits, the whole vocabulary's, so that all its shards walk the
  /// same chunks (0 = the head's). `type` of the logits: float32, or bfloat16 where the operands are.
  LogitChunks(const at::Tensor& hidden_ND, const at::Tensor& head_VD, int64_t rows = 0, int64_t num_vocab = 0,
              at::ScalarType type = at::kFloat);
  int64_t rows() const { return rows_; }  // of a chunk; the last one may have fewer
  int64_t num_rows() const { return hidden_ND_.size(0); }
  /// Logits of rows [first, first + rows()), valid until the next call.
  at::Tensor at(int64_t first);

 private:
  at::Tensor hidden_ND_, head_VD_, buffer_CV_;
  int64_t rows_;
};

/// Where a pass leaves what the rows of a chunk contribute: `rows` for the CPU's loops, `terms` for kernels; the other
/// is null.
struct RowResults {
  LossRow* rows = nullptr;
  LossTerms* terms = nullptr;
};
/// Walks the chunks of checked rows: `pass(first, logits_CV, results)` fills one result a token and, when head_grad_VD
/// is defined, leaves d(logits) in place. Sums over live rows are taken in an order of their own, so that they do not
/// depend on threads or chunks. `terms_N4`, where given, becomes the kernels' LossTerms of all rows, a float32 tensor;
/// undefined where the CPU's loops ran.
using RowPass = std::function<void(int64_t first, at::Tensor& logits_CV, const RowResults& results)>;
LinearLoss walk_chunks(const HeadRows& rows, const RowPass& pass, at::Tensor* terms_N4 = nullptr);
/// Element type of a chunk's logits: float32 where nothing is trained, so that what is measured is not rounded.
at::ScalarType logits_type(const HeadRows& rows);

/// float64 [num_rows, numbers], and what all parts of the vocabulary have of them.
at::Tensor empty_statistics(int64_t num_rows, int64_t numbers);
at::Tensor exchange_statistics(const at::Tensor& own_CX, const VocabularyShard& shard);
/// A chunk's row statistics on their way to the other parts of the vocabulary and back; Row is a struct of doubles.
template <class Row>
class RowExchange {
 public:
  explicit RowExchange(int64_t num_rows) : own_CX_(empty_statistics(num_rows, kNumbers)) {}
  Row* own() { return reinterpret_cast<Row*>(own_CX_.mutable_data_ptr<double>()); }
  /// All parts', valid as long as this lives.
  RowParts<Row> exchange(const VocabularyShard& shard) {
    all_RCX_ = exchange_statistics(own_CX_, shard);
    return {.own = own(),
            .all = reinterpret_cast<const Row*>(all_RCX_.template const_data_ptr<double>()),
            .num_parts = all_RCX_.size(0),
            .num_rows = own_CX_.size(0)};
  }

 private:
  static constexpr int64_t kNumbers = sizeof(Row) / sizeof(double);
  at::Tensor own_CX_, all_RCX_;
};

/// Rows over a part of the vocabulary, in two walks: statistics, and the gradient once those of all parts are known.
template <class Params, class Statistics>
struct ShardKernels {
  void (*measure)(const Params& params, Statistics* statistics);
  void (*finish)(const Params& params, const RowParts<Statistics>& parts);
};
/// Runs a chunk's rows: of the whole vocabulary by `whole(params)`, params of either element type, over a part of it by
/// `of_shard`.
template <class Params, class Whole, class FloatParams, class Statistics>
void run_rows(const HeadRows& rows, const Params& params, const Whole& whole,
              const ShardKernels<FloatParams, Statistics>& of_shard) {
  if constexpr (std::is_same_v<Params, FloatParams>) {
    if (rows.shard.total > 0) {
      RowExchange<Statistics> statistics(params.num_rows);
      of_shard.measure(params, statistics.own());
      of_shard.finish(params, statistics.exchange(rows.shard));
      return;
    }
  }
  whole(params);
}

/// Mean over live rows of (1 - w) ce + w kd + z as an autograd function of hidden and head; `step` is the loss with
/// gradients times `scale`, or forward only when head_grad_VD is undefined. No live row: 0.
using LossStep = std::function<LinearLoss(const at::Tensor& hidden_ND, const at::Tensor& head_VD,
                                          const at::Tensor& head_grad_VD, double scale)>;
at::Tensor mean_linear_loss(const at::Tensor& hidden_ND, const at::Tensor& head_VD, const at::Tensor& true_label_N,
                            double teacher_weight, const LossStep& step);

}  // namespace coppice
