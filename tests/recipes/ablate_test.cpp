// Ablations with the real program: what is shared is computed once, tables hold what the evaluations say, kills change
// nothing, mistakes are refused.
#include <doctest/doctest.h>

#include <cmath>
#include <numbers>
#include <regex>

#include "recipes/ablation/ablation.h"
#include "recipes/report/ablation_differences.h"
#include "recipes/report/ablation_report.h"
#include "recipes/report/paired_test.h"
#include "tests/recipes/program.h"
#include "tests/recipes/same_results.h"

using namespace coppice::test;

namespace {

using Json = nlohmann::json;

Json read(const fs::path& path) { return Json::parse(slurp(path)); }

std::string recipe_text() { return slurp(fs::path(COPPICE_SOURCE_DIR) / "tests/recipes/micro.toml"); }

void write_micro_run(const fs::path& folder) {
  write_corpus(folder / "corpus");
  write_tasks(folder);
  spill(folder / "micro.toml", recipe_text());
}

/// Stage manifests of all arms and seeds: path below the run -> same_as, empty where the result itself lies.
std::map<std::string, std::string> stage_manifests(const fs::path& run) {
  std::map<std::string, std::string> found;
  for (const auto& entry : fs::recursive_directory_iterator(run)) {
    if (entry.path().filename() != "manifest.json") continue;
    const Json manifest = read(entry.path());
    if (manifest["format"] == "coppice.stage")
      found[fs::relative(entry.path().parent_path(), run).string()] = manifest.value("same_as", "");
  }
  return found;
}

size_t count_results(const fs::path& run) {
  size_t count = 0;
  for (const auto& [path, same_as] : stage_manifests(run)) count += same_as.empty();
  return count;
}

/// Results and tables without what the clock and the machine's load decide.
std::map<std::string, std::string> timeless(const fs::path& run) {
  std::map<std::string, std::string> results = results_of(run);
  std::erase_if(results, [](const auto& entry) {
    const std::string name = fs::path(entry.first).filename().string();
    return name == "run.json" || name == "log.txt" || name.starts_with("report.") ||
           entry.first.find(".old-") != std::string::npos;
  });
  Json tables = read(run / "ablation.json");
  for (Json& comparison : tables["comparisons"])
    for (Json& arm : comparison["arms"])
      for (Json& seed : arm["seeds"])
        for (const char* key : {"seconds", "seconds_with_source", "peak_bytes"}) seed.erase(key);
  tables.erase("machine");
  results["ablation.json"] = tables.dump();
  return results;
}

/// A measure of the compared model by hand: from the evaluate stage's manifest.
double evaluated(const fs::path& run, const std::string& arm, int seed, const std::string& model, const char* measure) {
  const Json manifest = read(run / arm / ("seed-" + std::to_string(seed)) / "scores/manifest.json");
  for (const Json& row : manifest["results"]["models"])
    if (row["name"] == model) return row[measure];
  return NAN;
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

}  // namespace

TEST_SUITE("recipe") {
  TEST_CASE(
      "ablation: shared stages once, tables as by hand, the same after kills, a new arm costs only its own stages") {
    const Scratch scratch("ablate");
    write_micro_run(scratch.path);
    const Outcome first = run(scratch.path, {"ablate", "micro.toml", "--jobs", "2"});
    INFO(first.err);
    REQUIRE(first.code == 0);
    const fs::path root = scratch.path / "runs/micro";

    // 2 arms x 2 seeds: one source for all, one cut a seed; labels in one arm; core and scores everywhere
    CHECK(stage_manifests(root).size() == 18);
    CHECK(count_results(root) == 1 + 2 + 2 + 4 + 4);
    CHECK(stage_manifests(root).at("plain/seed-2/dense") == "labelled/seed-1/dense");
    CHECK(stage_manifests(root).at("plain/seed-2/pruned") == "labelled/seed-2/pruned");
    CHECK(stage_manifests(root).at("plain/seed-2/core").empty());
    CHECK(!fs::exists(root / "plain/seed-2/dense/model"));
    CHECK(!fs::exists(root / "plain/seed-2/data"));

    const Json tables = read(root / "ablation.json");
    CHECK(tables["shared_by_all_seeds"] == "dense (seed 7)");
    REQUIRE(tables["comparisons"].size() == 2);
    CHECK(tables["comparisons"][0]["title"] == "Straight after pruning: pruned");
    const Json core = tables["comparisons"][1]["arms"];
    REQUIRE(core.size() == 2);
    CHECK(core[0]["name"] == "labelled");
    CHECK(core[1]["reference"] == "plain");
    for (const char* measure : {"loss", "bits_per_byte", "accuracy", "teacher_agreement", "task_accuracy"}) {
      const double a = evaluated(root, "labelled", 1, "core", measure),
                   b = evaluated(root, "labelled", 2, "core", measure);
      const double c = evaluated(root, "plain", 1, "core", measure), d = evaluated(root, "plain", 2, "core", measure);
      const Json& row = core[0][measure];
      CHECK(row["n"] == 2);
      CHECK(row["mean"].get<double>() == doctest::Approx((a + b) / 2));
      CHECK(row["sd"].get<double>() == doctest::Approx(std::abs(a - b) / std::sqrt(2.0)));
      CHECK(row["difference"].get<double>() == doctest::Approx((a - c + b - d) / 2));
      if (a - c == b - d) continue;
      const double t = (a - c + b - d) / std::abs((a - c) - (b - d));  // mean / (sd / sqrt 2) of two differences
      CHECK(row["t"].get<double>() == doctest::Approx(t).epsilon(1e-6));
      CHECK(row["p"].get<double>() == doctest::Approx(1 - 2 * std::atan(std::abs(t)) / std::numbers::pi)
                                          .epsilon(1e-6));  // one degree of freedom: Cauchy
    }
    // cost: labels and core, and the source on top; by hand from the manifests
    const auto flops = [&](const char* stage) {
      return read(root / "labelled/seed-2" / stage / "manifest.json")["flops"].get<double>();
    };
    const double own = flops("labels") + flops("core"),
                 source = read(root / "labelled/seed-1/dense/manifest.json")["flops"];
    CHECK(core[0]["seeds"][1]["flops"].get<double>() == own);
    CHECK(core[0]["seeds"][1]["flops_with_source"].get<double>() == own + source);
    CHECK(core[0]["seeds"][1]["peak_bytes"].get<double>() > 1e7);
    const std::string csv = slurp(root / "ablation.csv");
    CHECK(std::ranges::count(csv, '\n') == 1 + 2 * 2 * 2);
    CHECK(csv.substr(0, csv.find('\n')).find(",teacher_agreement,task_accuracy,") != std::string::npos);
    CHECK(slurp(root / "ablation.md").find("| tasks |") != std::string::npos);
    CHECK(slurp(root / "ablation.md").find("![") != std::string::npos);
    CHECK(slurp(root / "ablation.svg").find("labelled") != std::string::npos);
    CHECK(slurp(root / "ablation.html").find("Straight after pruning") != std::string::npos);

    // readers follow same_as
    for (const char* path :
         {"runs/micro/plain/seed-2/dense", "runs/micro/plain/seed-2/pruned", "runs/micro/plain/seed-2"})
      CHECK(run(scratch.path, {"inspect", path}).code == 0);
    CHECK(run(scratch.path, {"generate", "runs/micro/plain/seed-2/dense", "--prompt", "The ", "--max-new-tokens", "2"})
              .code == 0);
    CHECK(read(root / "plain/seed-2/report.json")["models"].size() == 3);
    fs::remove(root / "ablation.md");
    CHECK(run(scratch.path, {"report", "runs/micro"}).code == 0);
    CHECK(fs::exists(root / "ablation.md"));

    const auto before = timeless(root);
    const Outcome again = run(scratch.path, {"ablate", "micro.toml"});
    CHECK(again.code == 0);
    CHECK(again.out.find("already complete") != std::string::npos);
    check_same(timeless(root), before);

    // killed at random instants, one stage at a time instead of two: the same bits
    const unsigned seed = std::random_device()();
    MESSAGE("seed " << seed);
    std::mt19937 random(seed);
    const fs::path elsewhere = scratch.path / "elsewhere";
    for (int kills = 0; kills < 5; ++kills) {
      Process process =
          start(scratch.path, {"ablate", "micro.toml", "--jobs", kills % 2 ? "2" : "1", "--out", elsewhere.string()});
      std::this_thread::sleep_for(std::chrono::duration<double>(std::uniform_real_distribution<>(0.4, 2.0)(random)));
      process.send(SIGKILL);
      process.wait();
    }
    const Outcome resumed = run(scratch.path, {"ablate", "micro.toml", "--jobs", "1", "--out", elsewhere.string()});
    INFO(resumed.err);
    REQUIRE(resumed.code == 0);
    check_same(timeless(elsewhere), before);

    // a third arm: its own core and scores, nothing else
    spill(scratch.path / "micro.toml",
          recipe_text() + "\n[[arm]]\nname = \"half\"\nset = { core.teacher_weight = 0.5 }\n");
    REQUIRE(run(scratch.path, {"ablate", "micro.toml"}).code == 0);
    CHECK(count_results(root) == 13 + 4);
    for (const auto& [path, bytes] : before)
      if (path != "ablation.json") CHECK((timeless(root).at(path) == bytes));
    // changed: refused, then run again beside what was; the unchanged arms stay
    spill(scratch.path / "micro.toml",
          recipe_text() + "\n[[arm]]\nname = \"half\"\nset = { core.teacher_weight = 0.25 }\n");
    const Outcome refused = run(scratch.path, {"ablate", "micro.toml"});
    CHECK(refused.code == 2);
    CHECK(refused.err.find("half/seed-1/core") != std::string::npos);
    CHECK(refused.err.find("plain/") == std::string::npos);
    REQUIRE(run(scratch.path, {"ablate", "micro.toml", "--rerun"}).code == 0);
    CHECK(count_results(root) == 13 + 4 + 4);  // the old ones are kept aside
    // and back again: they are taken from there
    spill(scratch.path / "micro.toml",
          recipe_text() + "\n[[arm]]\nname = \"half\"\nset = { core.teacher_weight = 0.5 }\n");
    const Outcome back = run(scratch.path, {"ablate", "micro.toml", "--rerun"});
    CHECK(back.code == 0);
    CHECK(back.err.find("taken back") != std::string::npos);
    CHECK(back.out.find("already complete") != std::string::npos);
  }

  TEST_CASE("ablation: an arm that shared a result and does so no more gets its own, and no other's is touched") {
    const Scratch scratch("ablate_parted");
    write_micro_run(scratch.path);
    const std::string twins = replaced(recipe_text(), "seeds = [1, 2]", "seeds = [1]") + "\n[[arm]]\nname = \"twin\"\n";
    const fs::path root = scratch.path / "runs/micro";
    const auto same_as = [&](const char* stage) { return stage_manifests(root).at(stage); };
    const auto fingerprint = [&](const char* stage) {
      return read(root / stage / "manifest.json")["fingerprint"].get<std::string>();
    };
    const auto ablate = [&](const std::string& text, const char* weight) {
      spill(scratch.path / "micro.toml",
            replaced(text, "labels = \"labels\"\n",
                     "labels = \"labels\"\nteacher_weight = " + std::string(weight) + "\n"));
      const Outcome outcome = run(scratch.path, {"ablate", "micro.toml", "--rerun"});
      INFO(outcome.err);
      REQUIRE(outcome.code == 0);
    };
    ablate(twins, "0.9");
    CHECK(same_as("twin/seed-1/core") == "labelled/seed-1/core");
    const std::string first = slurp(root / "labelled/seed-1/core/manifest.json");
    const std::string of_both = fingerprint("labelled/seed-1/core");

    // the one that only named the result leaves: the holder keeps it
    ablate(twins + "set = { core.teacher_weight = 0.5 }\n", "0.9");
    CHECK(slurp(root / "labelled/seed-1/core/manifest.json") == first);
    CHECK(same_as("twin/seed-1/core").empty());
    CHECK(fingerprint("twin/seed-1/core") != of_both);

    // they meet at what the other holds, and go back to the first result, which lies aside
    ablate(twins, "0.5");
    CHECK(same_as("labelled/seed-1/core") == "twin/seed-1/core");
    ablate(twins, "0.9");
    CHECK(slurp(root / "labelled/seed-1/core/manifest.json") == first);
    CHECK(same_as("twin/seed-1/core") == "labelled/seed-1/core");

    // where the holder's folder takes another result back, a link to that folder says so
    ablate(twins, "0.5");
    CHECK(fingerprint("labelled/seed-1/core") != of_both);
    CHECK(same_as("twin/seed-1/core") == "labelled/seed-1/core");
    CHECK(fingerprint("twin/seed-1/core") == fingerprint("labelled/seed-1/core"));
  }

  TEST_CASE("ablation: SIGTERM stops all stages under way with their checkpoints") {
    const Scratch scratch("ablate_term");
    write_micro_run(scratch.path);
    Process process = start(scratch.path, {"ablate", "micro.toml", "--set", "dense.tokens=5e6"});
    while (!process.poll() && slurp(scratch.path / "runs/micro/labelled/seed-1/dense/metrics.jsonl").size() < 500)
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    const Outcome second = run(scratch.path, {"ablate", "micro.toml", "--set", "dense.tokens=5e6"});
    CHECK(second.code == 5);
    process.send(SIGTERM);
    CHECK(process.wait().code == 75);
    CHECK(fs::exists(scratch.path / "runs/micro/labelled/seed-1/dense/ckpt"));
  }

  TEST_CASE(
      "ablation: an arm that diverges ends with 6 and names itself; the others are done and stand in the tables") {
    const Scratch scratch("ablate_diverged");
    write_micro_run(scratch.path);
    spill(
        scratch.path / "wild.toml",
        recipe_text() + "[[arm]]\nname = \"wild\"\nset = { core.drop_grad_norm = 1e-9, core.max_skipped_steps = 1 }\n");
    for (int attempt = 0; attempt < 2; ++attempt) {  // the same command goes on, and fails the same way
      const Outcome outcome = run(scratch.path, {"ablate", "wild.toml", "--out", "runs/wild"});
      INFO(outcome.err);
      CHECK(outcome.code == 6);
      CHECK(outcome.err.find("wild") != std::string::npos);
      for (const char* arm : {"plain", "labelled"})
        for (const char* seed : {"seed-1", "seed-2"})
          CHECK(fs::exists(scratch.path / "runs/wild" / arm / seed / "scores/manifest.json"));
      CHECK(!fs::exists(scratch.path / "runs/wild/wild/seed-1/core/manifest.json"));
    }
  }

  TEST_CASE("ablation: what cannot be is refused before any work, with the arm and its line") {
    const Scratch scratch("ablate_refused");
    write_micro_run(scratch.path);
    const std::string good = recipe_text();
    const auto refused = [&](const std::string& text, const std::vector<std::string>& words,
                             const char* verb = "ablate") {
      spill(scratch.path / "bad.toml", text);
      const Outcome outcome = run(scratch.path, {verb, "bad.toml"});
      INFO(outcome.err);
      CHECK(outcome.code == 2);
      CHECK(outcome.err.find('\n') == outcome.err.size() - 1);  // one line
      for (const std::string& word : words) CHECK(outcome.err.find(word) != std::string::npos);
      CHECK(!fs::exists(scratch.path / "runs"));
    };
    const auto lines = std::ranges::count(good, '\n');
    const auto arm_with = [&](const std::string& rest) { return good + "[[arm]]\nname = \"odd\"\n" + rest + "\n"; };
    const std::string at = "bad.toml:" + std::to_string(lines + 3);  // the line below the arm's name
    refused(good, {"coppice ablate bad.toml", "2 arms"}, "run");
    refused(good.substr(0, good.find("[[arm]]")), {"no [[arm]]", "coppice run"});
    refused(arm_with("set = { \"core.teacher_wieght\" = 0 }"), {"odd", at, "teacher_wieght", "teacher_weight"});
    refused(arm_with("set = { \"cor.tokens\" = 5 }"), {"odd", at, "cor", "core"});
    refused(arm_with("set = { core.tokens = \"many\" }"), {"odd", at, "tokens"});
    refused(arm_with("set = { \"data.heldout_share\" = 0.1 }"), {"odd", at, "shared by all arms"});
    refused(arm_with("drop = [\"dens\"]"), {"odd", "dens", "dense"});
    refused(arm_with("drop = [\"pruned\"]"), {"odd", "core", "from = \"pruned\""});
    refused(arm_with("droop = [\"labels\"]"), {at, "droop", "drop"});
    refused(arm_with("reference = \"plane\""), {"plane", "plain"});
    refused(good + "[[arm]]\nname = \"plain\"\n", {"plain", "twice"});
    refused(good + "[[arm]]\nname = \"data\"\n", {"data"});
    refused(replaced(good, "reference = \"plain\"", "reference = \"plian\""), {"plian", "plain"});
    refused(replaced(good, "compare = [\"pruned\", \"core\"]", "compare = \"cor\""), {"compare", "cor", "core"});
    refused(replaced(good, "seeds = [1, 2]", "seeds = [1, 1]"), {"seeds", "twice"});
    refused(replaced(good, "seeds = [1, 2]", "seeds = [0]"), {"seeds", "0"});
    refused(replaced(good, "seeds = [1, 2]", "sedes = [1, 2]"), {"sedes", "seeds"});
  }

  TEST_CASE("ablation: plan counts distinct stages and starts nothing") {
    const Scratch scratch("ablate_plan");
    write_micro_run(scratch.path);
    const Outcome plan = run(scratch.path, {"plan", "micro.toml"});
    INFO(plan.err);
    CHECK(plan.code == 0);
    for (const char* words :
         {"2 arms x 2 seeds", "18 stages of which 13 are distinct", "tokens a parameter", "of disk"})
      CHECK(plan.out.find(words) != std::string::npos);
    CHECK(!fs::exists(scratch.path / "runs"));
    // the resolved recipe reads back as itself, arms included
    const std::string resolved = run(scratch.path, {"config", "micro.toml"}).out;
    spill(scratch.path / "again.toml", resolved);
    const auto untimed = [](const std::string& table) {
      return std::regex_replace(table, std::regex("[0-9]+:[0-9]{2}"), "-");
    };  // the machine is measured anew
    CHECK(untimed(run(scratch.path, {"plan", "again.toml"}).out) == untimed(plan.out));
  }
}

TEST_SUITE("unit") {
  TEST_CASE("ablation: what a run records of its recipe gives every arm what the file gave it") {
    using namespace coppice;
    const Scratch scratch("ablate_record");
    const std::string masks =
        "[[stage]]\nname = \"masks\"\nkind = \"learn_masks\"\nfrom = \"dense\"\ntokens = 4096\n\n";
    const std::string models =
        "[model.free]\n[model.fitted]\nparameters = \"0.8x\"\n[model.short]\nnum_hidden_layers = 1\n\n";
    const std::string base =
        replaced(replaced(replaced(recipe_text(), "num_hidden_layers = 2", "num_hidden_layers = 3"), "[model.student]",
                          models + "[model.student]"),
                 "[[stage]]\nname = \"pruned\"", masks + "[[stage]]\nname = \"pruned\"");
    for (const char* set : {
             // of one key, which defaults of others follow
             "masks.mask_method = 'hard_concrete'",   // score_init
             "core.optimizer = 'adamw'",              // beta_1, weight_decay, final_lr_ratio
             "masks.kind = 'train'",                  // whatever its old kind has of its own
             "model.source.hidden_size = 64",         // head_dim, and the same of all other models
             "model.source.num_attention_heads = 4",  // head_dim
             "model.source.preset = 'demo-source'",   // whatever the file does not give
             "model.source.rope_theta = 5e5",         // the other models'
             "model.free.parameters = '0.8x'",        // sizes
             "model.fitted.parameters = '0.9x'",      // sizes
             "model.fitted.shares.layers = 1.0",      // the share of ffn
             // of keys that belong together
             "masks.axis = 'layers', masks.target = 'short', pruned.from = 'masks', pruned.target = 'short', "
             "pruned.scores = 'masks'",  // axis of the cut
             "labels.tier = 'topk', core.loss = 'top_k'",
             "core.from = '', core.model = 'student', core.labels = [], core.teacher = 'dense', core.loss = 'kl'",
         }) {
      CAPTURE(set);
      spill(scratch.path / "micro.toml", base + "\n[[arm]]\nname = \"odd\"\nset = { " + set + " }\n");
      const Ablation ablation = load_ablation((scratch.path / "micro.toml").string(), {}, {});
      for (const std::string& recorded : {ablation.base.resolved, ablation.base.with_origins}) {
        CHECK(recorded.find("\n# kd_temperature = 1.0") != std::string::npos);  // said, and yet no setting
        spill(scratch.path / "recipe.toml", recorded);
        const Ablation again = load_ablation((scratch.path / "recipe.toml").string(), {}, {});
        CHECK(again.base.resolved == ablation.base.resolved);
        REQUIRE(again.runs.size() == 3 * 2);
        for (size_t i = 0; i < again.runs.size(); ++i)
          CHECK(again.runs[i].recipe.resolved == ablation.runs[i].recipe.resolved);
      }
    }
  }

  TEST_CASE("ablation tables: mean, spread, paired differences; names stay text in every format") {
    using namespace coppice;
    const auto model = [](double loss, double accuracy) {
      return ReportModel{.name = "core",
                         .role = "",
                         .parameters = 1000,
                         .training_tokens = 500,
                         .score = {.loss = loss, .accuracy = accuracy}};
    };
    AblationReport report{.recipe = "<b>odd</b>", .seeds = {1, 2}, .shared = ""};
    report.comparisons.push_back({.stage = "core", .title = "After | recovery", .arms = {}});
    std::vector<ReportArm>& arms = report.comparisons[0].arms;
    arms.push_back({.name = "both",
                    .reference = "both",
                    .models = {model(3.0, 0.3), model(3.2, 0.34)},
                    .costs = {ArmCost{}, ArmCost{}}});
    arms.push_back({.name = "=cmd,1",
                    .reference = "both",
                    .models = {model(3.5, 0.2), model(3.8, 0.22)},
                    .costs = {ArmCost{.tokens = 5}, ArmCost{}}});
    arms.push_back({.name = "half",
                    .reference = "both",
                    .models = {model(3.5, 0.2), ReportModel{}},
                    .costs = {ArmCost{}, ArmCost{}}});
    const std::vector<ReportTable> tables = ablation_tables(report, report.comparisons[0]);
    REQUIRE(tables.size() >= 2);
    CHECK(tables[0].header[5] == "loss");
    CHECK(tables[0].rows[0][0] == "both (reference)");
    CHECK(tables[0].rows[0][5] == "3.100 \u00b1 0.141");
    CHECK(tables[0].rows[0][6] == "32.0% \u00b1 2.8");
    CHECK(tables[0].rows[2][1] == "1");
    CHECK(tables[0].rows[2][5] == "3.500");
    CHECK(tables[1].rows[0][2] == "+0.550 (p 0.058)");  // differences 0.5 and 0.6: t = 11, Cauchy
    CHECK(tables[1].rows[1][2] == "+0.500 (p -)");
    CHECK(ablation_html(report).find("<b>") == std::string::npos);
    CHECK(ablation_html(report).find("<script") == std::string::npos);
    CHECK(ablation_markdown(report).find("After \\| recovery") != std::string::npos);
    CHECK(ablation_csv(report).find("\"=cmd,1\"") != std::string::npos);
    CHECK(nlohmann::json::parse(ablation_json(report))["comparisons"][0]["arms"][1]["loss"]["p"].get<double>() ==
          doctest::Approx(1 - 2 * std::atan(11.0) / std::numbers::pi));
    CHECK(ablation_svg(report).find("both") != std::string::npos);
  }

  TEST_CASE("ablation tables: an arm is held against its reference and that one's; p counts all of these tests") {
    using namespace coppice;
    AblationReport report{.recipe = "chain", .seeds = {1, 2}, .shared = ""};
    report.comparisons.push_back({.stage = "core", .title = "After recovery: core", .arms = {}});
    const auto add = [&](const char* name, const char* reference, double first, double second) {
      ReportArm arm{.name = name, .reference = reference, .models = {}, .costs = {ArmCost{}, ArmCost{}}};
      for (const double loss : {first, second}) arm.models.push_back({.name = "core", .score = {.loss = loss}});
      report.comparisons[0].arms.push_back(arm);
    };
    add("base", "base", 3.0, 3.2);
    add("cut", "base", 3.5, 3.8);      // +0.5 and +0.6: t = 11
    add("refitted", "cut", 3.4, 3.5);  // -0.1 and -0.3: t = -2; against base +0.4 and +0.3: t = 7
    const auto cauchy = [](double t) { return 1 - 2 * std::atan(t) / std::numbers::pi; };
    const std::vector<ReportTable> tables = ablation_tables(report, report.comparisons[0]);
    REQUIRE(tables.size() >= 2);
    using Row = std::vector<std::string>;
    REQUIRE(tables[1].rows.size() == 3);
    CHECK(tables[1].rows[0] == Row{"cut", "base", "+0.550 (p 0.173)"});       // 3 x 0.058
    CHECK(tables[1].rows[1] == Row{"refitted", "cut", "-0.200 (p 0.295)"});   // the largest, once
    CHECK(tables[1].rows[2] == Row{"refitted", "base", "+0.350 (p 0.181)"});  // 2 x 0.090
    const Json arm = Json::parse(ablation_json(report))["comparisons"][0]["arms"][2];
    CHECK(arm["loss"]["p"].get<double>() == doctest::Approx(cauchy(2)));
    CHECK(arm["loss"]["p_holm"].get<double>() == doctest::Approx(cauchy(2)));
    CHECK(arm["also_against"]["base"]["loss"]["difference"].get<double>() == doctest::Approx(0.35));
    CHECK(arm["also_against"]["base"]["loss"]["p_holm"].get<double>() == doctest::Approx(2 * cauchy(7)));
    for (ReportArm& one : report.comparisons[0].arms)  // a verdict speaks of accuracy too
      for (ReportModel& model : one.models) model.score.accuracy = 0.3;
    const std::string verdict = ablation_verdict(report);
    CHECK(verdict.find("by loss better: none, worse: none") != std::string::npos);
    // a later stage that no arm evaluates says nothing and takes nothing away
    report.comparisons.push_back({.stage = "scratch", .title = "From scratch: scratch", .arms = {}});
    CHECK(ablation_verdict(report) == verdict);
    report.comparisons.pop_back();

    report.comparisons[0].arms[0].reference = "refitted";  // in a circle each is held against the two others, once
    CHECK(differences_of(report.comparisons[0]).size() == 6);
  }
}
