#include "pruning/scores.h"

#include "tests/pruning/tiny.h"  // before any CHECK


#include <array>

#include "pruning/plan.h"
#include "src/base/errors.h"

using namespace coppice;
using tiny::largest;

namespace {

at::Tensor score(const char* name, const Model& model, std::span<const Batch> batches = {}, uint64_t seed = 1) {
  return find_score(name, "test").compute({.model = &model, .batches = batches, .seed = seed});
}

Batch batch_of(const at::Tensor& live_BT) {
  const DecoderInput input = tiny::input(live_BT.size(0), live_BT.size(1));
  Batch batch;
  batch.token_BT = input.token_BT;
  batch.position_BT = input.position_BT;
  batch.true_label_BT = at::where(live_BT, input.token_BT, at::full_like(input.token_BT, kIgnoredLabel));
  batch.num_live = live_BT.sum().item<int64_t>();
  return batch;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("find_score: by name; an unknown one names the nearest") {
    for (const ScoreRow& row : score_table()) CHECK(&find_score(row.name, "") == &row);
    CHECK(find_score("activation", "").needs_batches);
    CHECK_FALSE(find_score("magnitude", "").needs_batches);
    CHECK_THROWS_WITH_AS(find_score("magnitud", "demo.toml:7"), doctest::Contains("unknown score 'magnitud'; did you mean 'magnitude'?"), UserError);
  }

  TEST_CASE("score_table: every row gives one finite float32 score a channel, the same ones twice") {
    const Model model = tiny::model();
    const std::array<Batch, 1> batches = {batch_of(at::ones({2, 9}, at::kBool))};
    for (const ScoreRow& row : score_table()) {
      const at::Tensor scores_LF = row.compute({.model = &model, .batches = batches, .seed = 3});
      CHECK_MESSAGE((scores_LF.sizes() == at::IntArrayRef({2, 24})), std::string(row.name));
      CHECK_MESSAGE((scores_LF.scalar_type() == at::kFloat), std::string(row.name));
      CHECK_MESSAGE(scores_LF.isfinite().all().item<bool>(), std::string(row.name));
      CHECK_MESSAGE(at::equal(scores_LF, row.compute({.model = &model, .batches = batches, .seed = 3})), std::string(row.name));
    }
  }

  TEST_CASE("layers of different widths are refused with both widths") {
    const Model model = tiny::model({24, 24, 20});
    CHECK_THROWS_WITH_AS(score("random", model), doctest::Contains("layer 0 has 24, layer 2 has 20"), UserError);
  }

  TEST_CASE("random: a permutation of the channels, by seed and layer") {
    const Model model = tiny::model();
    const at::Tensor scores_LF = score("random", model, {}, 5);
    for (int64_t layer = 0; layer < 2; ++layer) CHECK(at::equal(std::get<0>(scores_LF[layer].sort()), at::arange(24, at::kFloat)));
    CHECK_FALSE(at::equal(scores_LF[0], scores_LF[1]));
    CHECK_FALSE(at::equal(scores_LF, score("random", model, {}, 6)));
  }

  TEST_CASE("first_k: keeps channels 0 to K-1") {
    const Model model = tiny::model();
    CHECK(make_plan(score("first_k", model), {3, 2}, "first_k", "").kept == std::vector<std::vector<int64_t>>{{0, 1, 2}, {0, 1}});
  }

  TEST_CASE("activation: only live tokens count, samples are averaged one by one") {
    // Two samples of two tokens, one channel: |x| = (1, 3) and (2, 100) where the last token is not live.
    const at::Tensor hidden_NF = at::tensor({1.f, -3.f, 2.f, 100.f}).view({4, 1});
    const at::Tensor live_BT = at::tensor({1, 1, 1, 0}).view({2, 2}).to(at::kBool);
    CHECK(activation_squares(hidden_NF, live_BT)[0].item<double>() == 8.0);  // 2^2 + 2^2
    CHECK(activation_squares(hidden_NF, at::zeros({2, 2}, at::kBool))[0].item<double>() == 0.0);

    const Model model = tiny::model();
    at::Tensor live = at::ones({2, 9}, at::kBool);
    live[1].fill_(false);
    const std::array<Batch, 1> both = {batch_of(live)}, first = {batch_of(live.narrow(0, 0, 1))};
    CHECK(largest(score("activation", model, both) - score("activation", model, first)) < 1e-6);
    CHECK_THROWS_AS(score("activation", model), InternalError);
  }
}

TEST_SUITE("golden") {
  TEST_CASE("magnitude and activation against ffn_scores.json") {
    const Json golden = tiny::golden("ffn_scores.json");
    const int64_t channels = golden.at("f").get<int64_t>();
    ModelConfig config = tiny::config({channels});
    config.hidden_size = golden.at("d").get<int64_t>();
    const Model model = make_model(config);
    model.arena->parameter("layers.0.mlp.down_proj.weight").copy_(tiny::matrix_of(golden.at("down")));
    const at::Tensor magnitude_LF = score("magnitude", model);
    CHECK(largest(magnitude_LF[0].to(at::kDouble) - tiny::vector_of(golden.at("one_shot").at("magnitude"))) < 1e-5);
    CHECK(make_plan(magnitude_LF, {2}, "magnitude", "").kept[0] == golden.at("one_shot_kept").at("magnitude").get<std::vector<int64_t>>());

    std::vector<at::Tensor> samples;
    for (const Json& sample : golden.at("hidden")) samples.push_back(tiny::matrix_of(sample));
    const at::Tensor hidden_NF = at::cat(samples);
    const at::Tensor live_BT = at::ones({static_cast<int64_t>(samples.size()), samples[0].size(0)}, at::kBool);
    const at::Tensor activation_F = activation_squares(hidden_NF, live_BT).sqrt();
    CHECK(largest(activation_F - tiny::vector_of(golden.at("one_shot").at("activation"))) < 1e-12);
    CHECK(make_plan(activation_F.unsqueeze(0), {2}, "activation", "").kept[0] == golden.at("one_shot_kept").at("activation").get<std::vector<int64_t>>());
  }
}
