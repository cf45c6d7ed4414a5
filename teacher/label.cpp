// Labelling of one shard: cut it into windows by the rule, read windows of like length together, keep the choices at
// the wanted positions each window owns. Attention is causal, so neither the padding behind a short window nor its
// neighbours in the batch reach a label; but the shape of a batch rounds its hidden states, so for draws a window is
// read alone (logits and draws depend on their own row: src/tensors/kernels/logits.h).
#include "teacher/label.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <future>
#include <memory>
#include <utility>

#include "src/base/errors.h"
#include "src/data/draw_numbers.h"
#include "src/tensors/draws.h"
#include "src/tensors/ops.h"
#include "src/tensors/transfers.h"

namespace coppice {

std::vector<LabelWindow> label_windows(const std::vector<uint64_t>& document_ends, const LabelRule& rule) {
  COPPICE_CHECK(rule.context > 0 && rule.overlap >= 0 && rule.overlap < rule.context,
                fmt::format("context {}, overlap {}", rule.context, rule.overlap));
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

/// The tokens that are to be labelled, and the row of each among the labels.
class WantedTokens {
 public:
  explicit WantedTokens(const TokenRuns& runs) : runs_(runs) {
    uint64_t row = 0;
    for (const TokenRun& run : runs) {
      first_row_.push_back(row);
      row += run.size();
    }
  }
  bool owned_by(const LabelWindow& window) const {
    const auto run = first_run(window);
    return run != runs_.end() && run->begin < window.begin + window.length;
  }
  /// visit(token, row) for those that a window owns.
  void visit(const LabelWindow& window, const std::function<void(uint64_t token, uint64_t row)>& visit) const {
    const uint64_t begin = window.begin + window.skip, end = window.begin + window.length;
    for (auto run = first_run(window); run != runs_.end() && run->begin < end; ++run) {
      const uint64_t first_row = first_row_[static_cast<size_t>(run - runs_.begin())];
      for (uint64_t token = std::max(begin, run->begin); token < std::min(end, run->end); ++token)
        visit(token, first_row + (token - run->begin));
    }
  }

 private:
  TokenRuns::const_iterator first_run(const LabelWindow& window) const {
    return std::ranges::upper_bound(runs_, window.begin + window.skip, {}, &TokenRun::end);
  }
  const TokenRuns& runs_;
  std::vector<uint64_t> first_row_;
};

/// A wanted token, and the row of its label.
struct LabelPlace {
  uint64_t token, row;
};
/// Reads the windows that own a wanted token, like beside like: visit(hidden states of the wanted tokens, their
/// places). Nothing else needs logits.
using HiddenRows = std::function<void(const at::Tensor& hidden_ND, const std::vector<LabelPlace>& places)>;
void read_windows(const Model& teacher, const TokenShards& shards, size_t shard, const LabelRule& rule,
                  const std::function<void(uint64_t)>& progress, const TokenRuns& wanted_runs,
                  const HiddenRows& visit) {
  const at::NoGradGuard no_grad;
  const at::Device device = teacher.arena->placement().device;
  COPPICE_CHECK(rule.batch_tokens > 0, fmt::format("batch_tokens {}", rule.batch_tokens));
  COPPICE_CHECK(
      shards.vocab_size() == teacher.config.vocab_size,
      fmt::format("shards hold ids up to {}, the teacher knows {}", shards.vocab_size(), teacher.config.vocab_size));
  const WantedTokens wanted(wanted_runs);
  std::vector<LabelWindow> windows = label_windows(shards.document_ends(shard), rule);
  std::erase_if(windows, [&](const LabelWindow& window) { return !wanted.owned_by(window); });
  std::ranges::stable_sort(windows, std::ranges::greater{},
                           &LabelWindow::length);  // full windows first and in order, then like beside like

  struct Prepared {
    at::Tensor token_BT;
    std::vector<int64_t> position;  // of the wanted tokens in the batch
    std::vector<LabelPlace> place;
    size_t next = 0;  // window behind them
  };
  const auto prepare = [&](size_t first) {
    const auto seq_len = static_cast<int64_t>(windows[first].length);
    const size_t rows =
        std::min(windows.size() - first, static_cast<size_t>(std::max<int64_t>(rule.batch_tokens / seq_len, 1)));
    Prepared batch{.token_BT = at::zeros({static_cast<int64_t>(rows), seq_len}, at::kLong),
                   .position = {},
                   .place = {},
                   .next = first + rows};
    int64_t* tokens = batch.token_BT.mutable_data_ptr<int64_t>();
    for (size_t row = 0; row < rows; ++row) {
      const LabelWindow& window = windows[first + row];
      shards.read(shard, window.begin, window.length, tokens + row * static_cast<size_t>(seq_len));
      wanted.visit(window, [&](uint64_t token, uint64_t label_row) {
        batch.position.push_back(static_cast<int64_t>(row) * seq_len + static_cast<int64_t>(token - window.begin));
        batch.place.push_back({token, label_row});
      });
    }
    return batch;
  };
  uint64_t labelled = 0;
  std::future<Prepared> next;  // the next batch is prepared while this one computes
  for (size_t first = 0; first < windows.size();) {
    const Prepared batch = next.valid() ? next.get() : prepare(first);
    first = batch.next;
    if (first < windows.size()) next = std::async(std::launch::async, prepare, first);
    at::Tensor token_BT = batch.token_BT, position_N = at::tensor(batch.position, at::kLong);
    send({&token_BT, &position_N}, device);
    const int64_t seq_len = token_BT.size(1);
    const at::Tensor hidden_ND =
        decoder_hidden(teacher, {.token_BT = token_BT,
                                 .position_BT = at::arange(seq_len, token_BT.options()).expand_as(token_BT),
                                 .document_BT = {},
                                 .ids_below = shards.vocab_size(),
                                 .largest_position = seq_len - 1});
    visit(hidden_ND.index_select(0, position_N), batch.place);
    labelled += batch.place.size();
    if (progress) progress(labelled);
  }
}

}  // namespace

std::vector<int32_t> label_shard(const Model& teacher, const TokenShards& shards, size_t shard, const LabelRule& rule,
                                 const std::function<void(uint64_t)>& progress) {
  return label_shard_tier(teacher, shards, shard, rule, {.vocab_size = shards.vocab_size()}, progress).id;
}

ShardLabels label_shard_tier(const Model& teacher, const TokenShards& shards, size_t shard, const LabelRule& rule,
                             const LabelFingerprint& fingerprint, const std::function<void(uint64_t)>& progress) {
  return label_shard_tier(teacher, shards, shard, rule, fingerprint, progress, {{0, shards.shards().at(shard).tokens}});
}

namespace {

/// Of `draws` draws for each place: float64 [N, draws].
at::Tensor numbers_of(const std::vector<LabelPlace>& places, int64_t draws, uint64_t seed, uint64_t stream) {
  const at::Tensor number_NR = at::empty({static_cast<int64_t>(places.size()), draws}, at::kDouble);
  double* number = number_NR.mutable_data_ptr<double>();
  for (const LabelPlace& place : places) {
    fill_draw_numbers(seed, stream, place.token, {number, static_cast<size_t>(draws)});
    number += draws;
  }
  return number_NR;
}

/// What a tier keeps of some rows, where it was made; undefined: it does not.
struct Chosen {
  at::Tensor id_NK, logp_NK, tail_logp_N, log_weight_NK, drawn_NR;
  TopFacts facts;
};

Chosen choose(const at::Tensor& hidden_ND, const at::Tensor& head_VD, const ShardLabels& labels,
              const LabelFingerprint& fingerprint, uint64_t stream, const std::vector<LabelPlace>& places) {
  const auto numbers = [&](int64_t draws) {
    return sent(numbers_of(places, draws, fingerprint.draw_seed, stream), hidden_ND.device());
  };
  const double temperature = fingerprint.temperature;
  Chosen chosen;
  const auto keep = [&](const TopK& top) {
    chosen.id_NK = top.id_NK;
    chosen.logp_NK = top.logp_NK;
    if (labels.has_tail) chosen.tail_logp_N = top.tail_logp_N;
  };
  if (fingerprint.has_draws()) {
    const WeightedDraws draws = draw_weighted_ids(hidden_ND, head_VD, temperature, fingerprint.proposal_temperature,
                                                  numbers(labels.k), &chosen.facts);
    chosen.id_NK = draws.id_NR;
    chosen.log_weight_NK = draws.log_weight_NR;
  } else if (fingerprint.has_tail_draws()) {
    const HeadAndDraws both =
        top_k_and_draws(hidden_ND, head_VD, labels.k, temperature, numbers(labels.draws), &chosen.facts);
    keep(both.top);
    chosen.drawn_NR = both.drawn_NR;
  } else if (fingerprint.has_logp()) {
    keep(top_k(hidden_ND, head_VD, labels.k, temperature, &chosen.facts));
  } else {
    chosen.id_NK = top_1(hidden_ND, head_VD, &chosen.facts).unsqueeze(1);
  }
  return chosen;
}

/// Rows of `values`, contiguous on the host, to the places' rows of `out`, which has as many columns.
template <class Value, class Stored>
void store_rows(const at::Tensor& values, const std::vector<LabelPlace>& places, std::vector<Stored>& out) {
  if (!values.defined()) return;
  const auto width = static_cast<size_t>(values.numel()) / std::max<size_t>(places.size(), 1);
  const Value* value = values.const_data_ptr<Value>();
  for (const LabelPlace& place : places)
    for (size_t j = 0; j < width; ++j) out[place.row * width + j] = static_cast<Stored>(*value++);
}

/// The choices of a batch on their way to the host, and where they go.
class ChosenBatch {
 public:
  ChosenBatch(Chosen chosen, std::vector<LabelPlace> places)
      : chosen_(std::move(chosen)),
        places_(std::move(places)),
        fetch_({&chosen_.id_NK, &chosen_.logp_NK, &chosen_.tail_logp_N, &chosen_.log_weight_NK, &chosen_.drawn_NR,
                &chosen_.facts.fact_N}) {}

  /// Waits for them; adds the near ties among them.
  void store(const std::string& teacher, ShardLabels& labels, int64_t& near_ties) {
    fetch_.wait();
    check_finite(chosen_.facts.not_finite_N().sum().item<int64_t>(), teacher);
    near_ties += chosen_.facts.count_near_ties();
    store_rows<int64_t>(chosen_.id_NK, places_, labels.id);
    store_rows<float>(chosen_.logp_NK, places_, labels.logp);
    store_rows<float>(chosen_.tail_logp_N, places_, labels.tail);
    store_rows<float>(chosen_.log_weight_NK, places_, labels.log_weight);
    store_rows<int64_t>(chosen_.drawn_NR, places_, labels.drawn);
  }

 private:
  Chosen chosen_;
  std::vector<LabelPlace> places_;
  Fetch fetch_;
};

}  // namespace

ShardLabels label_shard_tier(const Model& teacher, const TokenShards& shards, size_t shard, const LabelRule& rule,
                             const LabelFingerprint& fingerprint, const std::function<void(uint64_t)>& progress,
                             const TokenRuns& wanted) {
  const at::Tensor head_VD = output_head(teacher);
  const uint64_t stream = draw_stream(shards.shards().at(shard));
  LabelRule reading = rule;
  if (fingerprint.is_drawn()) reading.batch_tokens = 1;  // each window alone
  ShardLabels labels(wanted, fingerprint);
  int64_t near_ties = 0;
  std::unique_ptr<ChosenBatch> before;  // stored while a device computes the next one
  read_windows(teacher, shards, shard, reading, progress, wanted,
               [&](const at::Tensor& hidden_ND, const std::vector<LabelPlace>& places) {
                 auto now = std::make_unique<ChosenBatch>(
                     choose(hidden_ND, head_VD, labels, fingerprint, stream, places), places);
                 if (before) before->store(rule.teacher, labels, near_ties);
                 before = std::move(now);
               });
  if (before) before->store(rule.teacher, labels, near_ties);
  if (!fingerprint.is_drawn()) labels.near_ties = near_ties;
  return labels;
}

void check_finite(int64_t tokens, const std::string& teacher) {
  if (tokens > 0)
    throw UserError::bad_file(teacher, fmt::format("the logits of {} tokens are not finite: its weights hold NaN or "
                                                   "infinity, or grew without bounds; train it again "
                                                   "with a lower lr, or take an earlier stage",
                                                   tokens));
}

}  // namespace coppice
