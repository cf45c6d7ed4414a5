#include "pruning/scores.h"

#include "tests/pruning/tiny.h"  // before any CHECK

#include <array>
#include <cmath>

#include "pruning/channel_moments.h"
#include "pruning/plan.h"
#include "src/base/errors.h"
#include "src/tensors/ops.h"

using namespace coppice;
using tiny::batch_of;
using tiny::largest;

namespace {

at::Tensor score(const char* name, const Model& model, std::span<const Batch> batches = {}, uint64_t seed = 1) {
  return find_score(name, "test").compute({.model = &model, .batches = batches, .seed = seed});
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("find_score: by name; an unknown one names the nearest") {
    for (const ScoreRow& row : score_table()) CHECK(&find_score(row.name, "") == &row);
    CHECK(find_score("activation", "").passes == 1);
    CHECK(find_score("taylor", "").passes == 2);
    CHECK(find_score("magnitude", "").passes == 0);
    CHECK_THROWS_WITH_AS(find_score("magnitud", "demo.toml:7"),
                         doctest::Contains("unknown score 'magnitud'; did you mean 'magnitude'?"), UserError);
    CHECK_THROWS_WITH_AS(find_score("flap_with_bias", "demo.toml:7"),
                         doctest::Contains("demo.toml:7: scores: FLAP with its bias needs a bias in down_proj"),
                         UserError);
  }

  TEST_CASE("score_table: every row gives one finite float32 score a channel, the same ones twice") {
    const Model model = tiny::model();
    const std::array<Batch, 1> batches = {batch_of(at::ones({2, 9}, at::kBool))};
    for (const ScoreRow& row : score_table()) {
      const at::Tensor scores_LF = row.compute({.model = &model, .batches = batches, .seed = 3});
      CHECK_MESSAGE((scores_LF.sizes() == at::IntArrayRef({2, 24})), std::string(row.name));
      CHECK_MESSAGE((scores_LF.scalar_type() == at::kFloat), std::string(row.name));
      CHECK_MESSAGE(scores_LF.isfinite().all().item<bool>(), std::string(row.name));
      CHECK_MESSAGE(at::equal(scores_LF, row.compute({.model = &model, .batches = batches, .seed = 3})),
                    std::string(row.name));
    }
  }

  TEST_CASE("score_table: a model that computes in bfloat16 has the scores of its master, but for rounding") {
    const Model exact = tiny::model(), rounded = tiny::model({24, 24}, 7, at::kBFloat16);
    const std::array<Batch, 1> batches = {batch_of(at::ones({2, 9}, at::kBool))};
    for (const ScoreRow& row : score_table()) {
      const at::Tensor want_LF = row.compute({.model = &exact, .batches = batches}),
                       got_LF = row.compute({.model = &rounded, .batches = batches});
      CHECK_MESSAGE(largest(got_LF - want_LF) <= 0.1 * largest(want_LF), std::string(row.name));
      CHECK_MESSAGE(at::equal(got_LF, want_LF) == (row.passes == 0), std::string(row.name));
    }
  }

  TEST_CASE("layers of different widths are refused with both widths") {
    const Model model = tiny::model({24, 24, 20});
    CHECK_THROWS_WITH_AS(score("random", model), doctest::Contains("layer 0 has 24, layer 2 has 20"), UserError);
  }

  TEST_CASE("pad: every score of layers of different widths; what is cut by it is the masked model") {
    const Model model = tiny::model({24, 16, 20}), even = tiny::model();
    const std::array<Batch, 1> batches = {batch_of(at::ones({2, 9}, at::kBool))};
    const std::vector<int64_t>& widths = model.config.intermediate_size;
    for (const ScoreRow& row : score_table()) {
      CAPTURE(row.name);
      const at::Tensor scores_LF = row.compute({.model = &model, .batches = batches, .seed = 3, .pad = true});
      CHECK((scores_LF.sizes() == at::IntArrayRef({3, 24})));
      for (int64_t layer = 0; layer < 3; ++layer) {
        const int64_t width = widths[static_cast<size_t>(layer)];
        CHECK(scores_LF[layer].narrow(0, 0, width).isfinite().all().item<bool>());
        CHECK(scores_LF[layer].narrow(0, width, 24 - width).isneginf().all().item<bool>());
      }
      const PrunePlan plan = make_plan(scores_LF, {5, 16, 20}, row.name, "", widths);
      CHECK(plan.kept[1].size() == 16);
      CHECK(plan.kept[2].back() == 19);
      CHECK(masked_pruned_difference(model, plan_mask(plan, 24), prune_model(model, plan), tiny::input()).difference <
            2e-6);
      CHECK_THROWS_WITH_AS(make_plan(scores_LF, {5, 17, 20}, row.name, "", widths),
                           doctest::Contains("got 17, expected 1 to 16"), UserError);
      CHECK(at::equal(row.compute({.model = &even, .batches = batches, .seed = 3, .pad = true}),
                      row.compute({.model = &even, .batches = batches, .seed = 3})));
    }
  }

  TEST_CASE("random: a permutation of the channels, by seed and layer") {
    const Model model = tiny::model();
    const at::Tensor scores_LF = score("random", model, {}, 5);
    for (int64_t layer = 0; layer < 2; ++layer)
      CHECK(at::equal(std::get<0>(scores_LF[layer].sort()), at::arange(24, at::kFloat)));
    CHECK_FALSE(at::equal(scores_LF[0], scores_LF[1]));
    CHECK_FALSE(at::equal(scores_LF, score("random", model, {}, 6)));
  }

  TEST_CASE("first_k: keeps channels 0 to K-1") {
    const Model model = tiny::model();
    CHECK(make_plan(score("first_k", model), {3, 2}, "first_k", "").kept ==
          std::vector<std::vector<int64_t>>{{0, 1, 2}, {0, 1}});
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
    for (const char* name : {"activation", "wanda_sp", "flap", "taylor"})
      CHECK_THROWS_AS(score(name, model), InternalError);
  }

  TEST_CASE("magnitude: the norm of a column, by hand") {
    Model model = tiny::model();
    at::Tensor down_DF = model.arena->parameter("layers.1.mlp.down_proj.weight");
    down_DF.zero_();
    down_DF[2][5] = 3;
    down_DF[7][5] = -4;
    const at::Tensor scores_LF = score("magnitude", model);
    CHECK(scores_LF[1][5].item<double>() == 5.0);
    CHECK(scores_LF[1].sum().item<double>() == 5.0);
  }

  TEST_CASE("wanda_sp and flap: by hand, live tokens only") {
    // One channel, live tokens 1, -3 and 2 (the fourth is dead): mean 0, mean square 14/3, variance 14/3; weights (3,
    // -1): mean |w| 2, sum of squares 10.
    ChannelMoments moments;
    moments.add(at::tensor({1.f, -3.f, 2.f, 100.f}).view({4, 1}), at::tensor({1, 1, 1, 0}).to(at::kBool));
    const at::Tensor down_DF = at::tensor({3.0, -1.0}).view({2, 1});
    CHECK(wanda_sp_scores(down_DF, moments.mean_square())[0].item<double>() ==
          doctest::Approx(2 * std::sqrt(14.0 / 3)));
    CHECK(flap_scores(down_DF, moments.variance())[0].item<double>() == doctest::Approx(10 * 14.0 / 3));
    CHECK(wanda_sp_scores(at::zeros({2, 1}, at::kDouble), moments.mean_square())[0].item<double>() == 0.0);
    ChannelMoments constant;  // always on, never moving: Wanda keeps it, FLAP does not
    constant.add(at::full({5, 1}, 2.f), at::ones({5}, at::kBool));
    CHECK(flap_scores(down_DF, constant.variance())[0].item<double>() == 0.0);
    CHECK(wanda_sp_scores(down_DF, constant.mean_square())[0].item<double>() == 4.0);
  }

  TEST_CASE("ChannelMoments: batches of any size merge into the moments of all, far from zero too") {
    const at::Tensor x_NF = at::sin(at::arange(97 * 3, at::kFloat)).view({97, 3}) + at::tensor({0.f, 1000.f, -5.f});
    const at::Tensor live_N = at::arange(97, at::kLong).remainder(5).ne(0);
    ChannelMoments whole, parts;
    whole.add(x_NF, live_N);
    for (int64_t begin = 0, size = 1; begin < 97; begin += size, size = std::min<int64_t>(2 * size, 97 - begin))
      parts.add(x_NF.narrow(0, begin, size), live_N.narrow(0, begin, size));
    CHECK(parts.count() == live_N.sum().item<int64_t>());
    CHECK(largest(parts.mean() - whole.mean()) < 1e-10);
    CHECK(largest(parts.variance() - whole.variance()) < 1e-9);
    const at::Tensor live_nF = x_NF.index_select(0, live_N.nonzero().squeeze(1)).to(at::kDouble);
    CHECK(largest(whole.variance() - (live_nF - live_nF.mean(0)).square().mean(0)) < 1e-10);
    ChannelMoments none;
    none.add(x_NF, at::zeros({97}, at::kBool));
    CHECK(none.count() == 0);
  }

  TEST_CASE("scores from activations see live tokens alone: a dead sample changes nothing") {
    const Model model = tiny::model();
    at::Tensor live = at::ones({2, 9}, at::kBool);
    live[1].fill_(false);
    const std::array<Batch, 1> both = {batch_of(live)}, first = {batch_of(live.narrow(0, 0, 1))};
    for (const char* name : {"wanda_sp", "flap", "taylor"}) {
      const at::Tensor alone_LF = score(name, model, first);
      CHECK_MESSAGE(largest(score(name, model, both) - alone_LF) < 1e-5 * largest(alone_LF), std::string(name));
      CHECK(largest(alone_LF) > 0);
    }
  }
}

TEST_SUITE("grad") {
  TEST_CASE(
      "taylor: one sample's score is |d loss / d multiplier| by central differences; samples are averaged in absolute "
      "value") {
    const Model model = tiny::model();
    const std::array<Batch, 1> both = {batch_of(at::ones({2, 9}, at::kBool))};
    std::array<at::Tensor, 2> slope_LF;
    for (int64_t row = 0; row < 2; ++row) {
      slope_LF[static_cast<size_t>(row)] = at::zeros({2, 24}, at::kDouble);
      const auto loss = [&](const DecoderMasks& masks) {
        const DecoderInput input{.token_BT = both[0].token_BT.narrow(0, row, 1),
                                 .position_BT = both[0].position_BT.narrow(0, row, 1),
                                 .document_BT = {}};
        return linear_mixed_cross_entropy(decoder_hidden(model, input, masks), output_head(model),
                                          both[0].true_label_BT[row], {}, 0.0, 0.0)
            .item<double>();
      };
      const double h = 2e-2;  // float32 losses of about 4: rounding 5e-7 / 4e-2, curvature h^2
      for (int64_t layer = 0; layer < 2; ++layer) {
        for (int64_t f = 0; f < 24; ++f) {
          const auto at_factor = [&](double factor) {
            DecoderMasks masks{{at::ones({24}), at::ones({24})}};
            masks.multiplier_F[static_cast<size_t>(layer)][f] = factor;
            return loss(masks);
          };
          slope_LF[static_cast<size_t>(row)][layer][f] = (at_factor(1 + h) - at_factor(1 - h)) / (2 * h);
        }
      }
    }
    const at::Tensor expected_LF = (slope_LF[0].abs() + slope_LF[1].abs()) / 2;
    CHECK(largest(score("taylor", model, both).to(at::kDouble) - expected_LF) < 2e-3 * largest(expected_LF) + 5e-5);
    CHECK(largest((slope_LF[0] + slope_LF[1]).abs() / 2 - expected_LF) >
          0.05 * largest(expected_LF));  // the order of sum and absolute value matters here
  }
}

TEST_SUITE("golden") {
  TEST_CASE("magnitude, activation, wanda_sp and flap against ffn_scores.json") {
    const Json golden = tiny::golden("ffn_scores.json");
    const int64_t channels = golden.at("f").get<int64_t>();
    ModelConfig config = tiny::config({channels});
    config.hidden_size = golden.at("d").get<int64_t>();
    const Model model = make_model(config);
    model.arena->parameter("layers.0.mlp.down_proj.weight").copy_(tiny::matrix_of(golden.at("down")));
    const at::Tensor magnitude_LF = score("magnitude", model);
    CHECK(largest(magnitude_LF[0].to(at::kDouble) - tiny::vector_of(golden.at("one_shot").at("magnitude"))) < 1e-5);
    CHECK(make_plan(magnitude_LF, {2}, "magnitude", "").kept[0] ==
          golden.at("one_shot_kept").at("magnitude").get<std::vector<int64_t>>());

    std::vector<at::Tensor> samples;
    for (const Json& sample : golden.at("hidden")) samples.push_back(tiny::matrix_of(sample));
    const at::Tensor hidden_NF = at::cat(samples);
    const at::Tensor live_BT = at::ones({static_cast<int64_t>(samples.size()), samples[0].size(0)}, at::kBool);
    const at::Tensor activation_F = activation_squares(hidden_NF, live_BT).sqrt();
    CHECK(largest(activation_F - tiny::vector_of(golden.at("one_shot").at("activation"))) < 1e-12);
    CHECK(make_plan(activation_F.unsqueeze(0), {2}, "activation", "").kept[0] ==
          golden.at("one_shot_kept").at("activation").get<std::vector<int64_t>>());

    ChannelMoments moments;
    for (const at::Tensor& sample : samples) moments.add(sample, at::ones({sample.size(0)}, at::kBool));
    const at::Tensor down_DF = tiny::matrix_of(golden.at("down"));
    for (const auto& [name, score_F] : {std::pair{"wanda_sp", wanda_sp_scores(down_DF, moments.mean_square())},
                                        {"flap_wifv", flap_scores(down_DF, moments.variance())}}) {
      CHECK_MESSAGE(largest(score_F - tiny::vector_of(golden.at("one_shot").at(name))) < 1e-12, std::string(name));
      CHECK(make_plan(score_F.unsqueeze(0), {2}, name, "").kept[0] ==
            golden.at("one_shot_kept").at(name).get<std::vector<int64_t>>());
    }
  }
}
