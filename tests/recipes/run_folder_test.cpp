// The run folder on the real program: what a finished stage vouches for, what a changed recipe is told, what a resume
// refuses, what room it asks for.
#include <doctest/doctest.h>
#include <fcntl.h>

#include "recipes/folder/run_folder.h"
#include "tests/recipes/program.h"

using namespace coppice::test;

namespace {

const std::vector<std::string> kRun = {"run", "small.toml"};

std::vector<std::string> with(std::vector<std::string> command, const std::vector<std::string>& more) {
  command.insert(command.end(), more.begin(), more.end());
  return command;
}

bool says(const std::string& text, const std::vector<std::string>& words) {
  return std::ranges::all_of(words, [&](const std::string& word) { return text.find(word) != std::string::npos; });
}

/// Starts the run and stops it by SIGTERM once `stage` has written metrics.
void stop_in(const fs::path& folder, const std::string& stage, const std::vector<std::string>& command = kRun) {
  Process process = start(folder, command);
  while (!process.poll() && slurp(folder / "runs/small" / stage / "metrics.jsonl").empty())
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  process.send(SIGTERM);
  process.wait();
  INFO(process.outcome.err);
  REQUIRE(process.outcome.code == 75);
}

}  // namespace

TEST_SUITE("faults") {
  TEST_CASE(
      "a finished stage vouches for its subfolders: what is missing or changed there is exit 3, naming it [14, 50]") {
    const Scratch scratch("vouched");
    write_run(scratch.path, "small.toml");
    REQUIRE(run(scratch.path, kRun).code == 0);
    const fs::path root = scratch.path / "runs/small";
    const auto refused = [&](const std::string& name) {
      const Outcome outcome = run(scratch.path, kRun);
      INFO(name << ": " << outcome.err);
      CHECK(outcome.code == 3);
      CHECK(outcome.err.find(name) != std::string::npos);
    };
    for (const char* gone : {"release/hf", "dense/model", "pruned/model/part-00000.h5"}) {
      const fs::path aside = scratch.path / "aside";
      fs::rename(root / gone, aside);
      refused(gone);
      fs::rename(aside, root / gone);
    }
    const auto flip_and = [&](const std::string& name, const auto& check) {
      const std::string good = slurp(root / name);
      std::string bytes = good;
      bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 4);
      spill(root / name, bytes);
      check(name);
      spill(root / name, good);
    };
    flip_and("release/hf/model.safetensors", refused);
    flip_and("pruned/model/manifest.json", refused);
    flip_and("dense/model/part-00000.h5",
             [&](const std::string& name) {  // not read by a complete run; who shows it looks at every byte
               const Outcome shown = run(scratch.path, {"inspect", "runs/small/dense/model"});
               INFO(shown.err);
               CHECK(shown.code == 3);
               CHECK(says(shown.err, {fs::path(name).filename().string()}));
             });
    CHECK(run(scratch.path, kRun).code == 0);
  }

  TEST_CASE("a stage moved aside twice leaves both results") {
    const Scratch scratch("aside");
    coppice::RunFolder folder(scratch.path / "run");
    for (const char* text : {"first", "second"}) {
      spill(folder.root() / "core/result", text);
      folder.move_aside("core", "0123456789abcdef");
    }
    CHECK(slurp(folder.root() / ".old-core-01234567/result") == "first");
    CHECK(slurp(folder.root() / ".old-core-01234567.2/result") == "second");
  }

  TEST_CASE("a changed recipe is told which keys differ, old and new [18]") {
    const Scratch scratch("changed");
    write_run(scratch.path, "small.toml");
    REQUIRE(run(scratch.path, kRun).code == 0);
    const Outcome one = run(scratch.path, with(kRun, {"--set", "pruned.calibration_tokens=8192"}));
    INFO(one.err);
    CHECK(one.code == 2);
    CHECK(says(one.err, {"pruned (calibration_tokens 4096 -> 8192)", "scores (its input pruned)",
                         "release (its input pruned)", "--rerun"}));
    CHECK(!says(one.err, {"dense"}));
    const Outcome data = run(scratch.path, with(kRun, {"--set", "data.heldout_share=0.1"}));
    INFO(data.err);
    CHECK(data.code == 2);
    CHECK(says(data.err, {"data (heldout_share 0.08 -> 0.1)", "dense (the data)"}));
    const std::string recipe = slurp(scratch.path / "small.toml");
    const size_t path = recipe.find("path = \"corpus/code.jsonl\"");
    spill(scratch.path / "small.toml", recipe.substr(0, path) + "weight = 3\n" + recipe.substr(path));
    const Outcome weight = run(scratch.path, kRun);
    INFO(weight.err);
    CHECK(weight.code == 2);  // calibration draws by these weights
    CHECK(says(weight.err, {"pruned (calibration"}));
    CHECK(!says(weight.err, {"dense ("}));
  }

  TEST_CASE("a stage that was begun with other options is not gone on with [18]") {
    const Scratch scratch("begun");
    write_run(scratch.path, "small.toml");
    stop_in(scratch.path, "dense");
    const Outcome outcome = run(scratch.path, with(kRun, {"--set", "dense.lr=0.003"}));
    INFO(outcome.err);
    CHECK(outcome.code == 2);
    CHECK(says(outcome.err, {"dense (lr", "0.003)"}));
    CHECK(run(scratch.path, with(kRun, {"--set", "dense.lr=0.003", "--rerun"})).code == 0);
  }

  TEST_CASE("a folder that may only be read is exit 4 before any work [12]") {
    const Scratch scratch("readonly");
    write_run(scratch.path, "small.toml");
    fs::create_directories(scratch.path / "runs");
    fs::permissions(scratch.path / "runs",
                    fs::perms::owner_read | fs::perms::owner_exec | fs::perms::others_read | fs::perms::others_exec);
    const Outcome outcome = run(scratch.path, kRun, [] {
      const std::string program = std::string(COPPICE_BINARY_DIR) + "/coppice";
      if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0 || access(program.c_str(), X_OK) != 0))
        _exit(77);  // root may write anywhere
    });
    fs::permissions(scratch.path / "runs", fs::perms::owner_all);
    if (outcome.code == 77) {
      MESSAGE("skipped: no other user may start the program here");
      return;
    }
    INFO(outcome.err);
    CHECK(outcome.code == 4);
    CHECK(says(outcome.err, {"runs"}));
    CHECK(fs::is_empty(scratch.path / "runs"));
  }

  TEST_CASE("a disk that fills up under the metrics: exit 4, and the run goes on with whole lines [7]") {
    const Scratch scratch("metrics_full");
    write_run(scratch.path, "small.toml");
    const std::vector<std::string> command =
        with(kRun, {"--set", "dense.tokens=102400", "--set", "dense.checkpoint_steps=1000"});
    REQUIRE(run(scratch.path, {"data", "tokenize", "small.toml"}).code == 0);
    const Outcome full = run(scratch.path, command, [] {
      const rlimit limit{.rlim_cur = 20'000, .rlim_max = 20'000};
      setrlimit(RLIMIT_FSIZE, &limit);
    });
    INFO(full.err);
    CHECK(full.code == 4);
    CHECK(says(full.err, {"metrics.jsonl"}));
    REQUIRE(run(scratch.path, command).code == 0);
    std::istringstream lines(slurp(scratch.path / "runs/small/dense/metrics.jsonl"));
    int64_t step = 0;
    for (std::string line; std::getline(lines, line);) CHECK(nlohmann::json::parse(line)["step"] == ++step);
    CHECK(step == 200);
  }

  TEST_CASE("tokens that differ from those of the checkpoint are refused, exit 3 [44, 46]") {
    const Scratch scratch("mixed"), other("mixed_other");
    write_run(scratch.path, "small.toml");
    write_run(other.path, "small.toml");
    spill(other.path / "corpus/prose.jsonl", slurp(other.path / "corpus/code.jsonl"));
    REQUIRE(run(other.path, {"data", "tokenize", "small.toml"}).code == 0);
    stop_in(scratch.path, "dense");
    const fs::path data = scratch.path / "runs/small/data";
    for (const char* part : {"tokens", "heldout", "tokenizer"}) {
      fs::remove_all(data / part);
      fs::copy(other.path / "runs/small/data" / part, data / part, fs::copy_options::recursive);
    }
    const Outcome outcome = run(scratch.path, kRun);
    INFO(outcome.err);
    CHECK(outcome.code == 3);
    CHECK(says(outcome.err, {"dense/ckpt/step-", "tokenizer"}));
    CHECK(!fs::exists(scratch.path / "runs/small/dense/manifest.json"));
  }

  TEST_CASE("room on the disk is asked for what is still to come [49]") {
    const Scratch scratch("room");
    write_run(scratch.path, "small.toml");
    const std::vector<std::string> greedy =
        with(kRun, {"--set", "dense.keep_last=2000000000"});  // checkpoints beyond any disk; no part of the result
    const Outcome refused = run(scratch.path, greedy);
    CHECK(refused.code == 4);
    CHECK(says(refused.err, {"of disk", "free"}));
    CHECK(!fs::exists(scratch.path / "runs/small/data"));
    stop_in(scratch.path, "dense");
    CHECK(run(scratch.path, greedy).code == 4);
    REQUIRE(run(scratch.path, kRun).code == 0);
    CHECK(run(scratch.path, greedy).code == 0);
    fs::remove_all(scratch.path / "runs/small/release");
    const Outcome late = run(scratch.path, greedy);
    INFO(late.err);
    CHECK(late.code == 0);
    CHECK(fs::exists(scratch.path / "runs/small/release/hf/config.json"));
  }
}
