// Labelling of one shard: cut it into windows by the rule, read windows of like length together, keep the top-1 of the positions each window owns.
// Attention is causal, so neither the padding behind a short window nor its neighbours in the batch reach a label.
#include "teacher/label.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <future>

#include "src/base/errors.h"
#include "src/tensors/ops.h"

namespace coppice {

std::vector<LabelWindow> label_windows(const std::vector<uint64_t>& document_ends, const LabelRule& rule) {
  COPPICE_CHECK(rule.context > 0 && rule.overlap >= 0 && rule.overlap < rule.context, fmt::format("context {}, overlap {}", rule.context, rule.overlap));
  const bool aligned = rule.window_rule == "aligned";
  COPPICE_CHECK(aligned || rule.window_rule == "document", "window_rule " + rule.window_rule);
  const auto context = static_cast<uint64_t>(rule.context);
  const uint64_t overlap = aligned ? 0 : static_cast<uint64_t>(rule.overlap);
  std::vector<LabelWindow> windows;
  const auto cut = [&](uint64_t begin, uint64_t end) {
    for (uint64_t first = begin;; first += context - overlap) {
      const uint64_t last = std::min(first + context, end);
      windows.push_back({.begin = first, .length = last - first, .skip = first == begin ? 0 : overlap});
      if (last == end) return;
    }
  };
  if (aligned) {
    if (!document_ends.empty()) cut(0, document_ends.back());
  } else {
    for (uint64_t begin = 0; const uint64_t end : document_ends) {
      cut(begin, end);
      begin = end;
    }
  }
  return windows;
}

namespace {

/// Keeps the windows that own a wanted token.
void drop_unwanted(std::vector<LabelWindow>& windows, const std::vector<char>& wanted_tokens) {
  std::erase_if(windows, [&](const LabelWindow& window) {
    const auto first = wanted_tokens.begin() + static_cast<std::ptrdiff_t>(window.begin + window.skip),
               last = wanted_tokens.begin() + static_cast<std::ptrdiff_t>(window.begin + window.length);
    return std::find(first, last, 1) == last;
  });
}

/// Reads the wanted windows of a shard, like beside like: visit(hidden states, their tokens) without overlap and padding, which need no logits.
using HiddenRows = std::function<void(const at::Tensor& hidden_ND, const std::vector<int64_t>& tokens)>;
void read_windows(const Model& teacher, const TokenShards& shards, size_t shard, const LabelRule& rule, const std::function<void(uint64_t)>& progress,
                  const std::vector<char>& wanted_tokens, const HiddenRows& visit) {
  const at::NoGradGuard no_grad;
  COPPICE_CHECK(rule.batch_tokens > 0, fmt::format("batch_tokens {}", rule.batch_tokens));
  COPPICE_CHECK(shards.vocab_size() == teacher.config.vocab_size,
                fmt::format("shards hold ids up to {}, the teacher knows {}", shards.vocab_size(), teacher.config.vocab_size));
  std::vector<LabelWindow> windows = label_windows(shards.document_ends(shard), rule);
  if (!wanted_tokens.empty()) {
    COPPICE_CHECK(wanted_tokens.size() == shards.shards().at(shard).tokens,
                  fmt::format("{} wanted flags for {} tokens", wanted_tokens.size(), shards.shards().at(shard).tokens));
    drop_unwanted(windows, wanted_tokens);
  }
  std::ranges::stable_sort(windows, std::ranges::greater{}, &LabelWindow::length);  // full windows first and in order, then like beside like

  struct Prepared {
    at::Tensor token_BT;
    std::vector<int64_t> position, target;  // row of the hidden states, token of the shard
    size_t next = 0;                        // window behind them
  };
  const auto prepare = [&](size_t first) {
    const auto seq_len = static_cast<int64_t>(windows[first].length);
    const size_t rows = std::min(windows.size() - first, static_cast<size_t>(std::max<int64_t>(rule.batch_tokens / seq_len, 1)));
    Prepared batch{.token_BT = at::zeros({static_cast<int64_t>(rows), seq_len}, at::kLong), .position = {}, .target = {}, .next = first + rows};
    int64_t* tokens = batch.token_BT.mutable_data_ptr<int64_t>();
    for (size_t row = 0; row < rows; ++row) {
      const LabelWindow& window = windows[first + row];
      shards.read(shard, window.begin, window.length, tokens + row * static_cast<size_t>(seq_len));
      for (uint64_t i = window.skip; i < window.length; ++i) {
        batch.position.push_back(static_cast<int64_t>(row) * seq_len + static_cast<int64_t>(i));
        batch.target.push_back(static_cast<int64_t>(window.begin + i));
      }
    }
    return batch;
  };
  uint64_t labelled = 0;
  std::future<Prepared> next;  // the next batch is prepared while this one computes
  for (size_t first = 0; first < windows.size();) {
    const Prepared batch = next.valid() ? next.get() : prepare(first);
    first = batch.next;
    if (first < windows.size()) next = std::async(std::launch::async, prepare, first);
    const int64_t seq_len = batch.token_BT.size(1);
    const at::Tensor hidden_ND =
        decoder_hidden(teacher, {.token_BT = batch.token_BT, .position_BT = at::arange(seq_len).expand_as(batch.token_BT), .document_BT = {}});
    visit(hidden_ND.index_select(0, at::tensor(batch.position, at::kLong)), batch.target);
    labelled += batch.target.size();
    if (progress) progress(labelled);
  }
}

}  // namespace

std::vector<int32_t> label_shard(const Model& teacher, const TokenShards& shards, size_t shard, const LabelRule& rule,
                                 const std::function<void(uint64_t)>& progress, const std::vector<char>& wanted_tokens) {
  const LabelFingerprint top_1_tier{.vocab_size = shards.vocab_size()};
  return label_shard_tier(teacher, shards, shard, rule, top_1_tier, progress, wanted_tokens).id;
}

ShardLabels label_shard_tier(const Model& teacher, const TokenShards& shards, size_t shard, const LabelRule& rule, const LabelFingerprint& fingerprint,
                             const std::function<void(uint64_t)>& progress, const std::vector<char>& wanted_tokens) {
  const at::Tensor head_VD = output_head(teacher);
  ShardLabels labels(shards.shards().at(shard).tokens, fingerprint);
  const auto k = static_cast<size_t>(fingerprint.k);
  labels.near_ties = 0;
  read_windows(teacher, shards, shard, rule, progress, wanted_tokens, [&](const at::Tensor& hidden_ND, const std::vector<int64_t>& tokens) {
    TopFacts facts;
    const auto judge = [&] {
      check_finite(facts, rule.teacher);
      labels.near_ties += facts.near_ties;
    };
    if (!fingerprint.has_logp()) {
      const at::Tensor top_N = top_1(hidden_ND, head_VD, &facts);
      judge();
      for (size_t i = 0; i < tokens.size(); ++i) labels.id[static_cast<size_t>(tokens[i])] = static_cast<int32_t>(top_N.const_data_ptr<int64_t>()[i]);
      return;
    }
    const TopK top = top_k(hidden_ND, head_VD, fingerprint.k, fingerprint.temperature, &facts);
    judge();
    for (size_t i = 0; i < tokens.size(); ++i) {
      const auto token = static_cast<size_t>(tokens[i]);
      for (size_t j = 0; j < k; ++j) {
        labels.id[token * k + j] = static_cast<int32_t>(top.id_NK.const_data_ptr<int64_t>()[i * k + j]);
        labels.logp[token * k + j] = top.logp_NK.const_data_ptr<float>()[i * k + j];
      }
      if (fingerprint.has_tail()) labels.tail[token] = top.tail_logp_N.const_data_ptr<float>()[i];
    }
  });
  return labels;
}

void check_finite(const TopFacts& facts, const std::string& teacher) {
  if (facts.not_finite > 0)
    throw UserError::bad_file(teacher,
                              fmt::format("the logits of {} tokens are not finite: its weights hold NaN or infinity, or grew without bounds; train it again "
                                          "with a lower lr, or take an earlier stage",
                                          facts.not_finite));
}

}  // namespace coppice
