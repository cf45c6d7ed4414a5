// What scores say of heads, layers and dimensions of the residual stream: by hand, and against the plain decoder.
#include "pruning/scores.h"

#include "tests/pruning/tiny.h"  // before any CHECK

#include <array>
#include <cmath>

#include "src/base/errors.h"
#include "tests/model/reference_decoder.h"

using namespace coppice;
using tiny::batch_of;
using tiny::largest;

namespace {

at::Tensor score(const char* name, const Model& model, std::span<const Batch> batches, CutAxis axis) {
  return find_score(name, "test").compute({.model = &model, .batches = batches, .seed = 3, .axis = axis});
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("score_table over every axis: one finite score a unit, whatever the layers' widths") {
    const Model model = tiny::model({24, 20, 24});
    const std::array<Batch, 1> batches = {batch_of(at::ones({2, 9}, at::kBool))};
    for (const std::string& name : axis_names()) {
      const CutAxis axis = *find_axis(name);
      if (axis == CutAxis::ffn) continue;
      const std::vector<int64_t> units = units_of(model.config, axis);
      for (const ScoreRow& row : score_table()) {
        CAPTURE(name);
        CAPTURE(row.name);
        if (!scores_axis(row, axis)) continue;
        const at::Tensor scores_RU = score(row.name, model, batches, axis);
        CHECK((scores_RU.sizes() == at::IntArrayRef({std::ssize(units), units.front()})));
        CHECK((scores_RU.scalar_type() == at::kFloat));
        CHECK(scores_RU.isfinite().all().item<bool>());
      }
    }
  }

  TEST_CASE("heads: a group has the L2 norm of what the columns of its query heads score in o_proj") {
    Model model = tiny::model();
    const at::Tensor o_DC = model.arena->parameter("layers.1.self_attn.o_proj.weight");
    o_DC.zero_();
    o_DC[2][17] = 3;  // four heads of 8, two a group: columns 16 to 31 are the second group's
    o_DC[7][31] = -4;
    o_DC[7][15] = 2;
    const at::Tensor magnitude_LG = score("magnitude", model, {}, CutAxis::heads);
    CHECK(at::equal(magnitude_LG[1], at::tensor({2.f, 5.f})));

    // one sample of two live tokens and a dead one: |x| = (1, 3), mean 2 in one column and 0.5 in another of group 0
    const at::Tensor hidden_NC = at::zeros({3, 4});
    hidden_NC.select(1, 0).copy_(at::tensor({1.f, -3.f, 100.f}));
    hidden_NC.select(1, 1).copy_(at::tensor({1.f, 0.f, 100.f}));
    hidden_NC.select(1, 3).copy_(at::tensor({-7.f, -7.f, 100.f}));
    const at::Tensor live_BT = at::tensor({1, 1, 0}).view({1, 3}).to(at::kBool);
    ModelConfig config = tiny::config({24});
    config.num_attention_heads = 2, config.num_key_value_heads = 2, config.head_dim = 2;
    const Model small = make_model(config);
    const at::Tensor square_C = activation_squares(hidden_NC, live_BT);
    const at::Tensor group_G =
        score_by_columns({.model = &small, .axis = CutAxis::heads}, [&](int64_t) { return square_C.sqrt(); })[0];
    CHECK(group_G[0].item<double>() == doctest::Approx(std::sqrt(2.0 * 2.0 + 0.5 * 0.5)));
    CHECK(group_G[1].item<double>() == doctest::Approx(7.0));

    // and through the model: what enters o_proj, group by group
    const Model whole = tiny::model();
    const std::array<Batch, 1> batches = {batch_of(at::ones({2, 9}, at::kBool))};
    const at::Tensor live_all_BT = at::ones({2, 9}, at::kBool);
    std::vector<at::Tensor> expected_G;
    decoder_hidden(whole, batches[0].input(), {}, {.attention_hidden = [&](int, const at::Tensor& x_NC) {
                     expected_G.push_back(activation_squares(x_NC, live_all_BT).view({2, 16}).sum(1).sqrt());
                   }});
    const at::Tensor activation_LG = score("activation", whole, batches, CutAxis::heads);
    for (int64_t layer = 0; layer < 2; ++layer)
      CHECK(largest(activation_LG[layer].to(at::kDouble) - expected_G[static_cast<size_t>(layer)]) <
            1e-6 * largest(activation_LG));
  }

  TEST_CASE("layers: magnitude and block influence by hand, live tokens only") {
    Model model = tiny::model({24, 24, 24});
    for (int64_t layer = 0; layer < 3; ++layer)
      for (const char* writer : {"self_attn.o_proj", "mlp.down_proj"})
        model.arena->parameter("layers." + std::to_string(layer) + "." + writer + ".weight").zero_();
    model.arena->parameter("layers.1.self_attn.o_proj.weight")[2][3] = 3;
    model.arena->parameter("layers.1.mlp.down_proj.weight")[4][5] = -4;
    CHECK(at::equal(score("magnitude", model, {}, CutAxis::layers), at::tensor({0.f, 5.f, 0.f}).view({1, 3})));

    // Layers that add nothing turn nothing; the one between adds what depends on the token.
    at::Tensor live = at::ones({2, 9}, at::kBool);
    live[1].fill_(false);
    live[0][4] = false;
    const std::array<Batch, 1> batches = {batch_of(live)};
    std::vector<at::Tensor> stream_ND;
    decoder_hidden(model, batches[0].input(), {},
                   {.layer_output = [&](int, const at::Tensor& x_ND) { stream_ND.push_back(x_ND.to(at::kDouble)); }});
    double cosine = 0;
    for (int64_t n = 0; n < 9; ++n) {
      const at::Tensor a_D = stream_ND[0][n], b_D = stream_ND[1][n];
      if (n != 4) cosine += (a_D * b_D).sum().item<double>() / (a_D.norm() * b_D.norm()).item<double>() / 8;
    }
    const at::Tensor influence_1L = score("activation", model, batches, CutAxis::layers);
    CHECK(std::abs(influence_1L[0][0].item<double>()) < 1e-7);
    CHECK(std::abs(influence_1L[0][2].item<double>()) < 1e-7);
    CHECK(influence_1L[0][1].item<double>() == doctest::Approx(1 - cosine).epsilon(1e-5));
    CHECK(1 - cosine > 1e-3);
    CHECK_THROWS_AS(score("activation", model, {}, CutAxis::layers), InternalError);
    CHECK(score_names(CutAxis::layers) == "magnitude, activation, taylor, random, first_k");
  }

  TEST_CASE("hidden: magnitude by hand; activation is the sum over the norms of attention and FFN, live tokens only") {
    Model model = tiny::model();
    for (const char* name : {"embed_tokens", "layers.0.self_attn.o_proj", "layers.0.mlp.down_proj",
                             "layers.1.self_attn.o_proj", "layers.1.mlp.down_proj"})
      model.arena->parameter(std::string(name) + ".weight").zero_();
    model.arena->parameter("embed_tokens.weight")[30][3] = 2;
    model.arena->parameter("layers.0.mlp.down_proj.weight")[3][7] = -3;
    model.arena->parameter("layers.1.self_attn.o_proj.weight")[3][1] = 6;
    model.arena->parameter("layers.1.self_attn.o_proj.weight")[5][1] = 1;
    const at::Tensor magnitude_1D = score("magnitude", model, {}, CutAxis::hidden);
    CHECK((magnitude_1D.sizes() == at::IntArrayRef({1, 16})));
    CHECK(magnitude_1D[0][3].item<double>() == 7.0);  // 2, 3, 6
    CHECK(magnitude_1D[0][5].item<double>() == 1.0);
    CHECK(magnitude_1D.sum().item<double>() == 8.0);

    // Layers that write nothing: all four norms see the embedding of one token
    Model still = tiny::model();
    for (const char* name :
         {"layers.0.self_attn.o_proj", "layers.0.mlp.down_proj", "layers.1.self_attn.o_proj", "layers.1.mlp.down_proj"})
      still.arena->parameter(std::string(name) + ".weight").zero_();
    at::Tensor live = at::zeros({1, 9}, at::kBool);
    live[0][0] = live[0][1] = true;
    const std::array<Batch, 1> batches = {batch_of(live)};
    at::Tensor mean_D = at::zeros({16}, at::kDouble);
    for (int64_t n = 0; n < 2; ++n) {
      const at::Tensor x_D =
          still.arena->parameter("embed_tokens.weight")[batches[0].token_BT[0][n].item<int64_t>()].to(at::kDouble);
      mean_D += (x_D / (x_D.square().mean() + 1e-5).sqrt()).abs() / 2;
    }
    const at::Tensor activation_1D = score("activation", still, batches, CutAxis::hidden);
    CHECK(largest(activation_1D[0].to(at::kDouble) - 4 * mean_D) < 1e-5 * largest(mean_D));
    CHECK_THROWS_AS(score("activation", still, {}, CutAxis::hidden), InternalError);
  }
}

TEST_SUITE("grad") {
  TEST_CASE("taylor of every axis: |d loss / d multiplier| of the plain decoder in double, averaged over samples") {
    const Model model = tiny::model();
    const std::array<Batch, 1> both = {batch_of(at::ones({2, 9}, at::kBool))};
    const testing::NamedWeights weights = testing::reference_weights(model);
    for (const std::string& name : axis_names()) {
      CAPTURE(name);
      const CutAxis axis = *find_axis(name);
      const std::vector<int64_t> units = units_of(model.config, axis);
      at::Tensor expected_RU = at::zeros({std::ssize(units), units.front()}, at::kDouble);
      for (int64_t row = 0; row < 2; ++row) {
        const at::Tensor one_RU = at::ones_like(expected_RU).requires_grad_(true);
        const at::Tensor logits_NV = testing::reference_logits(
            model.config, weights, both[0].input().part(row, 1, 0, 9), masks_on(axis, one_RU, model.config));
        at::nll_loss(logits_NV.log_softmax(1), both[0].true_label_BT[row]).backward();
        expected_RU += one_RU.grad().abs() / 2;
      }
      CHECK(largest(score("taylor", model, both, axis).to(at::kDouble) - expected_RU) < 1e-4 * largest(expected_RU));
    }
  }
}
