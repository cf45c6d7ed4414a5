// Cuts of axes other than FFN channels in the real program: scores and learned masks through check, training and
// export, resumed after a kill; what fits no axis is refused before work; recipes without the option are what they
// were.
#include <ATen/ATen.h>
#undef CHECK  // c10's, which aborts
#include <doctest/doctest.h>

#include <algorithm>
#include <functional>

#include "pruning/mask_file.h"
#include "pruning/mask_methods.h"
#include "pruning/plan.h"
#include "recipes/run/cost.h"
#include "recipes/run/lineage.h"
#include "recipes/run/recipe_warnings.h"
#include "recipes/stages/stages.h"
#include "src/checkpoint/checkpoint.h"
#include "src/checkpoint/gguf_import.h"
#include "src/checkpoint/hf_import.h"
#include "tests/recipes/axis_recipes.h"

using namespace coppice;
using namespace coppice::test;

namespace {

const std::string kHead = axis_recipe("axes") + R"([model.heads]
num_attention_heads = 4
num_key_value_heads = 2
head_dim = 8
[model.shallow]
num_hidden_layers = 3
[model.slim]
hidden_size = 24
)";

std::string prune(const std::string& name, const std::string& keys) {
  return "[[stage]]\nname = \"" + name + "\"\nkind = \"prune\"\n" + keys;
}
std::string learn(const std::string& name, const std::string& keys) {
  return "[[stage]]\nname = \"" + name +
         "\"\nkind = \"learn_masks\"\ntokens = 10240\nseq_len = 64\nbatch_tokens = 512\ncalibration_tokens = "
         "2048\ncheckpoint_steps = 5\non_collapse = \"warn\"\n" +
         keys;
}
std::string train(const std::string& name, const std::string& keys) {
  return "[[stage]]\nname = \"" + name + "\"\nkind = \"train\"\ntokens = 1024\nseq_len = 64\nbatch_tokens = 512\n" +
         keys;
}

Recipe load(const fs::path& folder, const std::string& stages) {
  return load_text(folder / "axes.toml", kHead + stages);
}

Json identity_of(const Recipe& recipe, const std::string& name) {
  return kind_of(recipe.stage(name)).identity(recipe, recipe.stage(name));
}

nlohmann::json results_of_stage(const fs::path& root, const std::string& stage) {
  return nlohmann::json::parse(slurp(root / stage / "manifest.json"))["results"];
}

Model model_of(const fs::path& root, const std::string& stage) { return load_model(root / stage / "model").model; }

/// The folder and the file that an export wrote hold the model of `stage`, shape and weights.
void check_exported(const fs::path& root, const std::string& release, const std::string& stage) {
  const Model ours = model_of(root, stage);
  const auto parameters = [](const Model& model) {
    std::vector<at::Tensor> all;
    for (const Parameter& row : parameter_table(model.config))
      all.push_back(model.arena->parameter(row.name).flatten());
    return at::cat(all);
  };
  const Model hf = import_hf(root / release / "hf");
  ModelConfig config = ours.config;
  config.max_position_embeddings = hf.config.max_position_embeddings;
  CHECK(hf.config == config);
  CHECK(parameters(hf).equal(parameters(ours)));
  for (const auto& entry : fs::recursive_directory_iterator(root / release))
    if (entry.path().extension() == ".gguf") CHECK(parameters(import_gguf(entry.path())).equal(parameters(ours)));
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("axes: without the option identities are what they were; with it, the axis and its size decide") {
    const Scratch scratch("axes_identity");
    const Recipe recipe =
        load(scratch.path,
             prune("ffn", "from = \"dense\"\ntarget = \"source\"\nscores = \"magnitude\"\n") +
                 prune("heads", "from = \"dense\"\ntarget = \"heads\"\naxis = \"heads\"\nscores = \"magnitude\"\n") +
                 learn("masks_ffn", "from = \"dense\"\ntarget = \"source\"\n") +
                 learn("masks", "from = \"dense\"\ntarget = \"heads\"\naxis = \"heads\"\n") +
                 prune("learned", "from = \"masks\"\ntarget = \"heads\"\n"));
    CHECK(identity_of(recipe, "ffn") == Json({{"scores", "magnitude"}, {"intermediate_size", {32, 32, 32, 32}}}));
    CHECK(identity_of(recipe, "heads") ==
          Json({{"scores", "magnitude"}, {"axis", "heads"}, {"num_key_value_heads", 2}}));
    CHECK_FALSE(identity_of(recipe, "masks_ffn").contains("axis"));
    CHECK(identity_of(recipe, "masks_ffn").contains("intermediate_size"));
    CHECK(identity_of(recipe, "masks")["axis"] == "heads");
    CHECK(identity_of(recipe, "masks")["num_key_value_heads"] == 2);
    CHECK(identity_of(recipe, "learned")["axis"] == "heads");  // that of its masks
    const ModelConfig left = recipe.model_after("learned");
    CHECK(left.num_attention_heads == 4);
    CHECK(left.num_key_value_heads == 2);
    CHECK(left.head_dim == 8);
    CHECK(left.intermediate_size == std::vector<int64_t>(4, 32));
    const Recipe depth =
        load(scratch.path,
             prune("layers", "from = \"dense\"\ntarget = \"shallow\"\naxis = \"layers\"\nscores = \"random\"\n") +
                 learn("masks", "from = \"dense\"\ntarget = \"shallow\"\naxis = \"layers\"\n"));
    CHECK(identity_of(depth, "layers") == Json({{"scores", "random"}, {"axis", "layers"}, {"num_hidden_layers", 3}}));
    CHECK(identity_of(depth, "masks")["num_hidden_layers"] == 3);
    CHECK(depth.model_after("layers").intermediate_size == std::vector<int64_t>(3, 32));
    CHECK(lineage_of(depth, "layers").cut == "random");
    const Recipe slim = load(
        scratch.path, prune("hidden", "from = \"dense\"\ntarget = \"slim\"\naxis = \"hidden\"\nscores = \"random\"\n") +
                          "[model.less]\nhidden_size = 24\nintermediate_size = 16\n" +
                          prune("thin", "from = \"hidden\"\ntarget = \"less\"\nscores = \"magnitude\"\n"));
    CHECK(identity_of(slim, "hidden") == Json({{"scores", "random"}, {"axis", "hidden"}, {"hidden_size", 24}}));
    CHECK(slim.model_after("hidden").hidden_size == 24);
    CHECK(slim.model_after("thin").rms_norm_eps == 1e-5 * (32.0 / 24));
    CHECK(slim.model_after("thin").head_dim == 8);
    CHECK(lineage_of(slim, "hidden").cut == "random");
    // a cut of heads is a cut: what follows it is the student
    CHECK(lineage_of(recipe, "heads").cut == "magnitude");
    CHECK_FALSE(lineage_of(recipe, "heads").kept_all);
    CHECK(lineage_of(recipe, "ffn").kept_all);
  }

  TEST_CASE("axes: plan counts a refit's FLOPs and what it holds, by hand") {
    const Scratch scratch("axes_refit_plan");
    const auto stages = [](const std::string& refit) {
      std::string text = "[model.two]\nnum_hidden_layers = 2\n";
      for (const auto& [axis, target] : {std::pair{"heads", "heads"}, {"layers", "two"}, {"hidden", "slim"}})
        text += prune(axis, "from = \"dense\"\nscores = \"random\"\ncalibration_tokens = 4096\naxis = \"" +
                                std::string(axis) + "\"\ntarget = \"" + target + "\"\n" + refit);
      return text;
    };
    const RecipeCost plain = estimate_cost(load(scratch.path, stages("")), 1e6, 0),
                     cost = estimate_cost(load(scratch.path, stages("refit = true\n")), 1e6, 0);
    const auto of = [](const RecipeCost& all, const char* name) {
      return *std::ranges::find(all.stages, name, &StageCost::name);
    };
    const auto memory = [&](const char* name) { return of(cost, name).memory_bytes - of(plain, name).memory_bytes; };
    // D 32, F 32, 8 heads of 8 in 4 groups, 4 layers; q and o 64 x 32, k and v 32 x 32; attention over windows of 256
    const double n = 4096, ffn = 6 * 32 * 32, attention = 2 * (2 * 2048 + 2 * 1024) + 2 * 64 * 257;
    const auto moments = [](double d, double m) { return 2 * m * m + 2 * d * m; };
    const auto solve = [](double d, double m) { return m * m * m / 3 + 2 * d * m * m; };
    const double half = 2 * (2 * 1024 + 2 * 512) + 2 * 32 * 257;  // the attention of 4 heads in 2 groups
    CHECK(of(cost, "heads").flops ==
          doctest::Approx(n * 4 * (ffn + 2 * half + attention + moments(32, 32)) + 4 * solve(32, 32)).epsilon(1e-12));
    // two of four layers go, each as a gap: the source's four layers, and one FFN for each gap twice more
    CHECK(of(cost, "layers").flops ==
          doctest::Approx(n * (4 * (ffn + attention) + 2 * (2 * ffn + moments(32, 32))) + 2 * solve(32, 32))
              .epsilon(1e-12));
    // 24 dimensions stay: both halves of the cut twice, of the source once
    const double narrow_ffn = 6 * 24 * 32, narrow = 2 * (2 * 1536 + 2 * 768) + 2 * 64 * 257;
    CHECK(of(cost, "hidden").flops ==
          doctest::Approx(n * 4 * (2 * (narrow_ffn + narrow) + ffn + attention + moments(24, 64) + moments(24, 32)) +
                          4 * (solve(24, 64) + solve(24, 32)))
              .epsilon(1e-12));
    const auto held = [&](double stream, double width, double uncut) {
      return 24 * n + 4 * stream * n + 8 * (4 * width * width + 6 * 32 * width) +
             2048 * (4 * (3 * uncut + 4 * width + 8 * 32) + 8 * (width + 3 * 32));
    };
    CHECK(memory("heads") == doctest::Approx(held(32, 32, 64)).epsilon(1e-12));
    CHECK(memory("layers") == doctest::Approx(held(32, 64, 64)).epsilon(1e-12));
    CHECK(memory("hidden") == doctest::Approx(held(32 + 24, 64, 64)).epsilon(1e-12));
  }

  TEST_CASE("axes: heads whose rows no block format holds are warned of") {
    const Scratch scratch("axes_warned");
    const auto said = [&](const std::string& target) {
      const std::vector<std::string> lines = recipe_warnings(load(
          scratch.path,
          "[model.one]\nnum_attention_heads = 2\nnum_key_value_heads = 1\nhead_dim = 8\n" +
              prune("cut", "from = \"dense\"\ntarget = \"" + target + "\"\naxis = \"heads\"\nscores = \"random\"\n")));
      return std::ranges::count_if(lines, [](const std::string& line) {
        return line.find(
                   "stage 'cut': num_attention_heads x head_dim = 16 is no multiple of 32, so Q8_0 and Q4_0 "
                   "files cannot hold it: 32 is the nearest") != std::string::npos;
      });
    };
    CHECK(said("one") == 1);
    CHECK(said("heads") == 0);  // 4 x 8
  }

  TEST_CASE("axes: what fits no axis is refused in one line before work") {
    const Scratch scratch("axes_refused");
    const std::string heads = "from = \"dense\"\ntarget = \"heads\"\naxis = \"heads\"\n";
    const auto contains = [&](const std::string& stages, const std::string& part) {
      const std::string text = refusal_of(scratch.path / "axes.toml", kHead + stages);
      INFO(text);
      CHECK(text.find(part) != std::string::npos);
    };
    contains(prune("cut", "from = \"dense\"\ntarget = \"heads\"\naxis = \"haeds\"\nscores = \"flap\"\n"),
             "axis: got 'haeds', expected one of: ffn, heads, layers, hidden; did you mean 'heads'?");
    contains(prune("cut", "from = \"dense\"\ntarget = \"heads\"\nscores = \"flap\"\n"),
             "differs from stage 'dense' in more than intermediate_size; only FFN channels are cut");
    contains(prune("first", heads + "scores = \"flap\"\n") +
                 prune("cut", "from = \"first\"\ntarget = \"source\"\naxis = \"heads\"\nscores = \"flap\"\n"),
             "model.source.num_key_value_heads: got 4, expected at most 2 (what stage 'first' has)");
    for (const char* key : {"budget = \"global\"", "round_to = 2", "compact_after = 3"})
      contains(learn("masks", heads + key + "\n"), "is of FFN channels alone, and this stage has axis = \"heads\"");
    contains(learn("masks", heads) + prune("cut", "from = \"masks\"\ntarget = \"heads\"\naxis = \"ffn\"\n"),
             "axis: got 'ffn', and the masks of stage 'masks' are of axis 'heads'");
    const auto with_model = [&](const std::string& model, const std::string& stages, const std::string& part) {
      contains("[model.other]\n" + model + stages, part);
    };
    const std::string cut = prune("cut", "from = \"dense\"\ntarget = \"other\"\naxis = \"heads\"\nscores = \"flap\"\n");
    with_model(
        "num_attention_heads = 8\nnum_key_value_heads = 2\nhead_dim = 8\n", cut,
        "has 8 query heads for 2 key/value heads, and stage 'dense' has 2 for each: whole groups are cut; give it "
        "num_attention_heads = 4");
    with_model("num_attention_heads = 2\nnum_key_value_heads = 1\n", cut,
               "model.other.head_dim: got 16, and heads are cut whole: give it head_dim = 8");
    with_model("num_attention_heads = 4\nnum_key_value_heads = 2\nhead_dim = 8\nintermediate_size = 16\n", cut,
               "differs from stage 'dense' in more than num_key_value_heads; only groups of attention heads are cut");
    with_model(
        "num_attention_heads = 2\nnum_key_value_heads = 1\nhead_dim = 8\n",
        prune("two", heads + "scores = \"flap\"\n") +
            learn("masks", "from = \"two\"\ntarget = \"other\"\naxis = \"heads\"\n"),
        "of two groups of attention heads one is to be chosen, and two standardised scores are 1 and -1 whatever "
        "they learn; give it score_scale = \"raw\"");
    contains(learn("masks", "from = \"dense\"\ntarget = \"slim\"\naxis = \"hidden\"\n"),
             "axis: masks over \"hidden\" are not offered; a prune stage cuts it by a score");
    contains(prune("cut", "from = \"dense\"\ntarget = \"slim\"\naxis = \"hidden\"\nscores = \"wanda_sp\"\n"),
             "scores: 'wanda_sp' weighs the columns");
    contains(prune("cut", "from = \"dense\"\ntarget = \"slim\"\naxis = \"hidden\"\nscores = \"random\"\n") +
                 train("next", "from = \"cut\"\nteacher = \"dense\"\nhidden_loss = \"mse\"\n"),
             "hidden_loss: 'dense' has 4 layers of hidden_size 32, this stage's model 4 of 24");
    with_model("rms_norm_eps = 1e-6\n", prune("cut", "from = \"dense\"\ntarget = \"other\"\nscores = \"flap\"\n"),
               "differs from stage 'dense' in more than intermediate_size");
    const std::string slim = "from = \"dense\"\ntarget = \"slim\"\naxis = \"hidden\"\nscores = \"random\"\n";
    with_model("hidden_size = 24\nrms_norm_eps = 1e-6\n",
               prune("cut", "from = \"dense\"\ntarget = \"other\"\naxis = \"hidden\"\nscores = \"random\"\n"),
               "cut: model.other.rms_norm_eps: got 1e-06, expected 1e-05 (what stage 'dense' has)");
    with_model("hidden_size = 24\nintermediate_size = 16\nrms_norm_eps = 1e-4\n",
               prune("narrow", slim) + prune("cut", "from = \"narrow\"\ntarget = \"other\"\nscores = \"flap\"\n"),
               "cut: model.other.rms_norm_eps: got 0.0001, expected 1e-05 (what stage 'dense' has)");
    with_model("rms_norm_eps = 0.05\n[model.less]\nrms_norm_eps = 0.05\nhidden_size = 8\n",
               train("rough", "model = \"other\"\n") +
                   prune("cut", "from = \"rough\"\ntarget = \"less\"\naxis = \"hidden\"\nscores = \"random\"\n"),
               "cut: a cut of hidden_size 32 to 8 raises rms_norm_eps 0.05 as much: rms_norm_eps: got 0.2, expected "
               "above 0, at most 0.1");
    const std::string layers = "from = \"dense\"\ntarget = \"shallow\"\naxis = \"layers\"\n";
    contains(
        prune("cut", layers + "scores = \"flap\"\n"),
        "scores: 'flap' weighs the columns that a unit has in a layer, and axis = \"layers\" has none; expected one "
        "of: magnitude, activation, taylor, random, first_k");
    contains(learn("masks", layers + "score_init = \"wanda_sp\"\n"), "score_init: 'wanda_sp' weighs the columns");
    contains(prune("cut", layers + "scores = \"random\"\n") +
                 train("next", "from = \"cut\"\nteacher = \"dense\"\nhidden_loss = \"mse\"\n"),
             "hidden_loss: 'dense' has 4 layers of hidden_size 32, this stage's model 3 of 32");
    with_model(
        "intermediate_size = [16, 32, 16, 32]\n[model.less]\nnum_hidden_layers = 3\nintermediate_size = [16, 32, "
        "16]\n",
        prune("uneven", "from = \"dense\"\ntarget = \"other\"\nscores = \"flap\"\n") +
            prune("cut", "from = \"uneven\"\ntarget = \"less\"\naxis = \"layers\"\nscores = \"random\"\n"),
        "the layers of stage 'uneven' differ in FFN width");
  }
}

TEST_SUITE("recipe") {
  TEST_CASE("heads: every score and learned masks through check, training, export and report") {
    const Scratch scratch("axes_heads");
    write_tiny_run(scratch.path);
    std::string stages;
    for (const char* scores : {"magnitude", "activation", "wanda_sp", "flap", "taylor", "random", "first_k"})
      stages += prune(scores,
                      "from = \"dense\"\ntarget = \"heads\"\naxis = \"heads\"\ncalibration_tokens = "
                      "2048\nscores = \"" +
                          std::string(scores) + "\"\n");
    stages += learn("masks", "from = \"dense\"\ntarget = \"heads\"\naxis = \"heads\"\n") +
              prune("pruned", "from = \"masks\"\ntarget = \"heads\"\n") + train("core", "from = \"pruned\"\n") +
              "[[stage]]\nname = \"scores\"\nkind = \"evaluate\"\nof = [\"dense\", \"pruned\", \"activation\", "
              "\"core\"]\nseq_len = 64\ntokens = 2048\n" +
              "[[stage]]\nname = \"release\"\nkind = \"export\"\nfrom = \"core\"\nformats = [\"hf\", \"gguf\"]\n";
    spill(scratch.path / "axes.toml", kHead + stages);
    const Outcome done = run(scratch.path, {"run", "axes.toml"});
    INFO(done.err);
    REQUIRE(done.code == 0);
    const fs::path root = scratch.path / "runs/axes";
    for (const char* stage : {"magnitude", "activation", "wanda_sp", "flap", "taylor", "random", "first_k", "pruned"}) {
      CAPTURE(stage);
      const auto results = results_of_stage(root, stage);
      CHECK(results["masked_pruned_difference"].get<double>() <= kMaskedPrunedLimit);
      CHECK(results["hard_mask_loss"].get<double>() ==
            doctest::Approx(results["pruned_loss"].get<double>()).epsilon(1e-5));
      const PrunePlan plan = load_plan(root / stage / "prune_plan.json");
      CHECK(plan.axis == CutAxis::heads);
      for (const std::vector<int64_t>& kept : plan.kept) CHECK(kept.size() == 2);
      CHECK(model_of(root, stage).config.num_attention_heads == 4);
    }
    CHECK(load_plan(root / "first_k/prune_plan.json").kept == std::vector<std::vector<int64_t>>(4, {0, 1}));

    // the budget holds at every step, and what was learned is what is cut
    std::istringstream lines(slurp(root / "masks/metrics.jsonl"));
    size_t steps = 0;
    for (std::string line; std::getline(lines, line); ++steps)
      CHECK(nlohmann::json::parse(line)["sum_error"].get<double>() <= 1e-6);
    CHECK(steps == 20);
    const MaskFile masks = load_masks(root / "masks/masks.h5");
    CHECK(masks.axis == CutAxis::heads);
    CHECK((masks.scores_LF.sizes() == at::IntArrayRef({4, 4})));
    CHECK(make_plan(masks.scores_LF, {2, 2, 2, 2}, "", "").kept == load_plan(root / "pruned/prune_plan.json").kept);

    check_exported(root, "release", "core");
    CHECK(
        run(scratch.path, {"inspect", "runs/axes/masks/masks.h5"}).out.find("4 layers x 4 groups of attention heads") !=
        std::string::npos);
    CHECK(run(scratch.path, {"inspect", "runs/axes/flap/prune_plan.json"})
              .out.find("layer 0: 2 groups of attention heads kept") != std::string::npos);
    const std::string plan = "runs/axes/flap/prune_plan.json", masks_file = "runs/axes/masks/masks.h5";
    CHECK(run(scratch.path, {"diff", plan, plan}).out.starts_with("equal: kept groups agree\n"));
    CHECK(run(scratch.path, {"diff", masks_file, masks_file}).out.starts_with("equal: kept groups agree, scores"));
    const auto report = nlohmann::json::parse(slurp(root / "report.json"));
    CHECK(report["masks"]["num_channels"] == 4);
    CHECK(report["masks"]["num_kept"] == 2);
    CHECK(report["masks"]["units"] == "groups of attention heads a layer");
    CHECK(slurp(root / "report.html").find("2 of 4 groups of attention heads a layer") != std::string::npos);

    // killed between two checkpoints and gone on: the same bits
    const std::string weights = slurp(root / "masks/model/part-00000.h5"), decided = slurp(root / "masks/masks.h5");
    for (const char* stage : {"masks", "pruned", "core", "scores", "release"}) fs::remove_all(root / stage);
    CHECK(run(scratch.path, {"run", "axes.toml"}, [] {
            setenv("COPPICE_FAILPOINTS", "ckpt.after_rename=abort@2", 1);
          }).signal == SIGKILL);
    CHECK(fs::exists(root / "masks/ckpt"));
    REQUIRE(run(scratch.path, {"run", "axes.toml"}).code == 0);
    CHECK(slurp(root / "masks/model/part-00000.h5") == weights);
    CHECK(slurp(root / "masks/masks.h5") == decided);
  }

  TEST_CASE("axes: a refit of every axis brings a part of the cut's price back, whose price the plan knows") {
    const Scratch scratch("axes_refit");
    write_tiny_run(scratch.path);
    const std::string refit = "refit = true\ncalibration_tokens = 8192\n";
    spill(
        scratch.path / "axes.toml",
        kHead +
            prune("heads", "from = \"dense\"\ntarget = \"heads\"\naxis = \"heads\"\nscores = \"magnitude\"\n" + refit) +
            prune("layers",
                  "from = \"dense\"\ntarget = \"shallow\"\naxis = \"layers\"\nscores = \"activation\"\n" + refit) +
            prune("hidden",
                  "from = \"dense\"\ntarget = \"slim\"\naxis = \"hidden\"\nscores = \"magnitude\"\n" + refit) +
            learn("masks", "from = \"dense\"\ntarget = \"heads\"\naxis = \"heads\"\nmask_form = \"plain\"\n") +
            prune("under_masks", "from = \"masks\"\ntarget = \"heads\"\n" + refit) +
            train("core", "from = \"heads\"\nteacher = \"dense\"\nloss = \"kl\"\n") +
            "[[stage]]\nname = \"release\"\nkind = \"export\"\nfrom = \"hidden\"\nformats = [\"hf\", \"gguf\"]\n");
    const Outcome done = run(scratch.path, {"run", "axes.toml"});
    INFO(done.err);
    REQUIRE(done.code == 0);
    const fs::path root = scratch.path / "runs/axes";
    const RecipeCost cost = estimate_cost(load_recipe((scratch.path / "axes.toml").string(), {}, {}), 1e6, 0);
    for (const auto& [stage, weights] :
         {std::pair{"heads", std::vector<std::string>(4, "o_proj")},
          {"under_masks", std::vector<std::string>(4, "o_proj")},
          {"layers", {"down_proj"}},
          {"hidden", {"o_proj", "down_proj", "o_proj", "down_proj", "o_proj", "down_proj", "o_proj", "down_proj"}}}) {
      CAPTURE(std::string(stage));
      const auto results = results_of_stage(root, stage);
      CHECK(results["masked_pruned_difference"].get<double>() <= kMaskedPrunedLimit);
      CHECK(results["refit"]["target"] == (stage == std::string("under_masks") ? "soft masks" : "dense layers"));
      REQUIRE(results["refit"]["layers"].size() == weights.size());
      for (size_t at = 0; at < weights.size(); ++at) {
        const auto& solved = results["refit"]["layers"][at];
        CHECK(solved["weight"] == weights[at]);
        CHECK(solved["after"].get<double>() > 0);
        CHECK(solved["after"].get<double>() < solved["before"].get<double>());
      }
      if (stage != std::string("under_masks"))  // whose cut costs 0.002 nats
        CHECK(results["refitted_loss"].get<double>() < results["pruned_loss"].get<double>());
      const auto counted = nlohmann::json::parse(slurp(root / stage / "manifest.json"))["flops"].get<double>();
      const double planned = std::ranges::find(cost.stages, stage, &StageCost::name)->flops;
      CHECK(counted == doctest::Approx(planned).epsilon(1e-12));  // one layer that goes is one gap
    }
    const auto report = nlohmann::json::parse(slurp(root / "report.json"));
    REQUIRE(report["refits"].size() == 4);
    CHECK(report["refits"][0]["weights"][3] == "3 o_proj");
    check_exported(root, "release", "hidden");
    // the whole stages again give the same bytes
    for (const char* stage : {"heads", "layers", "hidden"}) {
      const std::string once = slurp(root / stage / "model/part-00000.h5");
      fs::remove_all(root / stage);
      REQUIRE(run(scratch.path, {"run", "axes.toml"}).code == 0);
      CHECK(slurp(root / stage / "model/part-00000.h5") == once);
    }
  }

  TEST_CASE("layers: scores and learned masks through check, training and export; cuts of several axes in a row") {
    const Scratch scratch("axes_layers");
    write_tiny_run(scratch.path);
    std::string stages =
        "[model.narrow]\nnum_hidden_layers = 3\nintermediate_size = 16\n[model.all]\nnum_hidden_layers = "
        "3\nintermediate_size = 16\nnum_attention_heads = 4\nnum_key_value_heads = 2\nhead_dim = 8\n";
    for (const char* scores : {"magnitude", "activation", "taylor", "random", "first_k"})
      stages += prune(scores,
                      "from = \"dense\"\ntarget = \"shallow\"\naxis = \"layers\"\ncalibration_tokens = "
                      "2048\nscores = \"" +
                          std::string(scores) + "\"\n");
    stages += learn("masks", "from = \"dense\"\ntarget = \"shallow\"\naxis = \"layers\"\n") +
              prune("pruned", "from = \"masks\"\ntarget = \"shallow\"\n") + train("core", "from = \"pruned\"\n") +
              prune("thin",
                    "from = \"core\"\ntarget = \"narrow\"\nscores = \"wanda_sp\"\nrefit = "
                    "true\ncalibration_tokens = 4096\n") +
              prune("all",
                    "from = \"thin\"\ntarget = \"all\"\naxis = \"heads\"\nscores = \"taylor\"\ncalibration_"
                    "tokens = 2048\nrefit = true\n") +
              train("last", "from = \"all\"\nteacher = \"dense\"\nloss = \"kl\"\n") +
              "[[stage]]\nname = \"release\"\nkind = \"export\"\nfrom = \"last\"\nformats = [\"hf\", \"gguf\"]\n";
    spill(scratch.path / "axes.toml", kHead + stages);
    const Outcome done = run(scratch.path, {"run", "axes.toml"});
    INFO(done.err);
    REQUIRE(done.code == 0);
    const fs::path root = scratch.path / "runs/axes";
    for (const char* stage : {"magnitude", "activation", "taylor", "random", "first_k", "pruned"}) {
      CAPTURE(stage);
      CHECK(results_of_stage(root, stage)["masked_pruned_difference"].get<double>() <= kMaskedPrunedLimit);
      CHECK(model_of(root, stage).config.num_hidden_layers == 3);
      CHECK(load_plan(root / stage / "prune_plan.json").axis == CutAxis::layers);
    }
    const std::vector<int64_t> kept = load_plan(root / "activation/prune_plan.json").kept.front();
    CHECK(kept.size() == 3);
    const Model dense = model_of(root, "dense"), cut = model_of(root, "activation");
    for (size_t layer = 0; layer < 3; ++layer)
      CHECK(cut.arena->parameter("layers." + std::to_string(layer) + ".mlp.gate_proj.weight")
                .equal(dense.arena->parameter("layers." + std::to_string(kept[layer]) + ".mlp.gate_proj.weight")));
    const MaskFile masks = load_masks(root / "masks/masks.h5");
    CHECK(masks.axis == CutAxis::layers);
    CHECK((masks.scores_LF.sizes() == at::IntArrayRef({1, 4})));
    std::istringstream lines(slurp(root / "masks/metrics.jsonl"));
    for (std::string line; std::getline(lines, line);)
      CHECK(nlohmann::json::parse(line)["sum_error"].get<double>() <= 1e-6);
    CHECK(run(scratch.path, {"inspect", "runs/axes/first_k/prune_plan.json"}).out.find("3 layers kept, 0, 1, 2") !=
          std::string::npos);
    const std::string compared =
        run(scratch.path, {"diff", "runs/axes/first_k/prune_plan.json", "runs/axes/all/prune_plan.json"}).out;
    CHECK(compared.starts_with("different: kept units differ\n"));
    CHECK(compared.find("axes: A layers, B heads") != std::string::npos);
    const ModelConfig last = model_of(root, "last").config;
    CHECK(last.num_hidden_layers == 3);
    CHECK(last.num_key_value_heads == 2);
    CHECK(last.intermediate_size == std::vector<int64_t>(3, 16));
    check_exported(root, "release", "last");
  }

  TEST_CASE("layers: every way to learn masks decides as many as are asked for, and its cut is the masked model") {
    const Scratch scratch("axes_methods");
    write_tiny_run(scratch.path);
    std::string stages;
    for (const MaskMethodRow& row : mask_method_table()) {
      const std::string name = row.name;
      stages +=
          learn(name, "from = \"dense\"\ntarget = \"shallow\"\naxis = \"layers\"\nmask_method = \"" + name + "\"\n") +
          prune("cut_" + name, "from = \"" + name + "\"\ntarget = \"shallow\"\n");
    }
    spill(scratch.path / "axes.toml", kHead + stages);
    const Outcome done = run(scratch.path, {"run", "axes.toml"});
    INFO(done.err);
    REQUIRE(done.code == 0);
    const fs::path root = scratch.path / "runs/axes";
    for (const MaskMethodRow& row : mask_method_table()) {
      const std::string name = row.name;
      CAPTURE(name);
      const MaskFile masks = load_masks(root / name / "masks.h5");
      CHECK(masks.axis == CutAxis::layers);
      CHECK(masks.method == name);
      CHECK(masks.widths() == std::vector<int64_t>{3});
      CHECK(load_plan(root / ("cut_" + name) / "prune_plan.json").kept ==
            make_plan(masks.scores_LF, {3}, "", "", {}, CutAxis::layers).kept);
      const auto results = results_of_stage(root, "cut_" + name);
      CHECK(results["masked_pruned_difference"].get<double>() <= kMaskedPrunedLimit);
      CHECK(results["hard_mask_loss"].get<double>() ==
            doctest::Approx(results["pruned_loss"].get<double>()).epsilon(1e-5));
    }
  }

  TEST_CASE("hidden: scores through check, training, export and a cut of the cut") {
    const Scratch scratch("axes_hidden");
    write_tiny_run(scratch.path);
    std::string stages = "[model.slimmer]\nhidden_size = 16\n";
    for (const char* scores : {"magnitude", "activation", "taylor", "random", "first_k"})
      stages += prune(scores,
                      "from = \"dense\"\ntarget = \"slim\"\naxis = \"hidden\"\ncalibration_tokens = "
                      "2048\nscores = \"" +
                          std::string(scores) + "\"\n");
    stages += train("core", "from = \"activation\"\nteacher = \"dense\"\nloss = \"kl\"\n") +
              prune("again", "from = \"core\"\ntarget = \"slimmer\"\naxis = \"hidden\"\nscores = \"first_k\"\n") +
              "[[stage]]\nname = \"release\"\nkind = \"export\"\nfrom = \"again\"\nformats = [\"hf\", \"gguf\"]\n";
    spill(scratch.path / "axes.toml", kHead + stages);
    const Outcome done = run(scratch.path, {"run", "axes.toml"});
    INFO(done.err);
    REQUIRE(done.code == 0);
    CHECK(done.err.find("hidden_size 24 is no multiple of 32, so Q8_0 and Q4_0 files cannot hold it") !=
          std::string::npos);
    const fs::path root = scratch.path / "runs/axes";
    for (const char* stage : {"magnitude", "activation", "taylor", "random", "first_k", "again"}) {
      CAPTURE(stage);
      const auto results = results_of_stage(root, stage);
      CHECK(results["masked_pruned_difference"].get<double>() <= kMaskedPrunedLimit);
      CHECK(results["hard_mask_loss"].get<double>() ==
            doctest::Approx(results["pruned_loss"].get<double>()).epsilon(1e-5));
      CHECK(load_plan(root / stage / "prune_plan.json").axis == CutAxis::hidden);
    }
    CHECK(model_of(root, "core").config.rms_norm_eps == 1e-5 * (32.0 / 24));
    CHECK(model_of(root, "again").config.rms_norm_eps == doctest::Approx(2e-5).epsilon(1e-12));
    CHECK(model_of(root, "again").config.hidden_size == 16);
    check_exported(root, "release", "again");
  }
}
