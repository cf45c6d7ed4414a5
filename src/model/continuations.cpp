// A sequence's input is context and continuation without its last token; position t predicts token t + 1. Padding on
// the right is behind every position that is read, so causal attention never sees it. Only the positions that predict
// the continuation meet the output head. R rows = such positions.
#include "src/model/continuations.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "src/base/errors.h"
#include "src/tensors/ops.h"

namespace coppice {
namespace {

constexpr int64_t kHeadRows = 1024;  // logits in memory at a time

int64_t input_length(const Continuation& one, int64_t max_length) {
  return std::min(std::ssize(one.context) + std::ssize(one.continuation) - 1, max_length);
}

void check_continuation(const Continuation& one, const ModelConfig& config) {
  COPPICE_CHECK(!one.context.empty() && !one.continuation.empty(), "an empty context or continuation");
  if (std::ssize(one.continuation) > config.max_position_embeddings)
    throw UserError::recipe("", fmt::format("a continuation of {} tokens is longer than the model's {} positions",
                                            one.continuation.size(), config.max_position_embeddings));
  for (const auto* ids : {&one.context, &one.continuation})
    for (const int64_t id : *ids)
      if (id < 0 || id >= config.vocab_size)
        throw UserError::recipe("", fmt::format("token {} is outside the vocabulary of {}", id, config.vocab_size));
}

/// At the rows of hidden_RD: log p of the targets, float32, and whether each is the most probable token.
struct TargetRows {
  at::Tensor logp_R, is_top_R;
};
TargetRows read_targets(const at::Tensor& hidden_RD, const at::Tensor& head_VD, const at::Tensor& target_R) {
  std::vector<at::Tensor> logp, is_top;
  for (int64_t first = 0; first < hidden_RD.size(0); first += kHeadRows) {
    const int64_t count = std::min(kHeadRows, hidden_RD.size(0) - first);
    const at::Tensor logp_CV = at::log_softmax(linear(hidden_RD.narrow(0, first, count), head_VD, at::Tensor()), 1);
    const at::Tensor target_C = target_R.narrow(0, first, count);
    logp.push_back(logp_CV.gather(1, target_C.unsqueeze(1)).squeeze(1));
    is_top.push_back(logp_CV.argmax(1).eq(target_C));
  }
  return {at::cat(logp), at::cat(is_top)};
}

}  // namespace

std::vector<ContinuationScore> score_continuations(const Model& model, std::span<const Continuation> continuations,
                                                   int64_t batch_tokens,
                                                   const std::function<void(size_t)>& before_batch) {
  const at::NoGradGuard no_grad;
  const int64_t max_length = model.config.max_position_embeddings;
  for (const Continuation& one : continuations) check_continuation(one, model.config);
  std::vector<size_t> order(continuations.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, std::greater<>(),
                           [&](size_t i) { return input_length(continuations[i], max_length); });

  std::vector<ContinuationScore> scores(continuations.size(), {.log_likelihood = 0.0, .is_greedy = true});
  for (size_t begin = 0, end = 0; begin < order.size(); begin = end) {
    if (before_batch) before_batch(begin);
    const int64_t length = input_length(continuations[order[begin]], max_length);
    end = std::min(order.size(), begin + static_cast<size_t>(std::max<int64_t>(1, batch_tokens / length)));
    const auto rows = static_cast<int64_t>(end - begin);
    const at::Tensor token_BT = at::zeros({rows, length}, at::kLong);
    std::vector<int64_t> place, target;  // of every judged token: its row in the flattened batch, its id
    for (int64_t row = 0; row < rows; ++row) {
      const Continuation& one = continuations[order[begin + static_cast<size_t>(row)]];
      std::vector<int64_t> sequence = one.context;
      sequence.insert(sequence.end(), one.continuation.begin(), one.continuation.end());
      const int64_t own_length = input_length(one, max_length);
      std::copy(sequence.end() - own_length - 1, sequence.end() - 1,
                token_BT.mutable_data_ptr<int64_t>() + row * length);
      for (int64_t i = 0; i < std::ssize(one.continuation); ++i)
        place.push_back(row * length + own_length - std::ssize(one.continuation) + i);
      target.insert(target.end(), one.continuation.begin(), one.continuation.end());
    }
    const at::Tensor hidden_ND =
        decoder_hidden(model, {.token_BT = token_BT,
                               .position_BT = at::arange(length, at::kLong).expand({rows, length}),
                               .document_BT = {},
                               .ids_below = model.config.vocab_size,  // check_continuation
                               .largest_position = length - 1});
    const auto [logp_R, is_top_R] = read_targets(hidden_ND.index_select(0, at::tensor(place, at::kLong)),
                                                 output_head(model), at::tensor(target, at::kLong));
    const float* logp = logp_R.const_data_ptr<float>();
    const bool* is_top = is_top_R.const_data_ptr<bool>();
    for (size_t i = begin; i < end; ++i)
      for (size_t t = 0; t < continuations[order[i]].continuation.size(); ++t) {
        scores[order[i]].log_likelihood += static_cast<double>(*logp++);
        scores[order[i]].is_greedy &= *is_top++;
      }
  }
  return scores;
}

}  // namespace coppice
