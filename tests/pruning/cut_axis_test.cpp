// Cuts of axes other than FFN channels: which rows go, that the cut model is the masked one, in float32 and against the
// plain decoder in double, and what plans and mask files say of them.
#include "pruning/cut_axis.h"

#include "tests/pruning/tiny.h"  // before any CHECK

#include <algorithm>
#include <fstream>

#include "pruning/mask_file.h"
#include "pruning/plan.h"
#include "src/base/errors.h"
#include "src/base/files.h"
#include "tests/model/reference_decoder.h"
#include "tests/scratch_folder.h"
#include "tests/tensors/whole_arena.h"

using namespace coppice;
using tiny::largest;

namespace {

/// Models with and without QK-norm, biases and a tied head; norms and biases away from 1 and 0, so that one that is
/// forgotten shows.
std::vector<Model> models(double rms_norm_eps = 1e-5) {
  std::vector<Model> models;
  for (const int kind : {0, 1, 2}) {
    ModelConfig config = tiny::config({24, 24, 24});
    config.rms_norm_eps = rms_norm_eps;
    config.qk_norm = kind == 0;
    config.qkv_bias = kind == 1;
    config.tie_word_embeddings = kind != 2;
    Model model = make_model(config);
    initialise_parameters(config, *model.arena, 7);
    for (const Parameter& row : parameter_table(config))
      if (row.shape.size() == 1)
        model.arena->parameter(row.name).copy_(at::linspace(0.5, 1.5, row.shape[0]) -
                                               (row.kind == ParameterKind::bias ? 1.2 : 0.0));
    models.push_back(std::move(model));
  }
  return models;
}

/// Four dimensions of the stream say 0.7 times what four others say, each rounded by itself; the output head takes one
/// against the other, which leaves a thousandth of them, and all the rounding.
Model cancelling_model() {
  ModelConfig config = tiny::config({24, 24, 24});
  config.tie_word_embeddings = false;
  Model model = make_model(config);
  initialise_parameters(config, *model.arena, 7);
  for (const Parameter& row : parameter_table(config)) {
    const bool reads = row.name == "lm_head.weight";
    const bool writes = row.name == "embed_tokens.weight" || row.name.find("o_proj") != std::string::npos ||
                        row.name.find("down_proj") != std::string::npos;
    if (!reads && !writes) continue;
    const auto dim = std::ranges::find(row.axes, Axis::hidden) - row.axes.begin();
    const at::Tensor value = model.arena->parameter(row.name), first = value.narrow(dim, 0, 4);
    if (reads) first.mul_(1e3);
    value.narrow(dim, 4, 4).copy_(first * (reads ? -0.999 / 0.7 : 0.7));
  }
  return model;
}

PrunePlan plan_of(CutAxis axis, std::vector<std::vector<int64_t>> kept) {
  return {.source_sha256 = "", .scores = "by hand", .kept = std::move(kept), .axis = axis};
}

at::Tensor reference_of(const Model& model, const DecoderMasks& masks = {}) {
  return testing::reference_logits(model.config, testing::reference_weights(model), tiny::input(), masks);
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("axes: steps of a budget, and the most units that fit") {
    ModelConfig config = tiny::config({24, 24, 24});
    CHECK(step_of(config, CutAxis::ffn) == 3);
    CHECK(step_of(config, CutAxis::heads) == 1);
    CHECK(step_of(config, CutAxis::layers) == 1);
    const ModelConfig wide = with_units(config, CutAxis::ffn, 1536);
    CHECK(wide.intermediate_size == std::vector<int64_t>(3, 1536));
    CHECK(step_of(wide, CutAxis::ffn) == kWidthGrid);
    CHECK(least_units(1536, 32) == 192);
    CHECK(least_units(1537, 32) == 224);
    CHECK(least_units(4, 1) == 1);
    std::vector<int64_t> asked;
    const auto fits = [&](const ModelConfig& smaller) {
      asked.push_back(smaller.intermediate_size.front());
      return smaller.intermediate_size.front() <= 992;
    };
    CHECK(most_units(wide, CutAxis::ffn, 32, fits) == 992);
    CHECK(asked.size() <= 6);  // of 48
    CHECK(most_units(wide, CutAxis::ffn, 500, fits) == 500);
    CHECK(most_units(wide, CutAxis::layers, 1, [](const ModelConfig& c) { return c.num_hidden_layers < 2; }) == 1);
    CHECK(most_units(wide, CutAxis::layers, 1, [](const ModelConfig&) { return false; }) == 0);
    CHECK(most_units(wide, CutAxis::layers, 1, [](const ModelConfig&) { return true; }) == 3);
  }

  TEST_CASE("axes: by name, with their units, and the shape that is left") {
    for (const std::string& name : axis_names()) CHECK(row_of(*find_axis(name)).name == name);
    CHECK_FALSE(find_axis("head").has_value());
    const ModelConfig config = tiny::config({24, 12});
    CHECK(units_of(config, CutAxis::ffn) == std::vector<int64_t>{24, 12});
    CHECK(units_of(config, CutAxis::heads) == std::vector<int64_t>{2, 2});
    const ModelConfig fewer = cut_config(config, CutAxis::heads, {1, 1});
    CHECK(fewer.num_key_value_heads == 1);
    CHECK(fewer.num_attention_heads == 2);
    CHECK(fewer.head_dim == 8);
    CHECK(fewer.intermediate_size == config.intermediate_size);
    CHECK_THROWS_AS(cut_config(config, CutAxis::heads, {1, 2}), InternalError);
    CHECK(units_of(config, CutAxis::layers) == std::vector<int64_t>{2});
    CHECK(cut_config(config, CutAxis::layers, {1}).num_hidden_layers == 1);
    CHECK(cut_config(config, CutAxis::layers, {1}).intermediate_size == std::vector<int64_t>{24});
    CHECK(units_of(config, CutAxis::hidden) == std::vector<int64_t>{16});
    CHECK(cut_config(config, CutAxis::hidden, {8}).hidden_size == 8);
    CHECK(cut_config(config, CutAxis::hidden, {8}).rms_norm_eps == 2e-5);
  }

  TEST_CASE("layers: those that stay close up, bit for bit, each with the width that it has") {
    const Model model = tiny::model({12, 20, 9});
    const Model pruned = prune_model(model, plan_of(CutAxis::layers, {{0, 2}}));
    CHECK(pruned.config.num_hidden_layers == 2);
    CHECK(pruned.config.intermediate_size == std::vector<int64_t>{12, 9});
    for (const Parameter& row : parameter_table(pruned.config)) {
      std::string before = row.name;
      if (row.layer == 1) before.replace(before.find("layers.1."), 9, "layers.2.");
      CHECK_MESSAGE(at::equal(pruned.arena->parameter(row.name), model.arena->parameter(before)), row.name);
    }
    CHECK_THROWS_WITH_AS(prune_model(model, plan_of(CutAxis::layers, {{0, 3}})),
                         doctest::Contains("keeps layer 3, the model has 3 layers"), UserError);
  }

  TEST_CASE("heads: exactly the rows and columns of the kept groups, all other tensors untouched") {
    for (const Model& model : models()) {
      const PrunePlan plan = plan_of(CutAxis::heads, {{1}, {0}, {1}});
      const Model pruned = prune_model(model, plan);
      CHECK(pruned.config.num_attention_heads == 2);
      CHECK(pruned.config.num_key_value_heads == 1);
      for (const Parameter& row : parameter_table(model.config)) {
        CAPTURE(row.name);
        const at::Tensor before = model.arena->parameter(row.name), after = pruned.arena->parameter(row.name);
        const int64_t group = row.layer < 0 ? 0 : plan.kept[static_cast<size_t>(row.layer)][0];
        if (row.name.find("q_proj") != std::string::npos)
          CHECK(at::equal(after, before.narrow(0, 16 * group, 16)));  // two heads of 8
        else if (row.name.find("k_proj") != std::string::npos || row.name.find("v_proj") != std::string::npos)
          CHECK(at::equal(after, before.narrow(0, 8 * group, 8)));
        else if (row.name.find("o_proj") != std::string::npos)
          CHECK(at::equal(after, before.narrow(1, 16 * group, 16)));
        else
          CHECK(at::equal(after, before));
      }
    }
    const Model model = tiny::model();
    CHECK_THROWS_WITH_AS(prune_model(model, plan_of(CutAxis::heads, {{0}, {2}})),
                         doctest::Contains("layer 1 keeps group 2, the model has 2 groups of attention heads there"),
                         UserError);
    CHECK_THROWS_AS(prune_model(model, plan_of(CutAxis::heads, {{0}, {0, 1}})), InternalError);  // layers must be alike
  }

  TEST_CASE("hidden: the columns and rows of the kept dimensions; norms, q and k scaled by hand, eps with them") {
    for (const Model& model : models()) {
      const PrunePlan plan = plan_of(CutAxis::hidden, {{2, 3, 11, 15}});
      const Model pruned = prune_model(model, plan);
      const at::Tensor kept = at::tensor({2, 3, 11, 15}, at::kLong);
      CHECK(pruned.config.hidden_size == 4);
      CHECK(pruned.config.rms_norm_eps == 4e-5);  // 16 dimensions -> 4
      CHECK(pruned.config.head_dim == model.config.head_dim);
      for (const Parameter& row : parameter_table(model.config)) {
        CAPTURE(row.name);
        at::Tensor expected = model.arena->parameter(row.name);
        for (size_t dim = 0; dim < row.axes.size(); ++dim)
          if (row.axes[dim] == Axis::hidden) expected = expected.index_select(static_cast<int64_t>(dim), kept);
        const bool norm = row.name.find("layernorm") != std::string::npos || row.name == "norm.weight",
                   query_or_key =
                       row.name.find("q_proj") != std::string::npos || row.name.find("k_proj") != std::string::npos;
        if (norm || (query_or_key && model.config.qk_norm)) expected = expected * 2;  // sqrt(16 / 4)
        CHECK(at::equal(pruned.arena->parameter(row.name), expected));
      }
    }
    const Model model = tiny::model();
    CHECK_THROWS_AS(prune_model(model, plan_of(CutAxis::hidden, {{0, 1}}), at::ones({1, 16})), InternalError);
  }

  TEST_CASE("plans and mask files name their axis; those of FFN channels are what they were") {
    const ScratchFolder folder;
    const PrunePlan plan = plan_of(CutAxis::heads, {{1}, {0}});
    save_plan(folder.path / "plan.json", plan);
    CHECK(load_plan(folder.path / "plan.json").axis == CutAxis::heads);
    CHECK(load_plan(folder.path / "plan.json").kept == plan.kept);
    save_plan(folder.path / "layers.json", plan_of(CutAxis::layers, {{0, 2, 5}}));
    CHECK(load_plan(folder.path / "layers.json").axis == CutAxis::layers);
    CHECK(load_plan(folder.path / "layers.json").kept == std::vector<std::vector<int64_t>>{{0, 2, 5}});
    CHECK(read_json(folder.path / "layers.json")["kept"] == Json({0, 2, 5}));
    CHECK(read_json(folder.path / "layers.json")["version"] == 2);  // programs that know no axes refuse it
    save_plan(folder.path / "ffn.json", plan_of(CutAxis::ffn, {{1}, {2}}));
    CHECK(read_file(folder.path / "ffn.json") ==
          seal({{"format", "coppice.prune_plan"},
                {"version", 1},
                {"source", ""},
                {"scores", "by hand"},
                {"rule", "higher score, then lower index"},
                {"layers", {{{"layer", 0}, {"kept", {1}}}, {{"layer", 1}, {"kept", {2}}}}}}));
    const auto refused = [&](int version, const char* axis, const char* part) {
      std::ofstream(folder.path / "bad.json", std::ios::binary) << seal({{"format", "coppice.prune_plan"},
                                                                         {"version", version},
                                                                         {"source", ""},
                                                                         {"scores", "x"},
                                                                         {"axis", axis},
                                                                         {"rule", "higher score, then lower index"},
                                                                         {"layers", {{{"layer", 0}, {"kept", {1}}}}}});
      CHECK_THROWS_WITH_AS(load_plan(folder.path / "bad.json"), doctest::Contains(part), UserError);
    };
    refused(2, "tails", "axis: got 'tails', expected heads, layers or hidden");
    refused(2, "ffn", "axis: got 'ffn', expected heads, layers or hidden");
    refused(1, "heads", "axis: got 'heads', expected none in a file of version 1");
    refused(3, "heads", "up to version 2");

    MaskFile masks{.scores_LF = at::sin(at::arange(8, at::kFloat)).view({2, 4}),
                   .soft_LF = at::cos(at::arange(8, at::kFloat)).square().view({2, 4}),
                   .source_sha256 = std::string(64, 'a'),
                   .num_kept = 3,
                   .epsilon = 0.125,
                   .axis = CutAxis::heads};
    save_masks(folder.path / "masks.h5", masks);
    CHECK(load_masks(folder.path / "masks.h5").axis == CutAxis::heads);
    CHECK(at::equal(load_masks(folder.path / "masks.h5").soft_LF, masks.soft_LF));
  }
}

TEST_SUITE("parity") {
  TEST_CASE("every axis: keeping every unit is the identity, and so is a mask of ones, bit for bit") {
    for (const Model& model : models())
      for (const std::string& name : axis_names()) {
        CAPTURE(name);
        const CutAxis axis = *find_axis(name);
        const std::vector<int64_t> units = units_of(model.config, axis);
        const at::Tensor ones_RU = at::ones({std::ssize(units), std::ranges::max(units)});
        const Model pruned = prune_model(model, make_plan(ones_RU, units, "all", "", units, axis),
                                         axis == CutAxis::hidden ? at::Tensor() : ones_RU);
        CHECK(pruned.config == model.config);
        CHECK(at::equal(whole_master(*pruned.arena), whole_master(*model.arena)));
        CHECK(at::equal(decoder_logits(model, tiny::input(), masks_on(axis, ones_RU, model.config)),
                        decoder_logits(model, tiny::input())));
      }
  }

  TEST_CASE("every axis: masked equals pruned, hard and soft; in double they are the same function, whatever the eps") {
    for (const double eps : {1e-5, 0.03})  // at 0.03 a norm that keeps its eps, or its weight, is far off
      for (const Model& model : models(eps))
        for (const std::string& name : axis_names()) {
          CAPTURE(eps);
          CAPTURE(name);
          const CutAxis axis = *find_axis(name);
          const std::vector<int64_t> units = units_of(model.config, axis);
          std::vector<int64_t> some;
          for (const int64_t count : units) some.push_back((count + 1) / 2);
          const at::Tensor score_RU = initial_scores(std::ssize(units), std::ranges::max(units), 1.0, 11),
                           soft_RU = score_RU.sigmoid();
          const PrunePlan plan = make_plan(score_RU, some, "random", "", units, axis);
          for (const at::Tensor& multiplier_RU : {at::Tensor(), soft_RU}) {
            if (axis == CutAxis::hidden && multiplier_RU.defined()) continue;  // not offered
            const at::Tensor hard_RU = plan_mask(plan, score_RU.size(1), multiplier_RU);
            const Model pruned = prune_model(model, plan, multiplier_RU);
            CHECK(masked_pruned_difference(model, hard_RU, pruned, tiny::input(), axis).difference <=
                  kMaskedPrunedLimit);
            const at::Tensor masked_NV = reference_of(model, masks_on(axis, hard_RU, model.config));
            CHECK(largest(masked_NV - reference_of(pruned)) < 3e-6 * largest(masked_NV));  // weights are float32
            CHECK(largest(masked_NV - reference_of(model)) > 1e-2 * largest(masked_NV));
          }
        }
  }

  TEST_CASE("every axis: another unit or another factor than the mask's is caught") {
    const Model model = std::move(models().front());
    for (const std::string& name : axis_names()) {
      CAPTURE(name);
      const CutAxis axis = *find_axis(name);
      const std::vector<int64_t> units = units_of(model.config, axis);
      std::vector<std::vector<int64_t>> kept(units.size(), {0}), other(units.size(), {1});
      if (axis == CutAxis::hidden) kept = {{0, 1, 2, 3, 5, 8}}, other = {{0, 1, 2, 3, 5, 9}};
      const at::Tensor mask_RU = plan_mask(plan_of(axis, kept), std::ranges::max(units));
      const auto difference = [&](const at::Tensor& hard_RU, const std::vector<std::vector<int64_t>>& left) {
        return masked_pruned_difference(model, hard_RU, prune_model(model, plan_of(axis, left)), tiny::input(), axis);
      };
      difference(mask_RU, kept);
      CHECK_THROWS_AS(difference(mask_RU, other), InternalError);
      if (axis != CutAxis::hidden)  // whose norms take a common factor out again
        CHECK_THROWS_AS(difference(mask_RU * 1.01, kept), InternalError);
      else
        CHECK_THROWS_AS(difference(mask_RU * at::linspace(1, 1.01, 16), kept), InternalError);
    }
  }

  TEST_CASE("every other axis: where the head cancels, rounding has its due and a wrong unit has not") {
    const Model model = cancelling_model();
    struct Cut {
      CutAxis axis;
      std::vector<std::vector<int64_t>> kept, other;
    };
    const Cut cuts[] = {
        {CutAxis::heads, {{0}, {0}, {0}}, {{0}, {1}, {0}}},
        {CutAxis::layers, {{0, 2}}, {{0, 1}}},
        {CutAxis::hidden, {{0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14}}, {{0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15}}}};
    for (const Cut& cut : cuts) {
      CAPTURE(row_of(cut.axis).name);
      const std::vector<int64_t> units = units_of(model.config, cut.axis);
      at::Tensor soft_RU;  // rounds otherwise in a weight than on what that weight gives
      if (cut.axis != CutAxis::hidden) soft_RU = initial_scores(std::ssize(units), units.front(), 1.0, 11).sigmoid();
      const at::Tensor hard_RU = plan_mask(plan_of(cut.axis, cut.kept), units.front(), soft_RU);
      const auto compare = [&](const std::vector<std::vector<int64_t>>& kept) {
        const Model pruned = prune_model(model, plan_of(cut.axis, kept), soft_RU);
        return masked_pruned_difference(model, hard_RU, pruned, tiny::input(), cut.axis);
      };
      const MaskedPruned found = compare(cut.kept);
      CHECK(found.difference > 1e-5);
      CHECK(found.limit < 1e-2);
      CHECK_THROWS_AS(compare(cut.other), InternalError);
    }
  }
}
