// A refit of cuts of heads, layers and the residual stream: against QR on targets that the decoder itself gives, by way
// of whole models in which what was cut is still there and adds nothing.
#include "tests/pruning/refit_cases.h"  // before any CHECK

#include <c10/core/GradMode.h>

#include "pruning/refit.h"
#include "src/base/errors.h"
#include "src/model/decoder_halves.h"
#include "tests/tensors/whole_arena.h"

using namespace coppice;
using namespace coppice::test;
using tiny::largest;

namespace {

/// What a model has at one place, at live tokens, in double.
struct Seen {
  std::vector<at::Tensor> heads_NQ, ffn_NF, behind_ND;  // by layer: into o_proj, into down_proj, behind the layer
  at::Tensor embedded_ND;
};

Seen look(const Model& model, const DecoderMasks& masks = {}) {
  c10::NoGradGuard no_grad;
  const auto layers = static_cast<size_t>(model.config.num_hidden_layers);
  std::vector<std::vector<at::Tensor>> heads(layers), ffn(layers), behind(layers);
  std::vector<at::Tensor> embedded;
  for (const Batch& batch : calibration()) {
    const at::Tensor live_n = batch.true_label_BT.ne(kIgnoredLabel).reshape({-1}).nonzero().squeeze(1);
    const auto into = [&](std::vector<std::vector<at::Tensor>>& places) -> DecoderTap {
      return [&places, live_n](int layer, const at::Tensor& value) {
        places[static_cast<size_t>(layer)].push_back(value.index_select(0, live_n).to(at::kDouble));
      };
    };
    decoder_hidden(model, batch.input(), masks,
                   {.ffn_hidden = into(ffn), .layer_output = into(behind), .attention_hidden = into(heads)});
    embedded.push_back(model.arena->parameter("embed_tokens.weight")
                           .index_select(0, batch.token_BT.reshape({-1}).index_select(0, live_n))
                           .to(at::kDouble));
  }
  Seen seen{.embedded_ND = at::cat(embedded)};
  for (size_t layer = 0; layer < layers; ++layer) {
    seen.heads_NQ.push_back(at::cat(heads[layer]));
    seen.ffn_NF.push_back(at::cat(ffn[layer]));
    seen.behind_ND.push_back(at::cat(behind[layer]));
  }
  return seen;
}

at::Tensor weight(const Model& model, int64_t half) {
  return model.arena->read_master()[parameter_of_half(half)].to(at::kDouble);
}

/// What the half adds to the stream.
at::Tensor added(const Model& model, const Seen& seen, int64_t half) {
  const auto layer = static_cast<size_t>(half / 2);
  return (half % 2 == 0 ? seen.heads_NQ : seen.ffn_NF)[layer].mm(weight(model, half).t());
}

/// The stream in front of the half.
at::Tensor in_front(const Model& model, const Seen& seen, int64_t half) {
  if (half % 2 != 0) return seen.behind_ND[static_cast<size_t>(half / 2)] - added(model, seen, half);
  return half == 0 ? seen.embedded_ND : seen.behind_ND[static_cast<size_t>(half / 2 - 1)];
}

PrunePlan plan_on(CutAxis axis, std::vector<std::vector<int64_t>> kept) {
  PrunePlan plan = plan_of(std::move(kept));
  plan.axis = axis;
  return plan;
}

/// V and what is said of it, for one half.
void check_half(const Model& cut, const Model& refitted, const HalfRefit& said, const at::Tensor& x_NM,
                const at::Tensor& y_ND, double damping) {
  CAPTURE(said.half);
  const at::Tensor w_DM = weight(cut, said.half), v_DM = weight(refitted, said.half);
  CHECK(largest(v_DM - by_qr(x_NM, y_ND, w_DM, damping)) < 1e-4 * largest(v_DM));
  CHECK(largest(v_DM - w_DM) > 0.02 * largest(w_DM));
  CHECK(said.before == doctest::Approx(missed(x_NM, y_ND, w_DM)).epsilon(1e-4));
  CHECK(said.after == doctest::Approx(missed(x_NM, y_ND, v_DM)).epsilon(1e-4));
  CHECK(said.after < said.before);
}

/// Nothing but the matrices of those halves has changed.
void check_others(const Model& cut, const Model& refitted, const std::vector<HalfRefit>& said) {
  for (const Parameter& row : parameter_table(cut.config)) {
    const bool solved =
        std::ranges::any_of(said, [&](const HalfRefit& each) { return parameter_of_half(each.half) == row.name; });
    CHECK_MESSAGE(at::equal(cut.arena->parameter(row.name), refitted.arena->parameter(row.name)) != solved, row.name);
  }
}

/// `source` in which o_proj of layers below `layers` takes the kept groups as the refitted cut does, whose values were
/// multiplied by merged_LG, and no others.
Model with_refitted_heads(const Model& source, const Model& refitted, const PrunePlan& plan,
                          const at::Tensor& merged_LG, int64_t layers) {
  Model model = copy_of(source);
  const int64_t columns =
      source.config.num_attention_heads / source.config.num_key_value_heads * source.config.head_dim;
  const MasterReader from = refitted.arena->read_master();
  const MasterEditor into = model.arena->edit_master();
  for (int64_t layer = 0; layer < layers; ++layer) {
    const std::string name = parameter_of_half(2 * layer);
    into[name].zero_();
    const std::vector<int64_t>& kept = plan.kept[static_cast<size_t>(layer)];
    for (size_t group = 0; group < kept.size(); ++group)
      into[name]
          .narrow(1, kept[group] * columns, columns)
          .copy_(from[name].narrow(1, static_cast<int64_t>(group) * columns, columns) * merged_LG[layer][kept[group]]);
  }
  return model;
}

/// `soft_LG` of the target (undefined = dense), merged_LG of what the cut was made of.
void check_heads(const Model& source, const PrunePlan& plan, const at::Tensor& soft_LG, const at::Tensor& merged_LG) {
  const Model cut = prune_model(source, plan, merged_LG);
  Model refitted = copy_of(cut);
  const DecoderMasks masks = soft_LG.defined() ? masks_on(CutAxis::heads, soft_LG, source.config) : DecoderMasks{};
  const std::vector<HalfRefit> said = refit(source, masks, plan, calibration(), 1e-2, refitted);
  REQUIRE(std::ssize(said) == source.config.num_hidden_layers);
  const Seen of_refitted = look(refitted);
  for (const HalfRefit& each : said) {
    const int64_t layer = each.half / 2;
    CHECK(each.half == 2 * layer);
    const Model above = with_refitted_heads(source, refitted, plan, merged_LG, layer);
    at::Tensor heads_NQ = look(above).heads_NQ[static_cast<size_t>(layer)];
    if (soft_LG.defined())
      heads_NQ = (heads_NQ.unflatten(1, {soft_LG.size(1), -1}) * soft_LG[layer].unsqueeze(1)).flatten(1);
    check_half(cut, refitted, each, of_refitted.heads_NQ[static_cast<size_t>(layer)],
               heads_NQ.mm(weight(source, each.half).t()), 1e-2);
  }
  check_others(cut, refitted, said);
}

/// `source` with the matrices of the refitted cut in the halves below `halves` (of the cut) and nothing of the layers
/// that went below them; what its kept layers add was multiplied by merged_L in the cut.
Model with_refitted_layers(const Model& source, const Model& refitted, const std::vector<int64_t>& kept,
                           const at::Tensor& merged_L, int64_t halves) {
  Model model = copy_of(source);
  const MasterReader from = refitted.arena->read_master();
  const MasterEditor into = model.arena->edit_master();
  for (int64_t half = 0; half < halves; ++half) {
    const auto at = static_cast<size_t>(half / 2);
    into[parameter_of_half(2 * kept[at] + half % 2)].copy_(from[parameter_of_half(half)] * merged_L[kept[at]]);
    // what went in front of an attention, or behind an FFN, is stood for
    const int64_t begin = half % 2 != 0 ? kept[at] + 1 : (half == 0 ? 0 : kept[at]);
    const int64_t end =
        half % 2 == 0 ? kept[at] : (at + 1 < kept.size() ? kept[at + 1] : source.config.num_hidden_layers);
    for (int64_t gone = begin; gone < end; ++gone)
      for (const int64_t of : {2 * gone, 2 * gone + 1}) into[parameter_of_half(of)].zero_();
  }
  return model;
}

/// `soft_1L` of the target (undefined = dense), merged_1L of what the cut was made of.
void check_layers(const Model& source, const std::vector<int64_t>& kept, const at::Tensor& soft_1L,
                  const at::Tensor& merged_1L) {
  CAPTURE(kept.size());
  CAPTURE(kept.front());
  const PrunePlan plan = plan_on(CutAxis::layers, {kept});
  const Model cut = prune_model(source, plan, merged_1L);
  Model refitted = copy_of(cut);
  const DecoderMasks masks = soft_1L.defined() ? masks_on(CutAxis::layers, soft_1L, source.config) : DecoderMasks{};
  const std::vector<HalfRefit> said = refit(source, masks, plan, calibration(), 1e-2, refitted);
  REQUIRE(std::ssize(said) == std::ssize(refitted_halves(source.config, plan)));
  // the target's layers add their multiplier's share, which here is in their matrices
  Model target = copy_of(source);
  if (soft_1L.defined()) {
    const MasterEditor into = target.arena->edit_master();
    for (int64_t half = 0; half < 2 * source.config.num_hidden_layers; ++half)
      into[parameter_of_half(half)].mul_(soft_1L[0][half / 2]);
  }
  const Seen of_refitted = look(refitted);
  for (const HalfRefit& each : said) {
    const auto at = static_cast<size_t>(each.half / 2);
    const Model above = with_refitted_layers(target, refitted, kept, merged_1L[0], each.half);
    const Seen seen = look(above);
    // the stream behind all that the half stands for, less the cut's in front of it
    const at::Tensor behind_ND =
        each.half % 2 == 0 ? in_front(above, seen, 2 * kept[at] + 1)
                           : seen.behind_ND[static_cast<size_t>(
                                 (at + 1 < kept.size() ? kept[at + 1] : source.config.num_hidden_layers) - 1)];
    check_half(cut, refitted, each, (each.half % 2 == 0 ? of_refitted.heads_NQ : of_refitted.ffn_NF)[at],
               behind_ND - in_front(refitted, of_refitted, each.half), 1e-2);
  }
  check_others(cut, refitted, said);
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("refitted_halves: o_proj for heads, down_proj below each gap of layers, both for the stream") {
    const ModelConfig config = tiny::config({24, 24, 24, 24, 24});
    const auto halves = [&](CutAxis axis, const std::vector<int64_t>& kept) {
      return refitted_halves(config, plan_on(axis, {kept}));
    };
    CHECK(halves(CutAxis::ffn, {}) == std::vector<int64_t>{1, 3, 5, 7, 9});
    CHECK(halves(CutAxis::heads, {}) == std::vector<int64_t>{0, 2, 4, 6, 8});
    CHECK(halves(CutAxis::hidden, first(8)) == std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9});
    CHECK(halves(CutAxis::layers, {0, 1, 2, 3, 4}).empty());
    CHECK(halves(CutAxis::layers, {0, 1, 2, 3}) == std::vector<int64_t>{7});
    CHECK(halves(CutAxis::layers, {0, 3, 4}) == std::vector<int64_t>{1});
    CHECK(halves(CutAxis::layers, {0, 2, 3}) == std::vector<int64_t>{1, 5});
    CHECK(halves(CutAxis::layers, {2, 4}) == std::vector<int64_t>{0, 1});
    CHECK(halves(CutAxis::layers, {4}) == std::vector<int64_t>{0});
  }

  TEST_CASE("refit: a group of heads that says what another says comes back whole") {
    Model source = tiny::model();
    const int64_t group = 2 * source.config.head_dim;
    {  // the second group's queries, keys and values are the first's
      const MasterEditor into = source.arena->edit_master();
      for (int64_t layer = 0; layer < 2; ++layer)
        for (const auto& [name, rows] : {std::pair{"q_proj", group}, {"k_proj", group / 2}, {"v_proj", group / 2}}) {
          at::Tensor weight = into["layers." + std::to_string(layer) + ".self_attn." + name + ".weight"];
          weight.narrow(0, rows, rows).copy_(weight.narrow(0, 0, rows));
        }
    }
    const PrunePlan plan = plan_on(CutAxis::heads, {{0}, {1}});
    Model cut = prune_model(source, plan);
    const at::Tensor before = decoder_logits(cut, tiny::input());
    for (const HalfRefit& each : refit(source, {}, plan, calibration(), 1e-8, cut)) {
      CHECK(each.before > 0.1);
      CHECK(each.after < 1e-4);
      const at::Tensor whole_DQ = weight(source, each.half);
      CHECK(largest(weight(cut, each.half) - whole_DQ.narrow(1, 0, group) - whole_DQ.narrow(1, group, group)) <
            1e-3 * largest(whole_DQ));
    }
    const at::Tensor wanted = decoder_logits(source, tiny::input());
    CHECK(largest(decoder_logits(cut, tiny::input()) - wanted) < 1e-3 * largest(wanted));
    CHECK(largest(before - wanted) > 1e-2 * largest(wanted));
  }

  TEST_CASE(
      "refit: where every head or layer stays nothing is solved into noise, where every dimension stays next to "
      "nothing") {
    const Model source = tiny::model();
    for (const auto& [axis, kept] :
         {std::pair{CutAxis::heads, std::vector<std::vector<int64_t>>{{0, 1}, {0, 1}}}, {CutAxis::layers, {{0, 1}}}}) {
      const PrunePlan plan = plan_on(axis, kept);
      Model cut = prune_model(source, plan);
      for (const HalfRefit& each : refit(source, {}, plan, calibration(), 1e-2, cut)) CHECK(each.before == 0);
      CHECK(at::equal(whole_master(*cut.arena), whole_master(*source.arena)));
    }
    const PrunePlan plan = plan_on(CutAxis::hidden, {first(16)});
    Model cut = prune_model(source, plan);
    for (const HalfRefit& each : refit(source, {}, plan, calibration(), 1e-2, cut)) CHECK(each.before < 1e-5);
    for (int64_t half = 0; half < 4; ++half)
      CHECK(largest(weight(cut, half) - weight(source, half)) < 1e-4 * largest(weight(source, half)));
  }

  TEST_CASE("refit: a cut of another plan is an error of the caller") {
    const Model source = tiny::model();
    Model cut = prune_model(source, plan_on(CutAxis::hidden, {first(8)}));
    CHECK_THROWS_AS(refit(source, {}, plan_on(CutAxis::heads, {{0}, {0}}), calibration(), 1e-2, cut), InternalError);
    CHECK_THROWS_AS(refit(source, {}, plan_on(CutAxis::layers, {{0}}), calibration(), 1e-2, cut), InternalError);
  }
}

TEST_SUITE("parity") {
  TEST_CASE("refit: o_proj of cut heads against QR, dense and under soft masks") {
    const Model source = tiny::model({24, 24, 24});
    const PrunePlan plan = plan_on(CutAxis::heads, {{1}, {0}, {1}});
    check_heads(source, plan, {}, at::ones({3, 2}));
    const at::Tensor soft_LG = at::tensor({0.25f, 0.75f, 0.8f, 0.2f, 0.4f, 0.6f}).view({3, 2});
    check_heads(source, plan, soft_LG, soft_LG);
    check_heads(source, plan, {}, soft_LG);
  }

  TEST_CASE("refit: down_proj below a gap of layers against QR, and o_proj above one at the bottom; under soft masks") {
    const Model source = tiny::model({24, 24, 24, 24, 24});
    for (const std::vector<int64_t>& kept :
         {std::vector<int64_t>{0, 2, 3}, {1, 2, 4}, {0, 3}, {2}, {3, 4}, {0, 1, 2, 3}})
      check_layers(source, kept, {}, at::ones({1, 5}));
    const at::Tensor soft_1L = at::tensor({0.9f, 0.3f, 0.8f, 0.6f, 0.4f}).view({1, 5});
    check_layers(source, {0, 2, 3}, soft_1L, soft_1L);
    check_layers(source, {2, 3}, soft_1L, soft_1L);
    check_layers(source, {0, 2, 3}, {}, soft_1L);
  }

  TEST_CASE("refit: both matrices of every layer against QR where the stream is narrower") {
    ModelConfig config = tiny::config({24, 20});
    config.qkv_bias = true;
    config.tie_word_embeddings = false;
    Model source = make_model(config);
    initialise_parameters(config, *source.arena, 5);
    const std::vector<int64_t> kept = {0, 1, 3, 4, 5, 7, 8, 9, 11, 13, 14, 15};
    const PrunePlan plan = plan_on(CutAxis::hidden, {kept});
    const Model cut = prune_model(source, plan);
    Model refitted = copy_of(cut);
    const std::vector<HalfRefit> said = refit(source, {}, plan, calibration(), 1e-2, refitted);
    REQUIRE(said.size() == 4);
    const Seen of_source = look(source), of_refitted = look(refitted);
    for (const HalfRefit& each : said) {
      const auto layer = static_cast<size_t>(each.half / 2);
      const at::Tensor behind_ND = in_front(source, of_source, each.half) + added(source, of_source, each.half);
      check_half(cut, refitted, each, (each.half % 2 == 0 ? of_refitted.heads_NQ : of_refitted.ffn_NF)[layer],
                 behind_ND.index_select(1, at::tensor(kept)) - in_front(refitted, of_refitted, each.half), 1e-2);
    }
    check_others(cut, refitted, said);
  }
}
