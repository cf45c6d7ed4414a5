// A sequence's input is context and continuation without its last token; position t predicts token t + 1. Whatever
// stands to the right of the positions that are read for a continuation, padding or the rest of a longer input, causal
// attention never sees. Only the positions that predict a continuation meet the output head. R rows = such positions.
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

/// What the model reads for one continuation.
struct Input {
  std::span<const int64_t> context, continuation;
  int64_t left_out = 0, length = 0;

  Input(const Continuation& one, int64_t max_length) : context(one.context), continuation(one.continuation) {
    const int64_t whole = std::ssize(context) + std::ssize(continuation) - 1;
    length = std::min(whole, max_length);
    left_out = whole - length;
  }
  int64_t operator[](int64_t t) const {
    const auto at = static_cast<size_t>(left_out + t);
    return at < context.size() ? context[at] : continuation[at - context.size()];
  }
};

int64_t shared_length(const Input& left, const Input& right) {
  const int64_t end = std::min(left.length, right.length);
  int64_t t = 0;
  while (t < end && left[t] == right[t]) ++t;
  return t;
}

/// By the ids, the larger first, and the longer before its beginnings.
bool is_before(const Input& left, const Input& right) {
  const int64_t shared = shared_length(left, right);
  if (shared == left.length || shared == right.length) return left.length > right.length;
  return left[shared] > right[shared];
}

void check_continuation(const Continuation& one, const ModelConfig& config) {
  COPPICE_CHECK(!one.context.empty() && !one.continuation.empty(), "an empty context or continuation");
  if (std::ssize(one.continuation) > config.max_position_embeddings)
    throw UserError::recipe("", fmt::format("a continuation of {} tokens is longer than the model's {} positions",
                                            one.continuation.size(), config.max_position_embeddings));
  for (const std::span<const int64_t> ids : {one.context, one.continuation})
    for (const int64_t id : ids)
      if (id < 0 || id >= config.vocab_size)
        throw UserError::recipe("", fmt::format("token {} is outside the vocabulary of {}", id, config.vocab_size));
}

/// At the rows of hidden_RD: log p of the targets, float32, and whether each is the most probable token; on the host.
struct TargetRows {
  at::Tensor logp_R, is_top_R;
};
TargetRows read_targets(const at::Tensor& hidden_RD, const at::Tensor& head, const at::Tensor& target_R) {
  const at::Tensor head_VD = head.to(at::kFloat);
  std::vector<at::Tensor> logp, is_top;
  for (int64_t first = 0; first < hidden_RD.size(0); first += kHeadRows) {
    const int64_t count = std::min(kHeadRows, hidden_RD.size(0) - first);
    const at::Tensor hidden_CD = hidden_RD.narrow(0, first, count).to(at::kFloat);
    const at::Tensor logp_CV = at::log_softmax(linear(hidden_CD, head_VD, at::Tensor()), 1);
    const at::Tensor target_C = target_R.narrow(0, first, count);
    logp.push_back(logp_CV.gather(1, target_C.unsqueeze(1)).squeeze(1));
    is_top.push_back(logp_CV.argmax(1).eq(target_C));
  }
  return {at::cat(logp).cpu(), at::cat(is_top).cpu()};
}

}  // namespace

std::vector<ContinuationRow> continuation_rows(std::span<const Continuation> continuations, int64_t max_length) {
  std::vector<Input> inputs;
  for (const Continuation& one : continuations) inputs.emplace_back(one, max_length);
  std::vector<size_t> order(inputs.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, [&](size_t left, size_t right) { return is_before(inputs[left], inputs[right]); });
  std::vector<ContinuationRow> rows;
  for (const size_t i : order) {
    const int64_t length = inputs[i].length;
    if (rows.empty() || shared_length(inputs[rows.back().answers[0]], inputs[i]) < length)
      rows.push_back({.length = length, .answers = {}});
    rows.back().answers.push_back(i);
  }
  std::ranges::sort(rows, [](const ContinuationRow& left, const ContinuationRow& right) {
    return left.length != right.length ? left.length > right.length : left.answers[0] < right.answers[0];
  });
  return rows;
}

std::vector<ContinuationScore> score_continuations(const Model& model, std::span<const Continuation> continuations,
                                                   int64_t batch_tokens,
                                                   const std::function<void(uint64_t)>& before_batch) {
  const at::NoGradGuard no_grad;
  const at::Device device = model.arena->placement().device;
  const int64_t max_length = model.config.max_position_embeddings;
  for (const Continuation& one : continuations) check_continuation(one, model.config);
  const std::vector<ContinuationRow> rows = continuation_rows(continuations, max_length);

  std::vector<ContinuationScore> scores(continuations.size(), {.log_likelihood = 0.0, .is_greedy = true});
  uint64_t tokens_done = 0;
  for (size_t begin = 0, end = 0; begin < rows.size(); begin = end) {
    if (before_batch) before_batch(tokens_done);
    const int64_t length = rows[begin].length;
    end = std::min(rows.size(), begin + static_cast<size_t>(std::max<int64_t>(1, batch_tokens / length)));
    const auto num_rows = static_cast<int64_t>(end - begin);
    const at::Tensor token_BT = at::zeros({num_rows, length}, at::kLong);
    std::vector<int64_t> place, target;  // of every judged token: where in the flattened batch it is predicted, its id
    for (int64_t row = 0; row < num_rows; ++row) {
      const ContinuationRow& own = rows[begin + static_cast<size_t>(row)];
      const Input whole(continuations[own.answers[0]], max_length);
      int64_t* tokens = token_BT.mutable_data_ptr<int64_t>() + row * length;
      for (int64_t t = 0; t < own.length; ++t) tokens[t] = whole[t];
      for (const size_t i : own.answers) {
        const std::span<const int64_t> judged = continuations[i].continuation;
        const int64_t first = row * length + Input(continuations[i], max_length).length - std::ssize(judged);
        for (int64_t t = 0; t < std::ssize(judged); ++t) place.push_back(first + t);
        target.insert(target.end(), judged.begin(), judged.end());
      }
      tokens_done += static_cast<uint64_t>(own.length);
    }
    const at::Tensor hidden_ND =
        decoder_hidden(model, {.token_BT = token_BT.to(device),
                               .position_BT = at::arange(length, at::kLong).to(device).expand({num_rows, length}),
                               .document_BT = {},
                               .ids_below = model.config.vocab_size,  // check_continuation
                               .largest_position = length - 1});
    const auto [logp_R, is_top_R] = read_targets(hidden_ND.index_select(0, at::tensor(place, at::kLong).to(device)),
                                                 output_head(model), at::tensor(target, at::kLong).to(device));
    const float* logp = logp_R.const_data_ptr<float>();
    const bool* is_top = is_top_R.const_data_ptr<bool>();
    for (size_t row = begin; row < end; ++row)
      for (const size_t i : rows[row].answers)
        for (size_t t = 0; t < continuations[i].continuation.size(); ++t) {
          scores[i].log_likelihood += static_cast<double>(*logp++);
          scores[i].is_greedy &= *is_top++;
        }
  }
  return scores;
}

}  // namespace coppice
