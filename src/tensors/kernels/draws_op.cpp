// Torch at the door of draws. Shares of draws are counted where the draws lie: by loops on the CPU, on a device by
// sorts whose sizes follow from the shapes alone, so that nothing is waited for.
#include "src/tensors/kernels/draws.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "src/tensors/draws.h"
#include "src/tensors/kernels/launch.h"
#include "src/tensors/kernels/linear_loss.h"
#include "src/tensors/kernels/op_checks.h"
#include "src/tensors/kernels/top_k.h"

namespace coppice {

namespace {

void check_numbers(const at::Tensor& uniform_NR, int64_t num_rows, double temperature) {
  check_shape(uniform_NR, {num_rows, -1}, "uniform_NR");
  COPPICE_CHECK(uniform_NR.scalar_type() == at::kDouble && uniform_NR.is_contiguous() && uniform_NR.size(1) > 0,
                "uniform_NR: expected contiguous float64, one number a draw");
  COPPICE_CHECK(temperature > 0, fmt::format("temperature: got {}, expected above 0", temperature));
}

}  // namespace

WeightedDraws draw_weighted_ids(const at::Tensor& hidden, const at::Tensor& head, double temperature,
                                double proposal_temperature, const at::Tensor& uniform_NR, TopFacts* facts) {
  const at::NoGradGuard no_grad;
  const at::Tensor hidden_ND = hidden.detach(), head_VD = head.detach();
  check_head(hidden_ND, head_VD, "hidden_ND", "head_VD");
  check_numbers(uniform_NR, hidden_ND.size(0), temperature);
  COPPICE_CHECK(proposal_temperature > 0,
                fmt::format("proposal_temperature: got {}, expected above 0", proposal_temperature));
  const int64_t num_rows = hidden_ND.size(0), num_draws = uniform_NR.size(1);
  const at::Tensor number_NR = uniform_NR.to(hidden_ND.device());
  WeightedDraws draws{.id_NR = at::empty({num_rows, num_draws}, hidden_ND.options().dtype(at::kLong)),
                      .log_weight_NR = {}};
  const bool weighted = proposal_temperature != 1;
  if (weighted) draws.log_weight_NR = at::empty({num_rows, num_draws}, hidden_ND.options().dtype(at::kFloat));
  LogitChunks chunks(hidden_ND, head_VD);
  RowFacts row_facts(hidden_ND, facts);
  for (int64_t first = 0; first < num_rows; first += chunks.rows()) {
    const at::Tensor logits_CV = chunks.at(first);
    const DrawParams params{
        .logits = mutable_elements<float>(logits_CV),
        .num_rows = logits_CV.size(0),
        .num_vocab = head_VD.size(0),
        .num_draws = num_draws,
        .temperature = temperature,
        .proposal_temperature = proposal_temperature,
        .uniform = elements<double>(number_NR) + first * num_draws,
        .id = mutable_elements<int64_t>(draws.id_NR) + first * num_draws,
        .log_weight = weighted ? mutable_elements<float>(draws.log_weight_NR) + first * num_draws : nullptr,
        .fact = row_facts.from(first)};
    COPPICE_RUN(hidden_ND, draw_ids, params);
  }
  return draws;
}

at::Tensor draw_ids(const at::Tensor& hidden_ND, const at::Tensor& head_VD, double temperature,
                    const at::Tensor& uniform_NR, TopFacts* facts) {
  return draw_weighted_ids(hidden_ND, head_VD, temperature, /*proposal_temperature=*/1, uniform_NR, facts).id_NR;
}

HeadAndDraws top_k_and_draws(const at::Tensor& hidden, const at::Tensor& head, int64_t k, double temperature,
                             const at::Tensor& uniform_NR, TopFacts* facts) {
  const at::NoGradGuard no_grad;
  const at::Tensor hidden_ND = hidden.detach(), head_VD = head.detach();
  check_head(hidden_ND, head_VD, "hidden_ND", "head_VD");
  check_numbers(uniform_NR, hidden_ND.size(0), temperature);
  COPPICE_CHECK(k >= 1 && k <= head_VD.size(0), fmt::format("k: got {}, expected 1 to {}", k, head_VD.size(0)));
  const int64_t num_rows = hidden_ND.size(0), num_draws = uniform_NR.size(1);
  const auto ids = hidden_ND.options().dtype(at::kLong), floats = hidden_ND.options().dtype(at::kFloat);
  HeadAndDraws both{.top = {.id_NK = at::empty({num_rows, k}, ids),
                            .logp_NK = at::empty({num_rows, k}, floats),
                            .tail_logp_N = at::empty({num_rows}, floats)},
                    .drawn_NR = at::empty({num_rows, num_draws}, ids)};
  const at::Tensor number_NR =
      ((uniform_NR.to(hidden_ND.device()) + at::arange(num_draws, hidden_ND.options().dtype(at::kDouble))) /
       static_cast<double>(num_draws))
          .clamp_max(1 - 0x1p-53);
  LogitChunks chunks(hidden_ND, head_VD);
  RowFacts row_facts(hidden_ND, facts);
  for (int64_t first = 0; first < num_rows; first += chunks.rows()) {
    const at::Tensor logits_CV = chunks.at(first);
    const TopKParams of_head{.logits = mutable_elements<float>(logits_CV),
                             .num_rows = logits_CV.size(0),
                             .num_vocab = head_VD.size(0),
                             .k = k,
                             .temperature = temperature,
                             .id = mutable_elements<int64_t>(both.top.id_NK) + first * k,
                             .logp = mutable_elements<float>(both.top.logp_NK) + first * k,
                             .tail = mutable_elements<float>(both.top.tail_logp_N) + first,
                             .fact = row_facts.from(first)};
    COPPICE_RUN(hidden_ND, top_k, of_head);
    const DrawParams of_rest{.logits = of_head.logits,  // without the k ids, which have left it
                             .num_rows = of_head.num_rows,
                             .num_vocab = of_head.num_vocab,
                             .num_draws = num_draws,
                             .temperature = temperature,
                             .uniform = elements<double>(number_NR) + first * num_draws,
                             .id = mutable_elements<int64_t>(both.drawn_NR) + first * num_draws};
    COPPICE_RUN(hidden_ND, draw_ids, of_rest);
  }
  both.drawn_NR.masked_fill_(both.top.tail_logp_N.isneginf().unsqueeze(1), kIgnoredLabel);
  return both;
}

namespace {

// ---- on a device ----

/// Of rows whose equal ids stand side by side: where each run begins, and from there how long it is.
struct Runs {
  at::Tensor begins_NR, count_NR;
};
Runs runs_of(const at::Tensor& id_NR) {
  const int64_t num_draws = id_NR.size(1);
  const at::Tensor begins_NR = at::ones(id_NR.sizes(), id_NR.options().dtype(at::kBool)),
                   place_R = at::arange(num_draws, id_NR.options()), next_NR = at::full_like(id_NR, num_draws);
  const auto behind_first = [&](const at::Tensor& value_NR) { return value_NR.narrow(1, 1, num_draws - 1); };
  behind_first(begins_NR).copy_(behind_first(id_NR).ne(id_NR.narrow(1, 0, num_draws - 1)));
  const at::Tensor begin_NR = at::where(begins_NR, place_R, num_draws);
  next_NR.narrow(1, 0, num_draws - 1).copy_(behind_first(std::get<0>(begin_NR.flip(1).cummin(1)).flip(1)));
  return {.begins_NR = begins_NR, .count_NR = next_NR - place_R};
}

/// Ids and their log-probabilities, those of `counts_NR` alone, as the columns `order_NR` have them.
TopK ordered_shares(const at::Tensor& id_NR, const at::Tensor& logp_NR, const at::Tensor& counts_NR,
                    const at::Tensor& order_NR) {
  const at::Tensor counts = counts_NR.gather(1, order_NR);
  return {.id_NK = at::where(counts, id_NR.gather(1, order_NR), kIgnoredLabel),
          .logp_NK = at::where(counts, logp_NR.gather(1, order_NR), 0.0).to(at::kFloat),
          .tail_logp_N =
              at::full({id_NR.size(0)}, -std::numeric_limits<float>::infinity(), id_NR.options().dtype(at::kFloat))};
}

}  // namespace

TopK sorted_shares_of_draws(const WeightedDraws& draws) {
  const auto [id_NR, order_NR] = draws.id_NR.sort(1);
  const Runs runs = runs_of(id_NR);
  const at::Tensor counts_NR = runs.begins_NR.logical_and(id_NR.ge(0)),
                   rank_NR =
                       at::where(counts_NR, runs.count_NR * (int64_t{1} << 32) - id_NR, -1);  // ids are below 2^31
  at::Tensor logp_NR = (runs.count_NR.to(at::kDouble) / static_cast<double>(id_NR.size(1))).log();
  if (draws.log_weight_NR.defined()) logp_NR = logp_NR + draws.log_weight_NR.gather(1, order_NR);
  return ordered_shares(id_NR, logp_NR, counts_NR, rank_NR.argsort(1, /*descending=*/true));
}

TopK sorted_shares_of_head_and_draws(const HeadAndDraws& both) {
  const at::Tensor& id_NR = both.drawn_NR;
  const Runs runs = runs_of(id_NR);
  const at::Tensor counts_NR =
      runs.begins_NR.logical_and(id_NR.ge(0)).logical_and(both.top.id_NK.narrow(1, 0, 1).ge(0));
  const at::Tensor rank_NR = at::where(counts_NR, id_NR, std::numeric_limits<int64_t>::max());
  const at::Tensor each_N = both.top.tail_logp_N.to(at::kDouble) - std::log(static_cast<double>(id_NR.size(1)));
  const TopK drawn = ordered_shares(id_NR, each_N.unsqueeze(1) + runs.count_NR.to(at::kDouble).log(), counts_NR,
                                    rank_NR.argsort(1, /*descending=*/false));
  return {.id_NK = at::cat({both.top.id_NK, drawn.id_NK}, 1),
          .logp_NK = at::cat({both.top.logp_NK, drawn.logp_NK}, 1),
          .tail_logp_N = drawn.tail_logp_N};
}

std::vector<DrawnId> count_draws(std::span<const int64_t> ids, std::span<const float> log_weights) {
  std::vector<DrawnId> drawn;
  for (size_t i = 0; i < ids.size(); ++i)
    drawn.push_back({.id = ids[i], .count = 1, .log_weight = log_weights.empty() ? 0.0f : log_weights[i]});
  std::ranges::sort(drawn, {}, &DrawnId::id);
  size_t last = 0;  // of the different ones
  for (size_t i = 1; i < drawn.size(); ++i) {
    if (drawn[i].id == drawn[last].id) {
      ++drawn[last].count;
    } else {
      drawn[++last] = drawn[i];
    }
  }
  drawn.resize(std::min(drawn.size(), last + 1));
  std::ranges::stable_sort(drawn, std::ranges::greater{}, &DrawnId::count);
  return drawn;
}

TopK shares_of_draws(const WeightedDraws& draws) {
  check_shape(draws.id_NR, {-1, -1}, "id_NR");
  if (draws.log_weight_NR.defined())
    check_shape(draws.log_weight_NR, {draws.id_NR.size(0), draws.id_NR.size(1)}, "log_weight_NR");
  if (!draws.id_NR.is_cpu()) return sorted_shares_of_draws(draws);
  const at::Tensor id_NR = draws.id_NR.contiguous();
  WeightedDraws ordered{.id_NR = at::empty_like(id_NR), .log_weight_NR = {}};
  const auto num_draws = static_cast<size_t>(id_NR.size(1));
  const int64_t* drawn_ids = id_NR.const_data_ptr<int64_t>();
  int64_t* id = ordered.id_NR.mutable_data_ptr<int64_t>();
  at::Tensor log_weight_NR;
  float* weight = nullptr;
  if (draws.log_weight_NR.defined()) {
    log_weight_NR = draws.log_weight_NR.contiguous();
    ordered.log_weight_NR = at::empty_like(log_weight_NR);
    weight = ordered.log_weight_NR.mutable_data_ptr<float>();
  }
  for (int64_t row = 0; row < id_NR.size(0); ++row, drawn_ids += num_draws) {
    std::span<const float> weights;
    if (weight != nullptr) weights = {log_weight_NR.const_data_ptr<float>() + row * id_NR.size(1), num_draws};
    for (const DrawnId& drawn : count_draws({drawn_ids, num_draws}, weights)) {
      id = std::fill_n(id, drawn.count, drawn.id);
      if (weight != nullptr) weight = std::fill_n(weight, drawn.count, drawn.log_weight);
    }
  }
  return shares_of_ordered_draws(ordered);
}

TopK shares_of_ordered_draws(const WeightedDraws& draws) {
  check_shape(draws.id_NR, {-1, -1}, "id_NR");
  check_dense(draws.id_NR, at::kLong, at::kCPU, "id_NR");
  const at::Tensor id_NR = draws.id_NR.contiguous();
  const int64_t num_rows = id_NR.size(0), num_draws = id_NR.size(1);
  at::Tensor log_weight_NR = draws.log_weight_NR;
  if (log_weight_NR.defined()) {
    check_shape(log_weight_NR, {num_rows, num_draws}, "log_weight_NR");
    log_weight_NR = log_weight_NR.contiguous();
  }
  TopK shares{
      .id_NK = at::full_like(id_NR, kIgnoredLabel),
      .logp_NK = at::zeros({num_rows, num_draws}, id_NR.options().dtype(at::kFloat)),
      .tail_logp_N = at::full({num_rows}, -std::numeric_limits<float>::infinity(), id_NR.options().dtype(at::kFloat))};
  std::vector<double> log_share(static_cast<size_t>(num_draws) + 1);  // of an id drawn so often
  for (int64_t count = 1; count <= num_draws; ++count)
    log_share[static_cast<size_t>(count)] = std::log(static_cast<double>(count) / static_cast<double>(num_draws));
  const int64_t* const drawn_ids = id_NR.const_data_ptr<int64_t>();
  const float* const weights = log_weight_NR.defined() ? log_weight_NR.const_data_ptr<float>() : nullptr;
  int64_t* const ids = shares.id_NK.mutable_data_ptr<int64_t>();
  float* const logps = shares.logp_NK.mutable_data_ptr<float>();
  for (int64_t first = 0; first < num_rows * num_draws; first += num_draws) {
    if (drawn_ids[first] < 0) continue;
    const int64_t last = first + num_draws;
    int64_t at = first;  // of the next different id
    for (int64_t begin = first, end = first; begin < last; begin = end, ++at) {
      while (end < last && drawn_ids[end] == drawn_ids[begin]) ++end;
      ids[at] = drawn_ids[begin];
      const double log_weight = weights == nullptr ? 0.0 : double{weights[begin]};
      logps[at] = static_cast<float>(log_share[static_cast<size_t>(end - begin)] + log_weight);
    }
  }
  return shares;
}

TopK shares_of_head_and_draws(const HeadAndDraws& both) {
  const TopK& top = both.top;
  const int64_t num_rows = top.id_NK.size(0), k = top.id_NK.size(1), num_draws = both.drawn_NR.size(1),
                width = k + num_draws;
  check_shape(both.drawn_NR, {num_rows, -1}, "drawn_NR");
  check_shape(top.logp_NK, {num_rows, k}, "logp_NK");
  check_shape(top.tail_logp_N, {num_rows}, "tail_logp_N");
  if (!both.drawn_NR.is_cpu()) return sorted_shares_of_head_and_draws(both);
  TopK shares{.id_NK = at::full({num_rows, width}, kIgnoredLabel, top.id_NK.options()),
              .logp_NK = at::zeros({num_rows, width}, top.logp_NK.options()),
              .tail_logp_N = at::full_like(top.tail_logp_N, -std::numeric_limits<float>::infinity())};
  shares.id_NK.narrow(1, 0, k).copy_(top.id_NK);
  shares.logp_NK.narrow(1, 0, k).copy_(top.logp_NK);
  const at::Tensor drawn_NR = both.drawn_NR.contiguous(), tail_N = top.tail_logp_N.contiguous();
  const int64_t* drawn = drawn_NR.const_data_ptr<int64_t>();
  int64_t* id = shares.id_NK.mutable_data_ptr<int64_t>();
  float* logp = shares.logp_NK.mutable_data_ptr<float>();
  for (int64_t row = 0; row < num_rows; ++row, drawn += num_draws, id += width, logp += width) {
    if (id[0] < 0) continue;
    const double each = double{tail_N.const_data_ptr<float>()[row]} - std::log(static_cast<double>(num_draws));
    int64_t at = k;  // of the next different id
    for (int64_t begin = 0, end = 0; begin < num_draws; begin = end) {
      while (end < num_draws && drawn[end] == drawn[begin]) ++end;
      COPPICE_CHECK(end == num_draws || drawn[end] > drawn[begin], "drawn_NR: expected ascending ids");
      if (drawn[begin] < 0) continue;
      id[at] = drawn[begin];
      logp[at++] = static_cast<float>(each + std::log(static_cast<double>(end - begin)));
    }
  }
  return shares;
}

}  // namespace coppice
