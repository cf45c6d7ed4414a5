// Every stage kind after every other: accepted by config and plan, or refused in one line with exit code 2; and one run
// that has each accepted pair.
#include "tests/recipes/given_model.h"  // before any CHECK

#include <doctest/doctest.h>

#include <set>

#include "pruning/scores.h"
#include "recipes/run/before_work.h"
#include "recipes/run/cost.h"
#include "src/base/errors.h"

using namespace coppice;
using namespace coppice::test;

namespace {

/// What `config` and `plan` do with a recipe of these stages: empty, or what they refuse. Any other exception is the
/// test's failure.
std::string refusal_of(const GivenModel& given, const std::string& stages) {
  const fs::path file = given.scratch.path / "chain.toml";
  spill(file, given.recipe(stages));
  try {
    const Recipe recipe = load_recipe(file.string(), {}, {});
    check_before_work(recipe, Missing::allowed);
    CHECK_FALSE(cost_table(recipe, estimate_cost(recipe, 1e5, 0)).empty());
    return "";
  } catch (const UserError& error) {
    const std::string text = error.what();
    CHECK(error.code() == ExitCode::recipe);
    CHECK(text.find('\n') == std::string::npos);
    CHECK_FALSE(text.empty());
    return text;
  }
}

constexpr const char* kTraining = "tokens = 256\nseq_len = 64\nbatch_tokens = 128\n";

std::string stage(const std::string& name, const std::string& kind, const std::string& keys) {
  const bool trains = kind == "train" || kind == "learn_masks";
  return "[[stage]]\nname = \"" + name + "\"\nkind = \"" + kind + "\"\n" + (trains ? kTraining : "") +
         (kind == "label" ? "context = 64\n" : "") +
         (kind == "learn_masks" ? "on_collapse = \"warn\"\ncalibration_tokens = 512\n" : "") + keys;
}

/// The stages that a stage may come after, by kind, one of each; all of 96 channels but the pruned one.
std::string one_of_each(const GivenModel& given) {
  return stage("import", "import", "path = \"" + (given.scratch.path / "hf").string() + "\"\n") +
         stage("train", "train", "model = \"source\"\n") +
         stage("learn_masks", "learn_masks", "from = \"train\"\ntarget = \"cut_1\"\n") +
         stage("prune", "prune", "from = \"train\"\ntarget = \"cut_1\"\nscores = \"magnitude\"\n") +
         stage("label", "label", "teacher = \"train\"\n") +
         stage("evaluate", "evaluate", "of = [\"train\"]\nseq_len = 64\n") +
         stage("export", "export", "from = \"train\"\n");
}

const std::set<std::string> kModels = {"import", "train", "learn_masks", "prune"};  // kinds that leave a model

/// One more stage of a chain that narrows by one target with each cut.
struct Chain {
  std::string text, last;
  std::string path;  // kinds so far, for messages
  int length = 0, cuts = 0;

  Chain then(const std::string& kind) const {
    Chain next = *this;
    next.last = "s" + std::to_string(++next.length);
    next.path += " " + kind;
    std::string keys = "from = \"" + last + "\"\n";
    if (kind == "prune") ++next.cuts;
    if (kind == "learn_masks" || kind == "prune") keys += "target = \"cut_" + std::to_string(cuts + 1) + "\"\n";
    if (kind == "prune" && !path.ends_with("learn_masks")) keys += "scores = \"magnitude\"\n";
    next.text += stage(next.last, kind, keys);
    return next;
  }
};

}  // namespace

TEST_SUITE("recipe") {
  TEST_CASE("stages: each kind after each kind, by every key that names an earlier stage") {
    const GivenModel given("stage_pairs");
    const std::string before = one_of_each(given);
    REQUIRE(refusal_of(given, before).empty());
    struct Key {
      const char *kind, *keys;  // %s is the earlier stage
      std::set<std::string> accepted;
    };
    const Key keys[] = {
        {"train", "from = \"%s\"\n", kModels},
        {"train", "model = \"source\"\nteacher = \"%s\"\n", kModels},
        {"train", "model = \"source\"\nlabels = \"%s\"\n", {"label"}},
        {"train",
         "model = \"source\"\nteacher = [\"import\", \"%s\"]\n",
         {"train", "learn_masks", "prune"}},  // twice the same is none
        {"learn_masks", "from = \"%s\"\ntarget = \"cut_2\"\n", kModels},
        {"prune", "from = \"%s\"\ntarget = \"cut_2\"\nscores = \"magnitude\"\n", kModels},
        {"prune", "from = \"%s\"\ntarget = \"cut_2\"\n", {"learn_masks"}},
        {"prune", "from = \"%s\"\ntarget = \"uneven\"\nscores = \"flap\"\n", kModels},
        {"prune", "from = \"%s\"\ntarget = \"uneven\"\nscores = \"flap\"\nrefit = true\n", kModels},
        {"label", "teacher = \"%s\"\n", kModels},
        {"label", "teacher = \"%s\"\ncoverage = \"used\"\n", kModels},
        {"evaluate", "of = [\"%s\"]\nseq_len = 64\n", kModels},
        {"evaluate", "of = [\"train\"]\nteacher = \"%s\"\nseq_len = 64\n", kModels},
        {"export", "from = \"%s\"\n", kModels},
    };
    for (const Key& key : keys)
      for (const char* earlier :
           {"import", "train", "learn_masks", "prune", "label", "evaluate", "export", "next", "nothing"}) {
        std::string text = key.keys;
        text.replace(text.find("%s"), 2, earlier);
        const std::string refused = refusal_of(given, before + stage("next", key.kind, text));
        INFO(key.kind << " with " << text << refused);
        CHECK(refused.empty() == key.accepted.contains(earlier));
        if (!refused.empty()) CHECK(refused.find(earlier) != std::string::npos);
      }
  }

  TEST_CASE(
      "stages: chains of train, learn_masks and prune behind an import or fresh weights, with a label, an evaluation "
      "and an export of each") {
    const GivenModel given("stage_chains");
    const Chain starts[] = {{.text = stage("s0", "import", "path = \"" + (given.scratch.path / "hf").string() + "\"\n"),
                             .last = "s0",
                             .path = "import"},
                            {.text = stage("s0", "train", "model = \"source\"\n"), .last = "s0", .path = "train"}};
    std::vector<Chain> chains(std::begin(starts), std::end(starts));
    size_t tried = 0;
    for (size_t i = 0; i < chains.size(); ++i) {
      const Chain chain = chains[i];
      INFO(chain.path);
      CHECK(refusal_of(given, chain.text).empty());
      CHECK(refusal_of(given,
                       chain.text + stage("labels", "label", "teacher = \"" + chain.last + "\"\n") +
                           stage("taught", "train", "model = \"cut_3\"\nlabels = \"labels\"\n") +
                           stage("scores", "evaluate", "of = [\"" + chain.last + "\", \"taught\"]\nseq_len = 64\n") +
                           stage("release", "export", "from = \"" + chain.last + "\"\n"))
                .empty());
      ++tried;
      if (chain.length < 3)
        for (const char* kind : {"train", "learn_masks", "prune"}) chains.push_back(chain.then(kind));
    }
    CHECK(tried == 2 * (1 + 3 + 9 + 27));
  }

  TEST_CASE(
      "stages: layers of different widths may be cut again by a score, and cannot learn masks; what to do is said") {
    const GivenModel given("stage_uneven");
    const std::string source = stage("dense", "import", "path = \"" + (given.scratch.path / "hf").string() + "\"\n");
    const std::string uneven =
        source + stage("uneven", "prune", "from = \"dense\"\ntarget = \"uneven\"\nscores = \"magnitude\"\n");
    const std::string global =
        source +
        stage("masks", "learn_masks", "from = \"dense\"\ntarget = \"cut_1\"\nbudget = \"global\"\nround_to = 1\n") +
        stage("uneven", "prune", "from = \"masks\"\ntarget = \"cut_1\"\n");
    for (const std::string& before : {uneven, global, uneven + stage("later", "train", "from = \"uneven\"\n"),
                                      global + stage("later", "train", "from = \"uneven\"\n")}) {
      const std::string from = before.find("later") == std::string::npos ? "uneven" : "later";
      CHECK(refusal_of(given, before + stage("again", "prune",
                                             "from = \"" + from + "\"\ntarget = \"cut_3\"\nscores = \"taylor\"\n"))
                .empty());
      const std::string refused =
          refusal_of(given, before + stage("again", "learn_masks", "from = \"" + from + "\"\ntarget = \"cut_3\"\n"));
      INFO(refused);
      CHECK(refused.find("learned masks need one width for all layers") != std::string::npos);
      CHECK(refused.find("scores") != std::string::npos);
    }
    const std::string wider = refusal_of(
        given, uneven + stage("again", "prune", "from = \"uneven\"\ntarget = \"cut_2\"\nscores = \"magnitude\"\n"));
    CHECK(wider.find("got 32, expected at most 24") != std::string::npos);
  }

  TEST_CASE("stages: one run with each accepted pair") {
    const GivenModel given("stage_run");
    const std::string hf = (given.scratch.path / "hf").string();
    std::string text =
        stage("given", "import", "path = \"" + hf + "\"\n") + stage("fresh", "train", "model = \"source\"\n") +
        stage("tuned", "train", "from = \"given\"\n") +
        stage("masks", "learn_masks", "from = \"given\"\ntarget = \"cut_1\"\n") +
        stage("masks_fresh", "learn_masks",
              "from = \"fresh\"\ntarget = \"cut_1\"\nbudget = \"global\"\nround_to = 1\n") +
        stage("masks_again", "learn_masks", "from = \"masks\"\ntarget = \"cut_1\"\n") +
        stage("unmasked", "train", "from = \"masks\"\n") +
        stage("pruned", "prune", "from = \"masks\"\ntarget = \"cut_1\"\n") +
        stage("wide", "prune", "from = \"masks_fresh\"\ntarget = \"cut_1\"\n") +
        stage("healed", "train", "from = \"pruned\"\nteacher = [\"given\", \"masks\"]\n") +
        stage("masks_cut", "learn_masks", "from = \"pruned\"\ntarget = \"cut_2\"\n") +
        stage("masks_healed", "learn_masks", "from = \"healed\"\ntarget = \"cut_2\"\n") +
        stage("second", "prune", "from = \"masks_healed\"\ntarget = \"cut_2\"\n") +
        stage("third", "prune",
              "from = \"second\"\ntarget = \"cut_3\"\nscores = \"activation\"\ncalibration_tokens = 512\n") +
        stage("uneven", "prune", "from = \"given\"\ntarget = \"uneven\"\nscores = \"random\"\n") +
        stage("uneven_tuned", "train", "from = \"uneven\"\n") +
        stage("under_masks", "prune", "from = \"masks\"\ntarget = \"cut_2\"\nscores = \"magnitude\"\n");
    std::vector<std::string> models = {"given",    "fresh",  "tuned",  "masks",        "masks_fresh", "masks_again",
                                       "unmasked", "pruned", "wide",   "healed",       "masks_cut",   "masks_healed",
                                       "second",   "third",  "uneven", "uneven_tuned", "under_masks"};
    const auto cut_again = [&](const std::string& from, const std::string& target, const std::string& score) {
      models.push_back(from + "_" + score);
      text += stage(models.back(), "prune",
                    "from = \"" + from + "\"\ntarget = \"" + target + "\"\nscores = \"" + score +
                        "\"\ncalibration_tokens = 512\nrefit = true\n");
    };
    for (const ScoreRow& row : score_table()) cut_again("uneven", "cut_3", row.name);
    for (const char* score : {"magnitude", "taylor"}) cut_again("wide", "cut_2", score);
    for (const char* teacher : {"given", "masks", "pruned", "uneven_tuned"})
      text += stage("by_" + std::string(teacher), "label",
                    "teacher = \"" + std::string(teacher) + "\"\ncoverage = \"used\"\n") +
              stage("of_" + std::string(teacher), "train",
                    "from = \"third\"\nlabels = \"by_" + std::string(teacher) + "\"\n") +
              stage("hf_" + std::string(teacher), "export", "from = \"" + std::string(teacher) + "\"\n");
    std::string of;
    for (const std::string& model : models) of += (of.empty() ? "\"" : ", \"") + model + "\"";
    text += stage("scores", "evaluate",
                  "of = [" + of + "]\nteacher = \"masks\"\nseq_len = 64\ntokens = 512\ntasks = [\"" +
                      (given.scratch.path / "tasks/words.jsonl").string() + "\"]\n");
    REQUIRE(refusal_of(given, text).empty());
    const Outcome outcome = run(given.scratch.path, {"run", "chain.toml", "--out", "r"});
    INFO(outcome.err.substr(0, 4000) << outcome.err.substr(outcome.err.size() -
                                                           std::min<size_t>(outcome.err.size(), 2000)));
    REQUIRE(outcome.code == 0);
    const auto results =
        nlohmann::json::parse(slurp(given.scratch.path / "r/scores/manifest.json"))["results"]["models"];
    REQUIRE(results.size() == models.size());
    const Recipe recipe = load_recipe((given.scratch.path / "chain.toml").string(), {}, {});
    const auto widths = [&](const std::string& model) -> std::vector<int64_t> {
      for (const auto& row : results)
        if (row["name"] == model) return row["intermediate_size"];
      return {};
    };
    for (const std::string& model : models) {
      CAPTURE(model);
      if (!model.starts_with("wide")) CHECK(widths(model) == recipe.model_after(model).intermediate_size);
    }
    const std::vector<int64_t> wide = widths("wide");
    REQUIRE(wide.size() == 2);
    CHECK(wide[0] + wide[1] == 128);
    for (size_t layer = 0; layer < 2; ++layer)
      CHECK(widths("wide_taylor")[layer] == std::min<int64_t>(wide[layer], 32));
    CHECK(run(given.scratch.path, {"report", "r"}).code == 0);
    for (const char* model : {"given", "masks_healed", "uneven_flap", "wide_taylor"})
      CHECK(run(given.scratch.path, {"inspect", std::string("r/") + model}).code == 0);
    const Outcome again = run(given.scratch.path, {"run", "chain.toml", "--out", "r"});
    CHECK(again.code == 0);
    CHECK(again.out.find("already complete") != std::string::npos);
  }
}
