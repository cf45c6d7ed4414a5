// Checkpoints written while training goes on, as a device's are, on the real program (numbers in brackets: rows of the
// fault matrix).
#include <doctest/doctest.h>

#include "tests/recipes/same_results.h"

using namespace coppice::test;

namespace {

/// For as many training stages as a recipe here has.
std::function<void()> in_background(const std::string& more = "") {
  return [more] {
    std::string spec = more;
    for (int stage = 1; stage <= 5; ++stage) spec += ",ckpt.background=nan@" + std::to_string(stage);
    setenv("COPPICE_FAILPOINTS", spec.substr(more.empty() ? 1 : 0).c_str(), 1);
  };
}

int64_t lines_of(const fs::path& metrics) { return std::ranges::count(slurp(metrics), '\n'); }

void wait_until(Process& process, const std::function<bool()>& reached) {
  while (!process.poll() && !reached()) std::this_thread::sleep_for(std::chrono::milliseconds(2));
}

}  // namespace

TEST_SUITE("faults") {
  TEST_CASE("background checkpoints: every file of a run is that of checkpoints in between, masks that move included") {
    const Scratch between("between"), beside("beside");
    write_tiny_run(between.path);
    write_tiny_run(beside.path);
    REQUIRE(run(between.path, {"run", "tiny.toml"}).code == 0);
    const Outcome outcome = run(beside.path, {"run", "tiny.toml"}, in_background());
    INFO(outcome.err);
    REQUIRE(outcome.code == 0);
    check_same_runs(beside.path / "runs/tiny", between.path / "runs/tiny");
    for (const Scratch* scratch : {&between, &beside}) {
      const fs::path root = scratch->path / "runs/tiny";
      const nlohmann::json ran = nlohmann::json::parse(slurp(root / "run.json")),
                           report = nlohmann::json::parse(slurp(root / "report.json"));
      CHECK(ran.at("checkpoint_stall_s").at("masks").get<double>() > 0);
      CHECK(ran.at("checkpoint_stall_s").at("masks").get<double>() <= ran.at("seconds").at("masks").get<double>());
      CHECK_FALSE(ran.at("checkpoint_stall_s").contains("pruned"));
      CHECK(report.at("stages").at(1).at("checkpoint_stall_s").get<double>() > 0);
      CHECK(slurp(root / "log.txt").find("checkpoints held it up for") != std::string::npos);
    }
  }

  TEST_CASE(
      "background checkpoints: killed while one is held and training has gone on, the run goes on from the one before "
      "[1, 2]") {
    const Scratch straight("held_straight"), held("held");
    write_run(straight.path, "small.toml");
    write_run(held.path, "small.toml");
    const fs::path dense = held.path / "runs/small/dense";
    Process process =
        start(held.path, {"run", "small.toml"}, in_background("ckpt.before_rename=sleep:600@2"));  // that of step 8
    wait_until(process, [&] { return lines_of(dense / "metrics.jsonl") >= 12; });
    CHECK_FALSE(process.ended);
    CHECK(fs::exists(dense / "ckpt/step-00000004"));
    CHECK_FALSE(fs::exists(dense / "ckpt/step-00000008"));
    CHECK_FALSE(fs::exists(dense / "ckpt/step-00000012"));
    CHECK(run(held.path, {"rewind", "runs/small/dense", "--step", "4"}).code == 5);  // not beside the run
    process.send(SIGKILL);
    CHECK(process.wait().signal == SIGKILL);
    const Outcome refused = run(held.path, {"rewind", "runs/small/dense", "--step", "8"});
    CHECK(refused.code == 3);
    CHECK(refused.err.find("there are steps 4 ") != std::string::npos);
    CHECK(run(held.path, {"rewind", "runs/small/dense", "--step", "4"}).code == 0);
    const Outcome resumed = run(held.path, {"run", "small.toml"}, in_background());
    INFO(resumed.err);
    REQUIRE(resumed.code == 0);
    CHECK(resumed.err.find("resuming at step 4 of 16") != std::string::npos);
    REQUIRE(run(straight.path, {"run", "small.toml"}).code == 0);
    check_same_runs(held.path / "runs/small", straight.path / "runs/small");
  }

  TEST_CASE("background checkpoints: a stop waits for the last one, and for what it failed with [31, 32]") {
    const auto stop = [](const fs::path& folder, const std::string& then) {
      write_run(folder, "small.toml");
      Process process = start(folder, {"run", "small.toml"}, in_background("train.after_step=sleep:2@2," + then));
      wait_until(process, [&] { return lines_of(folder / "runs/small/dense/metrics.jsonl") >= 2; });
      process.send(SIGTERM);
      return process.wait();
    };
    const Scratch slow("stop_slow"), failed("stop_failed");
    const fs::path ckpt = "runs/small/dense/ckpt";
    const Outcome stopped = stop(slow.path, "ckpt.before_rename=sleep:1");
    INFO(stopped.err);
    CHECK(stopped.code == 75);
    CHECK(stopped.err.find("stopped at step 3 ") != std::string::npos);
    CHECK(fs::exists(slow.path / ckpt / "step-00000003/manifest.json"));
    const Outcome full = stop(failed.path, "ckpt.before_rename=error@1,ckpt.before_rename=error@2");
    INFO(full.err);
    CHECK(full.code == 4);
    CHECK_FALSE(fs::exists(failed.path / ckpt / "step-00000003"));
  }

  TEST_CASE(
      "background checkpoints: a disk that fills up ends with exit 4, also with the last one; then it goes on [5]") {
    for (const char* every : {"dense.checkpoint_steps=4", "dense.checkpoint_steps=16"}) {
      const Scratch scratch("full_beside");
      write_run(scratch.path, "small.toml");
      const std::vector<std::string> command = {"run", "small.toml", "--set", every};
      REQUIRE(run(scratch.path, {"data", "tokenize", "small.toml"}).code == 0);
      const Outcome full = run(scratch.path, command, [] {
        in_background()();
        const rlimit limit{.rlim_cur = 200'000, .rlim_max = 200'000};  // the source needs 123 kB, a checkpoint 369 kB
        setrlimit(RLIMIT_FSIZE, &limit);
      });
      INFO(full.err);
      CHECK(full.code == 4);
      CHECK(full.err.find("ckpt") != std::string::npos);
      CHECK_FALSE(fs::exists(scratch.path / "runs/small/dense/manifest.json"));
      CHECK(run(scratch.path, command).code == 0);
    }
  }
}
