#include "pruning/refit.h"

#include "tests/pruning/refit_cases.h"  // before any CHECK

#include <c10/core/GradMode.h>

#include <limits>

#include "pruning/plan.h"
#include "src/base/errors.h"
#include "tests/tensors/whole_arena.h"

using namespace coppice;
using namespace coppice::test;
using tiny::largest;

namespace {

std::string down_of(int64_t layer) { return "layers." + std::to_string(layer) + ".mlp.down_proj.weight"; }

at::Tensor down_proj(const Model& model, int64_t layer) { return model.arena->read_master()[down_of(layer)].clone(); }

/// Hidden states of one layer at live tokens, in double, by way of the decoder itself.
at::Tensor hidden_of(const Model& model, int64_t layer, const std::vector<Batch>& batches) {
  c10::NoGradGuard no_grad;
  std::vector<at::Tensor> live;
  for (const Batch& batch : batches) {
    const DecoderTap tap = [&](int at_layer, const at::Tensor& hidden_NF) {
      if (at_layer == layer)
        live.push_back(
            hidden_NF.index_select(0, batch.true_label_BT.ne(kIgnoredLabel).reshape({-1}).nonzero().squeeze(1)));
    };
    decoder_hidden(model, batch.input(), {}, {.ffn_hidden = tap});
  }
  return at::cat(live).to(at::kDouble);
}

/// The source from `layer` on, on what `below` has under it.
Model source_above(const Model& source, const Model& below, int64_t layer) {
  ModelConfig config = source.config;
  for (int64_t l = 0; l < layer; ++l)
    config.intermediate_size[static_cast<size_t>(l)] = below.config.intermediate_size[static_cast<size_t>(l)];
  Model mixed = make_model(config);
  const MasterReader upper = source.arena->read_master(), lower = below.arena->read_master();
  const MasterEditor into = mixed.arena->edit_master();
  for (const Parameter& row : parameter_table(config))
    into[row.name].copy_(row.layer >= 0 && row.layer < layer ? lower[row.name] : upper[row.name]);
  return mixed;
}

/// Every layer of a finished refit against QR on hidden states that the decoder itself gives, and its residuals against
/// those measured.
void check_against_qr(const Model& source, const at::Tensor& target_LF, const Model& cut, double damping) {
  const std::vector<Batch> batches = calibration();
  Model refitted = copy_of(cut);
  const DecoderMasks masks = target_LF.defined() ? masks_on(CutAxis::ffn, target_LF, source.config) : DecoderMasks{};
  const std::vector<HalfRefit> residuals = refit(source, masks, {}, batches, damping, refitted);
  REQUIRE(std::ssize(residuals) == cut.config.num_hidden_layers);
  for (int64_t layer = 0; layer < cut.config.num_hidden_layers; ++layer) {
    CAPTURE(layer);
    const at::Tensor x_NM = hidden_of(refitted, layer, batches);
    at::Tensor h_NF = hidden_of(source_above(source, refitted, layer), layer, batches);
    if (target_LF.defined()) h_NF = h_NF * masks.multiplier_F[static_cast<size_t>(layer)];
    const at::Tensor y_ND = h_NF.mm(down_proj(source, layer).to(at::kDouble).t());
    const at::Tensor w_DM = down_proj(cut, layer), v_DM = down_proj(refitted, layer);
    CHECK(largest(v_DM - by_qr(x_NM, y_ND, w_DM, damping)) < 1e-4 * largest(v_DM));
    CHECK(largest(v_DM - w_DM) > 0.05 * largest(w_DM));
    const HalfRefit& residual = residuals[static_cast<size_t>(layer)];
    CHECK(residual.before == doctest::Approx(missed(x_NM, y_ND, w_DM)).epsilon(1e-4));
    CHECK(residual.after == doctest::Approx(missed(x_NM, y_ND, v_DM)).epsilon(1e-4));
    CHECK(residual.after < residual.before);
    if (layer == 0) continue;
    // not the same on the uncut model's stream, nor on that of a cut without refit
    CHECK(largest(v_DM - by_qr(hidden_of(cut, layer, batches), y_ND, w_DM, damping)) > 1e-3 * largest(v_DM));
    const at::Tensor dense_ND = hidden_of(source, layer, batches).mm(down_proj(source, layer).to(at::kDouble).t());
    if (!target_LF.defined()) CHECK(largest(v_DM - by_qr(x_NM, dense_ND, w_DM, damping)) > 1e-3 * largest(v_DM));
  }
  for (const Parameter& row : parameter_table(cut.config))
    if (!row.name.ends_with("down_proj.weight"))
      CHECK_MESSAGE(at::equal(cut.arena->parameter(row.name), refitted.arena->parameter(row.name)), row.name);
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("solve_refit: two channels and one output, by hand; dead tokens do not count") {
    // x = (1,0), (0,1), (1,1) and W = (10, 20) miss 1, 2 and 3: G = [2 1; 1 2], E = (4, 5). Damping 1/2 of the mean
    // diagonal 2 adds 1: V - W = (4, 5) [3 1; 1 3]^-1 = (7/8, 11/8), which leaves 1/8, 5/8 and 6/8.
    const at::Tensor hidden_NM = at::tensor({1.f, 0.f, 0.f, 1.f, 1.f, 1.f, 100.f, 100.f}).view({4, 2});
    const at::Tensor down_DM = at::tensor({10.f, 20.f}).view({1, 2});
    const at::Tensor output_ND = hidden_NM.mm(down_DM.t());
    const at::Tensor target_ND = output_ND + at::tensor({1.f, 2.f, 3.f, -9.f}).view({4, 1});
    const at::Tensor live_BT = at::tensor({1, 1, 1, 0}).to(at::kBool).view({2, 2});
    RefitMoments moments;
    moments.add(hidden_NM, output_ND, target_ND, live_BT);
    CHECK(moments.num_tokens == 3);
    CHECK(at::equal(moments.gram_MM, at::tensor({2.0, 1.0, 1.0, 2.0}).view({2, 2})));
    CHECK(at::equal(moments.cross_DM, at::tensor({4.0, 5.0}).view({1, 2})));
    CHECK(moments.missed == 14);
    CHECK(moments.target == 11 * 11 + 22 * 22 + 33 * 33);
    const RefittedWeight refitted = solve_refit(down_DM, moments, 0.5).value();
    CHECK(refitted.weight_DM[0][0].item<double>() == doctest::Approx(10.875).epsilon(1e-6));
    CHECK(refitted.weight_DM[0][1].item<double>() == doctest::Approx(21.375).epsilon(1e-6));
    CHECK(refitted.before == doctest::Approx(std::sqrt(14.0 / 1694)));
    CHECK(refitted.after == doctest::Approx(std::sqrt(62.0 / 64 / 1694)).epsilon(1e-5));

    // in two parts, the second without a live token
    RefitMoments parts;
    const at::Tensor none = at::zeros({3}, at::kBool);
    parts.add(hidden_NM.narrow(0, 0, 1), output_ND.narrow(0, 0, 1), target_ND.narrow(0, 0, 1),
              at::ones({1}, at::kBool));
    parts.add(hidden_NM.narrow(0, 1, 3), output_ND.narrow(0, 1, 3), target_ND.narrow(0, 1, 3), none);
    parts.add(hidden_NM.narrow(0, 1, 2), output_ND.narrow(0, 1, 2), target_ND.narrow(0, 1, 2),
              at::ones({2}, at::kBool));
    CHECK(at::equal(parts.gram_MM, moments.gram_MM));
    CHECK(at::equal(parts.cross_DM, moments.cross_DM));
    CHECK(parts.num_tokens == 3);
  }

  TEST_CASE("solve_refit: damping holds on to the cut; a channel that never fires keeps its column") {
    const at::Tensor x_NM = at::sin(at::arange(40, at::kFloat).square() * 0.37).view({10, 4});
    x_NM.select(1, 2).zero_();
    const at::Tensor w_DM = at::cos(at::arange(12, at::kFloat)).view({3, 4}), output_ND = x_NM.mm(w_DM.t());
    RefitMoments moments;
    moments.add(x_NM, output_ND, output_ND + at::cos(at::arange(30, at::kFloat) * 0.9).view({10, 3}),
                at::ones({10}, at::kBool));
    double moved = std::numeric_limits<double>::infinity(), left = 0;
    for (const double damping : {1e-8, 1e-4, 1e-2, 1.0}) {
      const RefittedWeight refitted = solve_refit(w_DM, moments, damping).value();
      CHECK(at::equal(refitted.weight_DM.select(1, 2), w_DM.select(1, 2)));
      const double step = (refitted.weight_DM - w_DM).norm().item<double>();
      CHECK(step < moved);
      CHECK(refitted.after > left);
      CHECK(refitted.after < refitted.before);
      moved = step;
      left = refitted.after;
    }
    RefitMoments silent;
    silent.add(at::zeros({5, 4}), at::zeros({5, 3}), at::ones({5, 3}), at::ones({5}, at::kBool));
    const RefittedWeight refitted = solve_refit(w_DM, silent, 0.01).value();
    CHECK(at::equal(refitted.weight_DM, w_DM));
    CHECK(refitted.before == 1);
    CHECK(refitted.after == 1);
  }

  TEST_CASE("refit: layers that lost nothing stay as they are, bit for bit, also between those that did") {
    const Model source = tiny::model({24, 17, 20});
    Model whole = prune_model(source, plan_of({first(24), first(17), first(20)}));
    for (const HalfRefit& residual : refit(source, {}, {}, calibration(), 0.01, whole)) {
      CHECK(residual.before == 0);
      CHECK(residual.after == 0);
    }
    CHECK(at::equal(whole_master(*whole.arena), whole_master(*source.arena)));
    Model mixed = prune_model(source, plan_of({first(6), first(17), first(20)}));
    const std::vector<HalfRefit> residuals =
        refit(source, masks_on(CutAxis::ffn, at::ones({3, 24}), source.config), {}, calibration(), 0.01, mixed);
    CHECK(residuals[0].after > 0);
    CHECK(residuals[0].after < residuals[0].before);
    for (int64_t layer = 1; layer < 3; ++layer) CHECK(at::equal(down_proj(mixed, layer), down_proj(source, layer)));
  }

  TEST_CASE("refit: of models that compute in bfloat16 it repairs what it repairs in float32, but for rounding") {
    const auto residuals = [](at::ScalarType compute) {
      const Model source = tiny::model({24, 24}, 7, compute);
      Model cut = prune_model(source, plan_of({first(10), first(12)}));
      return refit(source, {}, {}, calibration(), 0.01, cut);
    };
    const std::vector<HalfRefit> exact = residuals(at::kFloat), rounded = residuals(at::kBFloat16);
    for (size_t layer = 0; layer < 2; ++layer) {
      CHECK(rounded[layer].after < rounded[layer].before);
      CHECK(std::abs(rounded[layer].before - exact[layer].before) <= 0.02);
      CHECK(std::abs(rounded[layer].after - exact[layer].after) <= 0.02);
    }
  }

  TEST_CASE("refit: samples without a live token change nothing; without any there is nothing to solve") {
    const Model source = tiny::model();
    at::Tensor live_BT = at::ones({6, 12}, at::kBool);
    live_BT.narrow(0, 4, 2).fill_(false);
    Model some = prune_model(source, plan_of({first(8), first(9)})),
          all = prune_model(source, plan_of({first(8), first(9)}));
    const std::vector<Batch> shorter = {batch_of(live_BT.narrow(0, 0, 4))}, longer = {batch_of(live_BT)};
    refit(source, {}, {}, shorter, 0.01, some);
    refit(source, {}, {}, longer, 0.01, all);
    for (int64_t layer = 0; layer < 2; ++layer)
      CHECK(largest(down_proj(some, layer) - down_proj(all, layer)) < 1e-4 * largest(down_proj(some, layer)));
    const std::vector<Batch> dead = {batch_of(at::zeros({2, 12}, at::kBool))};
    CHECK_THROWS_AS(refit(source, {}, {}, dead, 0.01, some), InternalError);
    CHECK_THROWS_AS(refit(source, {}, {}, {}, 0.01, some), InternalError);
    const Model deeper = tiny::model({24, 24, 24});
    CHECK_THROWS_AS(refit(deeper, {}, {}, shorter, 0.01, some), InternalError);
  }

  TEST_CASE("refit: says what each layer misses once it is solved; what that throws leaves the layers above alone") {
    const Model source = tiny::model();
    Model cut = prune_model(source, plan_of({first(8), first(8)})),
          whole = prune_model(source, plan_of({first(8), first(8)}));
    std::vector<HalfRefit> said;
    const std::vector<HalfRefit> residuals =
        refit(source, {}, {}, calibration(), 0.01, whole, [&](int64_t half, const HalfRefit* solved) {
          CHECK((solved != nullptr) == (half % 2 != 0));
          if (solved != nullptr) said.push_back(*solved);
        });
    REQUIRE(said.size() == 2);
    for (size_t layer = 0; layer < 2; ++layer) {
      CHECK(said[layer].before == residuals[layer].before);
      CHECK(said[layer].after == residuals[layer].after);
    }
    struct Enough {};
    const at::Tensor before = down_proj(cut, 1);
    CHECK_THROWS_AS(refit(source, {}, {}, calibration(), 0.01, cut,
                          [](int64_t half, const HalfRefit*) {
                            if (half == 1) throw Enough();
                          }),
                    Enough);
    CHECK(at::equal(down_proj(cut, 0), down_proj(whole, 0)));
    CHECK(at::equal(down_proj(cut, 1), before));
  }

  TEST_CASE("refit: damping below what double tells apart is refused with the layer, not solved into noise") {
    // two channels that always agree: 4 + 4e-18 is 4, and 4 - 2^2 is left of the second
    RefitMoments moments;
    moments.add(at::ones({4, 2}), at::zeros({4, 1}), at::full({4, 1}, 3.0f), at::ones({4}, at::kBool));
    CHECK_FALSE(solve_refit(at::zeros({1, 2}), moments, 1e-18).has_value());
    CHECK(largest(solve_refit(at::zeros({1, 2}), moments, 1e-8).value().weight_DM - 1.5) < 1e-5);

    // one live token: hidden states of rank 1 in 24 channels
    const Model source = tiny::model();
    Model cut = prune_model(source, plan_of({first(24), first(24)}));
    at::Tensor live_BT = at::zeros({1, 12}, at::kBool);
    live_BT[0][5].fill_(true);
    const std::vector<Batch> batches = {batch_of(live_BT)};
    CHECK_THROWS_WITH_AS(refit(source, {}, {}, batches, 1e-30, cut),
                         doctest::Contains("refit, layer 0, down_proj: refit_damping: got 1e-30, which is too little"),
                         UserError);
    CHECK(refit(source, {}, {}, batches, 1e-8, cut).size() == 2);
  }

  TEST_CASE("refit: hidden states that overflow are refused by layer") {
    const Model source = tiny::model();
    Model cut = prune_model(source, plan_of({first(8), first(8)}));
    source.arena->edit_master()["layers.1.mlp.up_proj.weight"][3][0] = std::numeric_limits<float>::infinity();
    CHECK_THROWS_WITH_AS(
        refit(source, {}, {}, calibration(), 0.01, cut),
        doctest::Contains("refit, layer 1, down_proj: hidden states or outputs on the calibration text are not "
                          "finite"),
        UserError);
  }
}

TEST_SUITE("parity") {
  TEST_CASE("refit: every layer against QR on what the layers below give, cuts of one width and of many") {
    const Model source = tiny::model({24, 24, 24});
    for (const std::vector<std::vector<int64_t>>& kept :
         {std::vector<std::vector<int64_t>>{{0, 1, 5, 7, 9, 13, 20, 23}, {2, 3, 4, 8, 11, 14, 15, 16}, first(8)},
          {first(3), {1, 23}, first(12)}})
      for (const double damping : {1e-2, 1e-1})
        check_against_qr(source, {}, prune_model(source, plan_of(kept)), damping);
    const Model uneven = tiny::model({24, 17, 20}, 8);
    check_against_qr(uneven, {}, prune_model(uneven, plan_of({first(6), first(5), {1, 2, 17, 19}})), 1e-2);
  }

  TEST_CASE("refit: a family with biases, scaled RoPE and an output table of its own, under a document mask") {
    ModelConfig config = tiny::config({24, 20});
    config.qkv_bias = true;
    config.qk_norm = false;
    config.tie_word_embeddings = false;
    config.rope_scaling = RopeScaling{.factor = 4, .original_max_position_embeddings = 16};
    Model source = make_model(config);
    initialise_parameters(config, *source.arena, 5);
    {
      const MasterEditor into = source.arena->edit_master();
      for (const Parameter& row : parameter_table(config))
        if (row.kind == ParameterKind::bias) into[row.name].copy_(at::sin(at::arange(row.shape[0], at::kFloat) * 0.7));
    }
    check_against_qr(source, {}, prune_model(source, plan_of({first(7), first(6)})), 1e-2);

    std::vector<Batch> batches = calibration(), apart = calibration();
    for (Batch& batch : apart)
      batch.document_BT = (at::arange(12, at::kInt) >= 5).to(at::kInt).expand_as(batch.token_BT).contiguous();
    Model plain = prune_model(source, plan_of({first(7), first(6)})),
          masked = prune_model(source, plan_of({first(7), first(6)}));
    refit(source, {}, {}, batches, 1e-2, plain);
    refit(source, {}, {}, apart, 1e-2, masked);
    const at::Tensor x_NM = hidden_of(masked, 0, apart);
    const at::Tensor y_ND = hidden_of(source, 0, apart).mm(down_proj(source, 0).to(at::kDouble).t());
    const at::Tensor w_DM = down_proj(source, 0).narrow(1, 0, 7);
    CHECK(largest(down_proj(masked, 0) - by_qr(x_NM, y_ND, w_DM, 1e-2)) < 1e-4 * largest(w_DM));
    CHECK(largest(down_proj(masked, 0) - down_proj(plain, 0)) > 1e-3 * largest(w_DM));
  }

  TEST_CASE("refit: under soft masks the target is the masked layer, and the cut that it is merged into is repaired") {
    const Model source = tiny::model();
    const at::Tensor raw_LF = initial_scores(2, 24, 0.01, 11);
    const at::Tensor soft_LF = tiny::soft_mask(raw_LF, {.k = 8, .epsilon = 1, .top = false}, 8);
    const PrunePlan plan = make_plan(raw_LF, {8, 8}, "masks", "");
    check_against_qr(source, soft_LF, prune_model(source, plan, soft_LF), 1e-2);
    check_against_qr(source, {}, prune_model(source, plan, soft_LF), 1e-2);  // merged, but the dense layer is wanted

    // where nothing is left outside, there is nothing to repair
    const at::Tensor top_LF = tiny::soft_mask(raw_LF, {.k = 8, .epsilon = 1, .top = true}, 8);
    const Model cut = prune_model(source, plan, top_LF);
    Model refitted = prune_model(source, plan, top_LF);
    for (const HalfRefit& residual :
         refit(source, masks_on(CutAxis::ffn, top_LF, source.config), {}, calibration(), 1e-2, refitted))
      CHECK(residual.before < 1e-5);
    for (int64_t layer = 0; layer < 2; ++layer)
      CHECK(largest(down_proj(refitted, layer) - down_proj(cut, layer)) < 1e-4 * largest(down_proj(cut, layer)));
  }
}
