#include "pruning/plan.h"

#include "tests/pruning/tiny.h"  // before any CHECK

#include <c10/core/GradMode.h>

#include <cmath>
#include <fstream>
#include <limits>

#include "pruning/soft_masks.h"
#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/tensors/ops.h"
#include "tests/scratch_folder.h"
#include "tests/tensors/whole_arena.h"

using namespace coppice;
using tiny::largest;
using tiny::soft_mask;

namespace {

std::string message_of(const std::function<void()>& act, ExitCode code) {
  try {
    act();
  } catch (const Error& error) {
    CHECK(error.code() == code);
    return error.what();
  }
  return "nothing was thrown";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/// Every channel of every layer.
PrunePlan keep_all(const Model& model) {
  PrunePlan plan{.source_sha256 = "", .scores = "all", .kept = {}};
  for (const int64_t width : model.config.intermediate_size) {
    plan.kept.emplace_back(width);
    for (int64_t f = 0; f < width; ++f) plan.kept.back()[static_cast<size_t>(f)] = f;
  }
  return plan;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("make_plan: the K best by score, ties to the lower index, ascending") {
    const at::Tensor scores_LF = at::tensor({0.1f, 5.f, 0.1f, 7.f, 0.1f, 2.f, 2.f, 2.f, 2.f, 2.f}).view({2, 5});
    const PrunePlan plan = make_plan(scores_LF, {3, 2}, "hand", "abc");
    CHECK(plan.kept == std::vector<std::vector<int64_t>>{{0, 1, 3}, {0, 1}});
    CHECK(plan.scores == "hand");
    CHECK(plan.source_sha256 == "abc");
    CHECK(make_plan(scores_LF, {5, 5}, "hand", "").kept ==
          std::vector<std::vector<int64_t>>{{0, 1, 2, 3, 4}, {0, 1, 2, 3, 4}});
    CHECK(make_plan(at::tensor({-1.f, -0.f, 0.f, -2.f}).view({1, 4}), {1}, "zeros", "").kept ==
          std::vector<std::vector<int64_t>>{{1}});
  }

  TEST_CASE("make_plan: refuses more than there is and scores that are not finite, with layer and numbers") {
    at::Tensor scores_LF = at::arange(10, at::kFloat).view({2, 5}).clone();
    std::string text = message_of([&] { make_plan(scores_LF, {2, 6}, "magnitude", ""); }, ExitCode::recipe);
    CHECK(contains(text, "prune by magnitude, layer 1"));
    CHECK(contains(text, "got 6, expected 1 to 5"));
    CHECK(contains(message_of([&] { make_plan(scores_LF, {0, 2}, "magnitude", ""); }, ExitCode::recipe), "layer 0"));
    scores_LF[1][3] = std::numeric_limits<float>::infinity();
    scores_LF[1][4] = std::nanf("");
    text = message_of([&] { make_plan(scores_LF, {2, 2}, "masks", ""); }, ExitCode::recipe);
    CHECK(contains(text, "prune by masks, layer 1"));
    CHECK(contains(text, "2 of 5 scores are not finite, the first is channel 3: inf"));
  }

  TEST_CASE("save_plan and load_plan: the same plan back, equal bytes for equal plans, damage refused") {
    const ScratchFolder folder;
    const PrunePlan plan = make_plan(initial_scores(3, 50, 1.0, 2), {7, 20, 50}, "random", std::string(64, 'a'));
    save_plan(folder.path / "plan.json", plan);
    const PrunePlan back = load_plan(folder.path / "plan.json");
    CHECK(back.kept == plan.kept);
    CHECK(back.scores == plan.scores);
    CHECK(back.source_sha256 == plan.source_sha256);
    save_plan(folder.path / "again.json", back);
    CHECK(read_file(folder.path / "plan.json") == read_file(folder.path / "again.json"));

    std::string bytes = read_file(folder.path / "plan.json");
    bytes[bytes.find("\"kept\":[") + 8] ^= 1;
    std::ofstream(folder.path / "flipped.json", std::ios::binary) << bytes;
    message_of([&] { load_plan(folder.path / "flipped.json"); }, ExitCode::bad_file);
  }

  TEST_CASE("load_plan: a sealed plan whose lists make no sense is refused by layer") {
    const ScratchFolder folder;
    const auto load = [&](const Json& layers) {
      std::ofstream(folder.path / "bad.json", std::ios::binary) << seal({{"format", "coppice.prune_plan"},
                                                                         {"version", 1},
                                                                         {"source", ""},
                                                                         {"scores", "x"},
                                                                         {"rule", "higher score, then lower index"},
                                                                         {"layers", layers}});
      return message_of([&] { load_plan(folder.path / "bad.json"); }, ExitCode::bad_file);
    };
    CHECK(contains(load({{{"layer", 0}, {"kept", {1, 1}}}}), "layer 0: kept[1] is 1"));
    CHECK(contains(load({{{"layer", 0}, {"kept", {3, 2}}}}), "kept[1] is 2"));
    CHECK(contains(load({{{"layer", 0}, {"kept", {-1, 2}}}}), "kept[0] is -1"));
    CHECK(contains(load({{{"layer", 0}, {"kept", {0.5}}}}), "kept[0] is 0.5"));
    CHECK(contains(load({{{"layer", 0}, {"kept", {uint64_t{1} << 40}}}}), "kept[0]"));
    CHECK(contains(load({{{"layer", 1}, {"kept", {1}}}}), "layers[0]"));
    CHECK(contains(load({{{"layer", 0}, {"kept", Json::array()}}}), "layer 0: nothing is kept"));
  }

  TEST_CASE("plan_mask: ones at the kept channels, or the soft mask's values there") {
    const PrunePlan plan{.source_sha256 = "", .scores = "", .kept = {{0, 2}, {1, 3}}};
    CHECK(at::equal(plan_mask(plan, 4), at::tensor({1.f, 0.f, 1.f, 0.f, 0.f, 1.f, 0.f, 1.f}).view({2, 4})));
    const at::Tensor soft_LF = at::arange(1, 9, at::kFloat).view({2, 4}) / 10;
    CHECK(at::equal(plan_mask(plan, 4, soft_LF), soft_LF * plan_mask(plan, 4)));
  }

  TEST_CASE("prune_model: the plan must fit the model") {
    const Model model = tiny::model();
    CHECK(contains(
        message_of([&] { prune_model(model, {.source_sha256 = "", .scores = "", .kept = {{0}}}); }, ExitCode::recipe),
        "made for 1 layers, the model has 2"));
    CHECK(contains(message_of(
                       [&] {
                         prune_model(model, {.source_sha256 = "", .scores = "", .kept = {{0}, {3, 24}}});
                       },
                       ExitCode::recipe),
                   "layer 1 keeps channel 24, the model has 24"));
    CHECK_THROWS_AS(prune_model(model, {.source_sha256 = "", .scores = "", .kept = {{0}, {3, 3}}}), InternalError);
  }

  TEST_CASE("prune_model: exactly the named rows and columns, all other tensors untouched") {
    const Model model = tiny::model();
    const PrunePlan plan{.source_sha256 = "", .scores = "", .kept = {{1, 5, 23}, {0, 2, 3}}};
    const Model pruned = prune_model(model, plan);
    CHECK(pruned.config.intermediate_size == std::vector<int64_t>{3, 3});
    CHECK(pruned.config.hidden_size == model.config.hidden_size);
    for (const Parameter& row : parameter_table(model.config)) {
      const at::Tensor before = model.arena->parameter(row.name), after = pruned.arena->parameter(row.name);
      if (row.name.find(".mlp.") == std::string::npos) {
        CHECK_MESSAGE(at::equal(before, after), row.name);
        continue;
      }
      const bool down = row.name.find("down_proj") != std::string::npos;
      for (int64_t i = 0; i < 3; ++i) {
        const int64_t f = plan.kept[static_cast<size_t>(row.layer)][static_cast<size_t>(i)];
        CHECK_MESSAGE(at::equal(down ? after.select(1, i) : after[i], down ? before.select(1, f) : before[f]),
                      row.name);
      }
    }
  }
}

TEST_SUITE("parity") {
  TEST_CASE("shrink: keeping every channel is the identity, bit for bit") {
    const Model model = tiny::model({24, 17});
    const Model pruned = prune_model(model, keep_all(model));
    CHECK(pruned.config == model.config);
    CHECK(at::equal(whole_master(*pruned.arena), whole_master(*model.arena)));
    CHECK(at::equal(decoder_logits(pruned, tiny::input()), decoder_logits(model, tiny::input())));
  }

  TEST_CASE("shrink: a mask of ones changes nothing, bit for bit") {
    const Model model = tiny::model();
    CHECK(at::equal(decoder_logits(model, tiny::input(), masks_on(CutAxis::ffn, at::ones({2, 24}), model.config)),
                    decoder_logits(model, tiny::input())));
  }

  TEST_CASE("shrink: masked equals shrunk, hard, soft and with layers of different widths") {
    const Model model = tiny::model();
    const at::Tensor raw_LF = initial_scores(2, 24, 0.01, 11);
    const at::Tensor soft_LF = soft_mask(raw_LF, {.k = 8, .epsilon = 0.3, .top = false}, 8);
    for (const std::vector<int64_t>& num_kept : {std::vector<int64_t>{8, 8}, {1, 24}, {13, 5}}) {
      const PrunePlan plan = make_plan(raw_LF, num_kept, "masks", "");
      CHECK(masked_pruned_difference(model, plan_mask(plan, 24), prune_model(model, plan), tiny::input()).difference <
            2e-6);
      const Model merged = prune_model(model, plan, soft_LF);
      CHECK(masked_pruned_difference(model, plan_mask(plan, 24, soft_LF), merged, tiny::input()).difference < 2e-6);
      CHECK(merged.config.intermediate_size == num_kept);
    }
  }

  TEST_CASE("shrink: cutting twice, from layers that already differ") {
    const Model model = tiny::model({12, 20, 9});
    const PrunePlan plan{.source_sha256 = "", .scores = "", .kept = {{0, 11}, {3, 4, 19}, {8}}};
    const Model pruned = prune_model(model, plan);
    CHECK(pruned.config.intermediate_size == std::vector<int64_t>{2, 3, 1});
    DecoderMasks masks;
    for (size_t layer = 0; layer < 3; ++layer) {
      at::Tensor mask_F = at::zeros({model.config.intermediate_size[layer]});
      for (const int64_t f : plan.kept[layer]) mask_F[f] = 1;
      masks.multiplier_F.push_back(mask_F);
    }
    const at::Tensor masked_NV = decoder_logits(model, tiny::input(), masks);
    CHECK(largest(masked_NV - decoder_logits(pruned, tiny::input())) < 2e-6 * largest(masked_NV));
  }

  TEST_CASE("masked_pruned_difference: a wrong channel, a wrong factor and a NaN are caught") {
    const Model model = tiny::model();
    const PrunePlan plan = make_plan(initial_scores(2, 24, 0.01, 12), {8, 8}, "masks", "");
    PrunePlan other = plan;
    other.kept[1].back() = other.kept[1].back() == 23 ? 22 : 23;
    std::ranges::sort(other.kept[1]);
    CHECK_THROWS_AS(masked_pruned_difference(model, plan_mask(plan, 24), prune_model(model, other), tiny::input()),
                    InternalError);
    CHECK_THROWS_AS(masked_pruned_difference(model, plan_mask(plan, 24),
                                             prune_model(model, plan, at::full({2, 24}, 1.01f)), tiny::input()),
                    InternalError);
    const Model broken = prune_model(model, plan);
    broken.arena->parameter("layers.1.mlp.up_proj.weight")[0][0] = std::nanf("");
    CHECK_THROWS_AS(masked_pruned_difference(model, plan_mask(plan, 24), broken, tiny::input()), InternalError);
  }

  TEST_CASE("masked_pruned_difference: where large channels cancel, rounding has its due and a wrong channel has not") {
    const Model model = tiny::model();
    {
      const c10::NoGradGuard no_grad;
      const auto weight = [&](const char* name) {
        return model.arena->parameter(std::string("layers.0.mlp.") + name + ".weight");
      };
      for (const char* name : {"gate_proj", "up_proj"}) weight(name)[1].copy_(weight(name)[0]);
      weight("down_proj").select(1, 0).mul_(3e4);
      weight("down_proj").select(1, 1).copy_(weight("down_proj").select(1, 0) * -0.9999);
    }
    const PrunePlan plan{.source_sha256 = "", .scores = "by hand", .kept = {{0, 1, 4, 7, 11}, {0, 2, 3, 5, 8, 9}}};
    const MaskedPruned found =
        masked_pruned_difference(model, plan_mask(plan, 24), prune_model(model, plan), tiny::input());
    CHECK(found.difference <= found.limit);  // of some processors 0: their products of both add up in one order
    CHECK(found.limit < 1e-2);
    PrunePlan other = plan;
    other.kept[0].back() = 12;
    CHECK_THROWS_AS(masked_pruned_difference(model, plan_mask(plan, 24), prune_model(model, other), tiny::input()),
                    InternalError);
  }
}

TEST_SUITE("golden") {
  TEST_CASE("masked = merged = pruned on the FFN of ffn_scores.json") {
    const Json golden = tiny::golden("ffn_scores.json");
    const int64_t hidden = golden.at("d").get<int64_t>(), channels = golden.at("f").get<int64_t>(),
                  kept = golden.at("k").get<int64_t>();
    const at::Tensor score_LF = tiny::vector_of(golden.at("score"), at::kFloat).unsqueeze(0);
    const PrunePlan plan = make_plan(score_LF, {kept}, "golden", "");
    CHECK(plan.kept[0] == golden.at("kept").get<std::vector<int64_t>>());
    const at::Tensor lambda_LF = soft_top_k(score_LF, static_cast<double>(kept), golden.at("eps").get<double>());
    CHECK(largest(lambda_LF[0].to(at::kDouble) - tiny::vector_of(golden.at("lambda"))) < 1e-5);

    // One layer whose FFN is the golden one; the rest of the model does not matter here.
    ModelConfig config = tiny::config({channels});
    config.hidden_size = hidden;
    const Model model = make_model(config);
    const std::string mlp = "layers.0.mlp.";
    model.arena->parameter(mlp + "gate_proj.weight").copy_(tiny::matrix_of(golden.at("gate")));
    model.arena->parameter(mlp + "up_proj.weight").copy_(tiny::matrix_of(golden.at("up")));
    model.arena->parameter(mlp + "down_proj.weight").copy_(tiny::matrix_of(golden.at("down")));
    const Model pruned = prune_model(model, plan, lambda_LF);
    CHECK(largest(pruned.arena->parameter(mlp + "up_proj.weight") -
                  tiny::matrix_of(golden.at("merged_up"), at::kFloat)) < 1e-5);

    const at::Tensor x_1D = tiny::vector_of(golden.at("x"), at::kFloat).unsqueeze(0);
    const auto ffn = [&](const Model& at, const at::Tensor& mask_F) {
      const at::Tensor gate_up = at::cat({x_1D.mm(at.arena->parameter(mlp + "gate_proj.weight").t()),
                                          x_1D.mm(at.arena->parameter(mlp + "up_proj.weight").t())},
                                         1);
      return swiglu(gate_up, mask_F).mm(at.arena->parameter(mlp + "down_proj.weight").t())[0].to(at::kDouble);
    };
    CHECK(largest(ffn(model, lambda_LF[0]) - tiny::vector_of(golden.at("out_soft"))) < 1e-5);
    CHECK(largest(ffn(model, plan_mask(plan, channels, lambda_LF)[0]) - tiny::vector_of(golden.at("out_cut"))) < 1e-5);
    CHECK(largest(ffn(pruned, {}) - tiny::vector_of(golden.at("out_pruned"))) < 1e-5);
  }
}
