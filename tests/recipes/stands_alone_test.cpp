// A finished run stands alone: what it read from outside may go, and running it again, reporting it, going on with it
// and adding to it still work.
#include <doctest/doctest.h>

#include "tests/recipes/given_model.h"

using namespace coppice::test;

namespace {

const std::string kRecipe = std::string("name = \"alone\"\n") + kImportAndCut + R"([[stage]]
name = "labels"
kind = "label"
cache = "given/labels"
[[stage]]
name = "core"
kind = "train"
from = "pruned"
labels = "labels"
tokens = 2048
seq_len = 64
batch_tokens = 512
checkpoint_steps = 1
keep_finished = true
[[stage]]
name = "scores"
kind = "evaluate"
of = ["dense", "pruned", "core"]
seq_len = 64
tokens = 4096
tasks = ["tasks/words.jsonl"]
)";

const char* const kLater = R"(
[[stage]]
name = "longer"
kind = "train"
from = "core"
tokens = 1024
seq_len = 64
batch_tokens = 512
[[stage]]
name = "release"
kind = "export"
from = "longer"
)";

const char* const kLabels = R"(
[[stage]]
name = "labels"
kind = "label"
teacher = "dense"
context = 64
)";

std::string without_stage(std::string recipe, const std::string& name) {
  const size_t at = recipe.find("[[stage]]\nname = \"" + name + "\""), end = recipe.find("[[stage]]", at + 1);
  return recipe.erase(at, end == std::string::npos ? std::string::npos : end - at);
}

/// A corpus, tasks, a Hugging Face folder with a tokenizer of its own and a chat template, and labels of another run.
void write_world(const fs::path& folder) {
  write_corpus(folder / "corpus");
  write_tasks(folder);
  write_hf_folder(folder / "elsewhere", train_tokenizer_on_prose(folder / "own.model", folder / "corpus"), 384);
  const fs::path file = folder / "elsewhere/tokenizer_config.json";
  auto tokenizer_config = nlohmann::json::parse(slurp(file));
  tokenizer_config["chat_template"] = "{{ messages }}</s>";
  spill(file, tokenizer_config.dump());
  std::string labelling = kRecipe;
  labelling.resize(labelling.find("[[stage]]\nname = \"pruned\""));
  spill(folder / "labelling.toml", labelling + kLabels);
  const Outcome labelled = run(folder, {"run", "labelling.toml", "--out", "labelling"});
  INFO(labelled.err);
  REQUIRE(labelled.code == 0);
  fs::create_directories(folder / "given");
  fs::rename(folder / "labelling/labels/labels", folder / "given/labels");
  fs::remove_all(folder / "labelling");
  spill(folder / "alone.toml", kRecipe);
}

const std::vector<std::string> kOutside = {"elsewhere", "corpus", "given", "tasks"};

void remove(const fs::path& folder, const std::vector<std::string>& what) {
  for (const std::string& one : what) fs::rename(folder / one, folder / (one + ".gone"));
}
void bring_back(const fs::path& folder, const std::vector<std::string>& what) {
  for (const std::string& one : what) {
    fs::remove_all(folder / one);
    fs::rename(folder / (one + ".gone"), folder / one);
  }
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_SUITE("recipe") {
  TEST_CASE("stands alone: whatever is gone, a finished run is complete, reports, and takes another stage") {
    const Scratch scratch("alone");
    const fs::path& folder = scratch.path;
    write_world(folder);
    const Outcome first = run(folder, {"run", "alone.toml"});
    INFO(first.err);
    REQUIRE(first.code == 0);
    CHECK_FALSE(has(first.err, "no longer there"));
    const fs::path root = folder / "runs/alone";
    const std::string report = slurp(root / "report.md");
    const auto results = results_of(root);

    std::vector<std::vector<std::string>> rows = {{}, kOutside};
    for (const std::string& one : kOutside) rows.push_back({one});
    for (const std::vector<std::string>& gone : rows) {
      CAPTURE(gone.empty() ? "nothing" : gone[0]);
      remove(folder, gone);
      if (gone.size() == 1) fs::create_directories(folder / gone[0]);  // an unmounted disk leaves an empty folder
      const Outcome again = run(folder, {"run", "alone.toml"});
      CHECK(again.code == 0);
      CHECK(has(again.out, "already complete"));
      CHECK(has(again.err, "no longer there") == !gone.empty());
      for (const std::string& one : gone) CHECK(has(again.err, one));
      CHECK(run(folder, {"report", "runs/alone"}).code == 0);
      CHECK(slurp(root / "report.md") == report);
      CHECK(run(folder, {"config", "alone.toml"}).code == 0);
      CHECK(run(folder, {"plan", "alone.toml"}).code == 0);
      for (const char* path :
           {"runs/alone", "runs/alone/dense", "runs/alone/labels", "runs/alone/core", "runs/alone/data/tokens/prose"})
        CHECK(run(folder, {"inspect", path}).code == 0);
      fs::remove_all(folder / "out");
      CHECK(run(folder, {"export", "runs/alone/core", "-o", "out"}).code == 0);
      CHECK(has(slurp(folder / "out/tokenizer_config.json"), "{{ messages }}</s>"));
      bring_back(folder, gone);
      CHECK(results_of(root) == results);
    }

    remove(folder, kOutside);
    spill(folder / "later.toml", kRecipe + kLater);
    const Outcome later = run(folder, {"run", "later.toml", "--out", "runs/alone"});
    INFO(later.err);
    CHECK(later.code == 0);
    CHECK(has(slurp(root / "release/hf/tokenizer_config.json"), "{{ messages }}</s>"));

    // Elsewhere, under another name, with relative paths that lead nowhere.
    fs::create_directories(folder / "far/away");
    fs::rename(root, folder / "far/away/moved");
    CHECK(run(folder / "far", {"report", "away/moved"}).code == 0);
    const Outcome moved = run(folder / "far", {"run", "away/moved/recipe.toml", "--out", "away/moved"});
    INFO(moved.err);
    CHECK(moved.code == 0);
    CHECK(has(moved.out, "already complete"));
  }

  TEST_CASE("stands alone: what is really needed is named, with who needs it, before any work") {
    const Scratch scratch("needed");
    const fs::path& folder = scratch.path;
    write_world(folder);
    REQUIRE(run(folder, {"run", "alone.toml"}).code == 0);
    const fs::path root = folder / "runs/alone";
    struct Row {
      const char* gone;
      std::vector<const char*> undone;  // moved away: not done
      std::string named, by;
    };
    const std::vector<Row> rows = {{"elsewhere", {"dense"}, "elsewhere", "stage 'dense'"},
                                   {"given", {"labels"}, "given/labels/prose", "stage 'labels'"},
                                   {"given", {"core", "scores"}, "given/labels/prose", "stage 'core'"},
                                   {"tasks", {"scores"}, "tasks/words.jsonl", "stage 'scores'"},
                                   {"corpus", {"data", "scores"}, "corpus/prose.jsonl", "domain 'prose'"},
                                   {"elsewhere", {"data", "scores"}, "elsewhere/tokenizer.model", "the data"}};
    for (const Row& row : rows) {
      CAPTURE(row.gone);
      CAPTURE(row.undone[0]);
      remove(folder, {row.gone});
      for (const char* stage : row.undone) fs::rename(root / stage, folder / stage);
      const Outcome refused = run(folder, {"run", "alone.toml"});
      INFO(refused.err);
      CHECK(refused.code == 3);
      CHECK(has(refused.err, row.named + ": is gone, and " + row.by + " needs it"));
      for (const char* stage : row.undone) {
        CHECK_FALSE(fs::exists(root / stage));  // before any work
        fs::rename(folder / stage, root / stage);
      }
      bring_back(folder, {row.gone});
    }
    // What is there and changed is as it always was; a folder without a record is as well.
    spill(folder / "tasks/words.jsonl", slurp(folder / "tasks/words.jsonl") + slurp(folder / "tasks/words.jsonl"));
    const Outcome changed = run(folder, {"run", "alone.toml"});
    CHECK(changed.code == 2);
    CHECK(has(changed.err, "scores (tasks"));
    remove(folder, {"corpus"});
    const Outcome fresh = run(folder, {"run", "alone.toml", "--out", "runs/fresh"});
    CHECK(fresh.code == 3);
    CHECK(has(fresh.err, "corpus/prose.jsonl: no such corpus file"));
    // Data of other options would be set aside before it is found that it cannot be made again.
    const Outcome rerun = run(folder, {"run", "alone.toml", "--rerun", "--set", "data.heldout_share=0.1"});
    CHECK(rerun.code == 3);
    CHECK(has(rerun.err, "corpus/prose.jsonl: is gone, and domain 'prose' needs it"));
    CHECK(fs::exists(root / "data/tokens/prose/manifest.json"));
  }
}

TEST_SUITE("faults") {
  TEST_CASE("stands alone: a killed training stage goes on without what its run was made of, to the same bits") {
    const Scratch scratch("alone_killed");
    const fs::path& folder = scratch.path;
    write_world(folder);
    spill(folder / "alone.toml", without_stage(kRecipe, "labels")
                                     .replace(without_stage(kRecipe, "labels").find("labels = \"labels\"\n"), 18, ""));
    REQUIRE(run(folder, {"run", "alone.toml", "--out", "runs/whole"}).code == 0);
    const auto expected = results_of(folder / "runs/whole");
    Process process = start(folder, {"run", "alone.toml"});
    while (!process.poll() && !fs::exists(folder / "runs/alone/core/ckpt/step-00000002"))
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    process.send(SIGKILL);
    process.wait();
    remove(folder, {"elsewhere", "corpus"});
    if (!fs::exists(folder / "runs/alone/scores")) {  // tasks are needed still
      const Outcome outcome = run(folder, {"run", "alone.toml"});
      INFO(outcome.err);
      CHECK(outcome.code == 0);
    }
    CHECK(run(folder, {"run", "alone.toml"}).code == 0);
    CHECK(results_of(folder / "runs/alone") == expected);
  }

  TEST_CASE("stands alone: a damaged record is named, and an ablation is complete without its sources") {
    const Scratch scratch("alone_ablation");
    const fs::path& folder = scratch.path;
    write_world(folder);
    const std::string arms =
        "seeds = [1, 2]\n" + kRecipe + "[[arm]]\nname = \"labelled\"\n[[arm]]\nname = \"plain\"\ndrop = [\"labels\"]\n";
    spill(folder / "arms.toml", arms);
    const Outcome first = run(folder, {"ablate", "arms.toml", "--out", "runs/arms", "--jobs", "1"});
    INFO(first.err);
    REQUIRE(first.code == 0);
    remove(folder, kOutside);
    const Outcome again = run(folder, {"ablate", "arms.toml", "--out", "runs/arms", "--jobs", "1"});
    INFO(again.err);
    CHECK(again.code == 0);
    CHECK(has(again.out, "already complete"));
    CHECK(run(folder, {"report", "runs/arms"}).code == 0);
    CHECK(run(folder, {"report", "runs/arms/plain/seed-2"}).code == 0);
    CHECK(run(folder, {"export", "runs/arms/plain/seed-2/core", "-o", "out"}).code == 0);
    CHECK(has(slurp(folder / "out/tokenizer_config.json"), "{{ messages }}</s>"));
    std::string record = slurp(folder / "runs/arms/sources.json");
    record[record.size() / 2] ^= 1;
    spill(folder / "runs/arms/sources.json", record);
    const Outcome damaged = run(folder, {"report", "runs/arms"});
    CHECK(damaged.code == 3);
    CHECK(has(damaged.err, "sources.json"));
  }
}
