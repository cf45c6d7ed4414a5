// The recipes that come with the program: each resolves as it stands, ablations plan without a corpus, and their arms
// are what their comments say.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "pruning/scores.h"
#include "recipes/ablation/ablation.h"
#include "recipes/language/training_options.h"
#include "recipes/run/lineage.h"
#include "recipes/stages/evaluate.h"
#include "recipes/stages/export.h"
#include "recipes/stages/label.h"
#include "recipes/stages/prune.h"
#include "recipes/stages/stages.h"
#include "recipes/stages/train.h"
#include "src/model/parameters.h"
#include "tests/recipes/given_model.h"

using namespace coppice;
using namespace coppice::test;

namespace {

const fs::path kFolder = fs::path(COPPICE_SOURCE_DIR) / "recipes";

/// FLOPs of the stages that `stage` descends from, the source left out, for each arm under the first seed.
std::map<std::string, double> flops_up_to(const std::string& file, const std::string& stage) {
  Ablation ablation = load_ablation((kFolder / file).string(), {}, {});
  const AblationPlan plan = plan_ablation(ablation, "", 0);
  std::map<std::string, double> flops;
  for (const ArmRun& run : ablation.runs) {
    if (run.seed != ablation.seeds.front()) continue;
    const std::function<double(const std::string&)> up_to = [&](const std::string& name) -> double {
      const auto at =
          static_cast<size_t>(std::ranges::find(run.recipe.stages, name, &Stage::name) - run.recipe.stages.begin());
      if (name == "dense") return 0;
      double sum = plan.stages[run.stages[at]].cost.flops;
      for (const std::string& input : run.recipe.stages[at].inputs())
        sum += up_to(input);  // no stage is reached twice but the source
      return sum;
    };
    flops[run.arm] = up_to(stage);
  }
  return flops;
}

}  // namespace

TEST_SUITE("recipe") {
  TEST_CASE("shipped recipes: coppice config resolves each; each ablation plans its distinct stages") {
    const Scratch scratch("shipped");  // outputs of the program
    size_t ablations = 0;
    for (const auto& entry : fs::directory_iterator(kFolder)) {
      if (entry.path().extension() != ".toml" || entry.path().filename() == "corpus.toml") continue;  // [data] alone
      CAPTURE(entry.path().string());
      if (slurp(entry.path()).find("kind = \"import\"") != std::string::npos) continue;  // needs its model: below
      const Outcome resolved = run(scratch.path, {"config", entry.path().string()});
      INFO(resolved.err);
      REQUIRE(resolved.code == 0);
      if (entry.path().filename() == "axes.toml")  // half a cut of 64 channels to 32 is none of those
        CHECK(resolved.err.find("intermediate_size 48 is no multiple of 32") != std::string::npos);
      else
        CHECK(resolved.err.empty());
      if (resolved.out.find("[[arm]]") == std::string::npos) continue;
      ++ablations;
      Ablation ablation = load_ablation(entry.path().string(), {}, {});
      const AblationPlan plan = plan_ablation(ablation, "", 0);
      CHECK(ablation.runs.size() == ablation.base.arms.size() * ablation.seeds.size());
      size_t stages = 0;
      for (const ArmRun& run : ablation.runs) stages += run.stages.size();
      CHECK(plan.stages.size() < stages);  // the source at least is shared
      for (const DistinctStage& stage : plan.stages)
        if (stage.cost.name == "dense") CHECK(stage.num_users >= ablation.runs.size() / 2);
      spill(scratch.path / "recipe.toml", ablation.base.resolved);  // what a run records says the same
      const Ablation again = load_ablation((scratch.path / "recipe.toml").string(), {}, {});
      REQUIRE(again.runs.size() == ablation.runs.size());
      for (size_t i = 0; i < again.runs.size(); ++i)
        CHECK(again.runs[i].recipe.resolved == ablation.runs[i].recipe.resolved);
    }
    CHECK(ablations == 16);
  }

  TEST_CASE("shipped recipes: those that import a model ask for its file; with another model every key holds") {
    const GivenModel given("shipped_import");
    const fs::path& at = given.scratch.path;
    const std::vector<std::string> released = {"--set", "release.formats=\"hf\"", "--unset", "release.quantization"},
                                   axes = {"--set", "model.shallow.num_hidden_layers=1",
                                           "--set", "model.fewer_heads.num_attention_heads=2",
                                           "--set", "model.fewer_heads.num_key_value_heads=1",
                                           "--set", "model.fewer_heads.head_dim=16",
                                           "--set", "model.slim.hidden_size=24"};
    for (const auto& [name, more] : {std::pair{"smollm2-135m.toml", released},
                                     {"smollm2-135m_gpu.toml", released},
                                     {"smollm2_refit.toml", axes}}) {
      const std::string file = name;
      CAPTURE(file);
      const Outcome missing = run(at, {"config", (kFolder / file).string()});
      CHECK(missing.code == 2);
      CHECK(missing.err.find("SmolLM2-135M-Instruct") != std::string::npos);
      std::vector<std::string> command = {
          "config", (kFolder / file).string(),  "--set", "model.source.preset=\"hf\"",
          "--set",  "dense.path=\"hf\"",        "--set", "tokenizer.path=\"hf/tokenizer.model\"",
          "--set",  "tokenizer.vocab_size=384", "--set", "model.student.intermediate_size=64"};
      command.insert(command.end(), more.begin(), more.end());
      const Outcome resolved = run(at, command);
      INFO(resolved.err);
      CHECK(resolved.code == 0);
      if (file != "smollm2_refit.toml") CHECK(resolved.err.empty());  // which here finds no heads to cut, and says so
    }
  }

  TEST_CASE("shipped recipes: from scratch at 1, 1.5 and 5 times what the arm `both` spends without its source") {
    for (const char* file : {"prune_x_distil.toml", "prune_x_distil_gpu.toml"}) {
      CAPTURE(file);
      const std::map<std::string, double> flops = flops_up_to(file, "core");
      CHECK(flops.at("scratch_1x") == doctest::Approx(flops.at("both")).epsilon(0.01));
      CHECK(flops.at("scratch_1.5x") == doctest::Approx(1.5 * flops.at("both")).epsilon(0.01));
      CHECK(flops.at("scratch_5x") == doctest::Approx(5 * flops.at("both")).epsilon(0.01));
      CHECK(flops.at("both_hybrid_8") == flops.at("both"));
    }
  }

  TEST_CASE("shipped recipes: every one-shot score stands beside its refit, which differs in that alone") {
    const Ablation ablation = load_ablation((kFolder / "refit.toml").string(), {}, {});
    const auto arm = [&](const std::string& name) -> const ArmRun& {
      return *std::ranges::find(ablation.runs, name, &ArmRun::arm);
    };
    for (const ScoreRow& row : score_table()) {
      CAPTURE(std::string(row.name));
      const ArmRun &cut = arm(row.name), &refitted = arm(std::string(row.name) + "_refit");
      CHECK(refitted.reference == row.name);
      Json with = kPrune.identity(refitted.recipe, refitted.recipe.stage("pruned"));
      Json without = kPrune.identity(cut.recipe, cut.recipe.stage("pruned"));
      CHECK(with["scores"] == row.name);
      CHECK(with["refit"] == true);
      for (const char* key : {"refit", "refit_damping", "calibration", "calibration_tokens"}) {
        with.erase(key);
        without.erase(key);
      }
      CHECK(with == without);
    }
    CHECK(ablation.base.arms.size() == 1 + 2 * score_table().size());
  }

  TEST_CASE(
      "shipped recipes: the demo compares at equal tokens; its sweep has its text, source, masks and cut, and chooses "
      "by "
      "text for tuning") {
    const Recipe demo = load_recipe((kFolder / "demo.toml").string(), {}, {});
    const double tokens = lineage_of(demo, "long").training_tokens;
    for (const char* other : {"afm_long", "scratch"})
      CHECK(lineage_of(demo, other).training_tokens == doctest::Approx(tokens).epsilon(0.001));
    CHECK(demo.stage("release").get<ExportStage>().from == "long");
    CHECK(demo.stage("afm_core").get<TrainStage>().distillation.loss == "labels");
    const std::vector<std::string>& scored = demo.stage("scores").get<EvaluateStage>().of;
    for (const ScoreRow& score : score_table()) {
      if (std::string_view(score.name) == "first_k") continue;  // a control, as random is
      const std::string cut = fmt::format("cut_{}", score.name);
      CAPTURE(cut);
      CHECK(demo.stage(cut).get<PruneStage>().scores == score.name);
      CHECK(demo.stage(cut).get<PruneStage>().from == "plain");
      CHECK(std::ranges::count(scored, cut) == 1);
    }
    Ablation sweep = load_ablation((kFolder / "demo_sweep.toml").string(), {}, {});
    CHECK(demo.data.tuning_share > 0);
    CHECK(sweep.base.data.tuning_share == demo.data.tuning_share);
    CHECK(sweep.base.data.heldout_share == demo.data.heldout_share);
    CHECK(sweep.base.data.domains.size() == demo.data.domains.size());
    CHECK(sweep.seeds.front() == demo.seed);
    for (const ArmRun& run : sweep.runs) {
      CAPTURE(run.arm);
      for (const Stage& stage : run.recipe.stages) {
        if (const auto* evaluate = stage.find<EvaluateStage>()) CHECK(evaluate->split == "tuning");
        if (const TrainingOptions* training = training_of(stage))
          CHECK((training->eval_split == "tuning" || training->eval_tokens == 0));
        for (const char* same : {"dense", "masks", "pruned"})
          if (stage.name == same && (run.seed == demo.seed || stage.name == "dense")) {
            CHECK(stage.seed == demo.stage(same).seed);
            CHECK(kind_of(stage).identity(run.recipe, stage) == kind_of(stage).identity(demo, demo.stage(same)));
          }
      }
    }
  }

  TEST_CASE("shipped recipes: the quickstart does what its sweep chose, on text for tuning") {
    const std::string page = slurp(fs::path(COPPICE_SOURCE_DIR) / "docs/quickstart.md");
    const size_t begin = page.find("# quickstart.toml\n"), end = page.find("```", begin);
    REQUIRE(end != std::string::npos);
    const Scratch scratch("shipped_quickstart");
    spill(scratch.path / "quickstart.toml", page.substr(begin, end - begin));
    const Recipe quickstart = load_recipe((scratch.path / "quickstart.toml").string(), {}, {});
    const Ablation sweep = load_ablation((kFolder / "quickstart_sweep.toml").string(), {}, {});
    CHECK(sweep.base.data.heldout_share == quickstart.data.heldout_share);
    CHECK(sweep.base.data.tuning_share > 0);
    CHECK(sweep.seeds.front() == quickstart.seed);
    const auto decided = [](const Recipe& recipe, const Stage& stage) {
      Json identity = kind_of(stage).identity(recipe, stage);
      identity.erase("eval_tokens");  // the sweep does not look while it trains
      return identity;
    };
    size_t compared = 0;
    for (const ArmRun& run : sweep.runs)
      for (const Stage& stage : run.recipe.stages) {
        CAPTURE(run.arm);
        CAPTURE(stage.name);
        if (const auto* evaluate = stage.find<EvaluateStage>()) CHECK(evaluate->split == "tuning");
        // the last choice among the student's stages; in the others what the recipe says anyway was chosen
        if (run.arm != "lengths-50k_350k" || run.seed != quickstart.seed || stage.name == "scores") continue;
        CHECK(decided(run.recipe, stage) == decided(quickstart, quickstart.stage(stage.name)));
        ++compared;
      }
    CHECK(compared == 5);
    const TrainingOptions& beside = *training_of(quickstart.stage("scratch"));
    CHECK(beside.tokens == training_of(quickstart.stage("core"))->tokens);
    CHECK(beside.optimizer.lr ==
          training_of(std::ranges::find(sweep.runs, "scratch-0.01", &ArmRun::arm)->recipe.stage("scratch"))
              ->optimizer.lr);
  }

  TEST_CASE("shipped recipes: a cut in steps and a cascade have a rival of the same shape and tokens, cut at once") {
    const auto load = [](const std::string& file) { return load_recipe((kFolder / file).string(), {}, {}); };
    const auto tokens = [](const Recipe& recipe, const std::string& name) {
      return training_of(recipe.stage(name))->tokens;
    };
    const Recipe steps = load("progressive.toml");
    CHECK(steps.model_after("student") == steps.model_after("student_at_once"));
    CHECK(tokens(steps, "recovered") + tokens(steps, "student") == tokens(steps, "student_at_once"));
    CHECK(steps.model_after("recovered").num_hidden_layers < steps.model_after("dense").num_hidden_layers);
    CHECK(start_of(steps.stage("cut_channels")) == "recovered");

    const Recipe cascade = load("cascade.toml");
    CHECK(cascade.model_after("small") == cascade.model_after("direct"));
    CHECK(tokens(cascade, "middle") + tokens(cascade, "small") == tokens(cascade, "direct"));
    CHECK(start_of(cascade.stage("cut_small")) == "middle");
    CHECK(cascade.stage("small").get<TrainStage>().teachers == std::vector<std::string>{"middle"});
  }

  TEST_CASE("shipped recipes: whatever the teacher, the student starts from the same cut") {
    for (const char* file : {"teacher_strength.toml", "teacher_strength_gpu.toml"}) {
      CAPTURE(file);
      Ablation ablation = load_ablation((kFolder / file).string(), {}, {});
      const AblationPlan plan = plan_ablation(ablation, "", 0);
      std::set<std::string> cuts;
      std::map<std::string, std::string> teacher_of;  // arm -> fingerprint of the model that labels
      for (const ArmRun& run : ablation.runs) {
        if (run.seed != ablation.seeds.front()) continue;
        for (size_t s = 0; s < run.recipe.stages.size(); ++s) {
          const Stage& stage = run.recipe.stages[s];
          if (stage.name == "pruned") cuts.insert(plan.stages[run.stages[s]].fingerprint);
          if (stage.name == "dense" || stage.name == "teacher")
            teacher_of[run.arm] = plan.stages[run.stages[s]].fingerprint;
        }
      }
      CHECK(cuts.size() == 1);
      std::set<std::string> teachers;
      for (const auto& [arm, teacher] : teacher_of) teachers.insert(teacher);
      CHECK(teachers.size() == 3);
      CHECK(teacher_of.at("weak_0.5") == teacher_of.at("weak_kl_0.9"));
      CHECK(teacher_of.at("strong_0.5") == teacher_of.at("plain"));
    }
  }

  TEST_CASE(
      "shipped recipes: arms of labels differ in loss and labels alone: one start and one order of tokens a seed") {
    for (const char* file : {"label_frontier.toml", "label_weights.toml", "label_size_800k.toml", "label_size_5m.toml",
                             "distil_from.toml"}) {
      CAPTURE(file);
      Ablation ablation = load_ablation((kFolder / file).string(), {}, {});
      CHECK(ablation.seeds.size() == 5);
      const AblationPlan plan = plan_ablation(ablation, "", 0);
      std::map<uint64_t, std::set<std::string>> starts;  // of one seed: cuts, or none
      std::map<uint64_t, std::set<Json>> drawn;
      for (const ArmRun& run : ablation.runs) {
        CAPTURE(run.arm);
        const auto& core = run.recipe.stage("core").get<TrainStage>();
        drawn[run.seed].insert(drawing_json(core.training));
        CHECK((core.from.empty() ? core.model == "student" : core.from == "pruned"));
        CHECK(core.from.empty() == run.arm.starts_with("fresh_"));
        CHECK(core.has_teacher() == !run.arm.ends_with("plain"));
        if (!core.labels.empty()) {  // stored labels read what a live teacher reads
          const auto& labels = run.recipe.stage("labels").get<LabelStage>();
          CHECK(labels.window_rule == "aligned");
          CHECK(labels.context == core.training.seq_len);
        }
        for (size_t s = 0; s < run.recipe.stages.size(); ++s)
          if (run.recipe.stages[s].name == "pruned") starts[run.seed].insert(plan.stages[run.stages[s]].fingerprint);
      }
      for (const uint64_t seed : ablation.seeds) {
        CHECK(starts.at(seed).size() == 1);
        CHECK(drawn.at(seed).size() == 1);
      }
      CHECK(drawn.at(1) != drawn.at(2));
    }
  }

  TEST_CASE("shipped recipes: whatever the axis, as much of one source is cut away, after and before as many tokens") {
    Ablation ablation = load_ablation((kFolder / "axes.toml").string(), {}, {});
    const AblationPlan plan = plan_ablation(ablation, "", 0);
    CHECK(ablation.seeds.size() == 5);
    std::set<std::string> sources, axes;
    std::set<int64_t> tokens;
    std::vector<int64_t> sizes;
    for (const ArmRun& run : ablation.runs) {
      CAPTURE(run.arm);
      const int64_t size = count_parameters(run.recipe.model_after("core"));
      sizes.push_back(size);
      if (!run.arm.starts_with("hidden"))
        CHECK(count_parameters(run.recipe.model_after("dense")) - size == doctest::Approx(30'720).epsilon(0.01));
      int64_t seen = 0;
      for (const std::string& name : ancestors_of(run.recipe, "core"))
        if (const TrainingOptions* training = training_of(run.recipe.stage(name))) seen += training->tokens;
      tokens.insert(seen);
      axes.insert(run.recipe.stage("pruned").get<PruneStage>().axis);
      for (size_t s = 0; s < run.recipe.stages.size(); ++s)
        if (run.recipe.stages[s].name == "dense") sources.insert(plan.stages[run.stages[s]].fingerprint);
      if (run.arm.starts_with("mixed")) {
        CHECK(run.recipe.model_after("part").num_key_value_heads == 3);
        CHECK(run.recipe.model_after("part").intermediate_size.front() == 64);
        CHECK(run.recipe.model_after("core").intermediate_size.front() == 48);
      }
    }
    CHECK(static_cast<double>(std::ranges::max(sizes)) < 1.02 * static_cast<double>(std::ranges::min(sizes)));
    CHECK(sources.size() == 1);
    CHECK(tokens.size() == 1);
    CHECK(axes == std::set<std::string>{"ffn", "heads", "hidden", "layers"});
  }

  TEST_CASE("shipped recipes: one cut and two end at one size and see as many tokens") {
    const Ablation ablation = load_ablation((kFolder / "cut_in_steps.toml").string(), {}, {});
    std::set<std::pair<int64_t, int64_t>> ends;
    for (const ArmRun& run : ablation.runs) {
      int64_t tokens = 0;
      for (const std::string& name : ancestors_of(run.recipe, "core"))
        if (const TrainingOptions* training = training_of(run.recipe.stage(name))) tokens += training->tokens;
      ends.emplace(count_parameters(run.recipe.model_after("core")), tokens);
    }
    CHECK(ends.size() == 1);
  }
}
