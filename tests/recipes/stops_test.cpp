// Signals on the real program: every stage stops with 75 and goes on to the same bits; grace_s; checkpoints on request;
// verbs without anything to save.
#include <doctest/doctest.h>

#include "tests/recipes/program.h"

using namespace coppice::test;

namespace {

void wait_until(Process& process, const std::function<bool()>& reached) {
  while (!process.poll() && !reached()) std::this_thread::sleep_for(std::chrono::milliseconds(2));
}

std::function<void()> failpoints(const char* spec) {
  return [spec] { setenv("COPPICE_FAILPOINTS", spec, 1); };
}

bool holds_checkpoint(const fs::path& stage) {
  return fs::exists(stage / "ckpt") &&
         std::ranges::any_of(fs::directory_iterator(stage / "ckpt"), [](const fs::directory_entry& entry) {
           return entry.path().filename().string().starts_with("step-");
         });
}

}  // namespace

TEST_SUITE("faults") {
  TEST_CASE("SIGTERM at the start of any stage: 75, and the run goes on to the same bits [31]") {
    const Scratch straight("stops_straight"), stopped("stops");
    write_tiny_run(straight.path);
    write_tiny_run(stopped.path);
    const std::vector<std::string> command = {
        "run",   "tiny.toml",
        "--set", "masks.keep_finished=false",
        "--set", "core.keep_finished=false",
        "--set", "dense.keep_finished=false"};  // the signal writes checkpoints of its own
    REQUIRE(run(straight.path, command).code == 0);
    const fs::path root = stopped.path / "runs/tiny";
    for (const std::string stage : {"data", "dense", "masks", "pruned", "labels", "core", "scores"}) {
      Process process = start(stopped.path, command);
      wait_until(process, [&] { return fs::exists(root / stage / "identity.json"); });
      process.send(SIGTERM);
      const Outcome& outcome = process.wait();
      INFO(stage << ": " << outcome.err);
      CHECK(outcome.code == 75);
      CHECK(outcome.err.find("run again") != std::string::npos);
      CHECK(slurp(root / "log.txt").find("run again") != std::string::npos);
    }
    REQUIRE(run(stopped.path, command).code == 0);
    const auto got = results_of(root), expected = results_of(straight.path / "runs/tiny");
    for (const auto& [name, bytes] : expected) {
      INFO(name);
      REQUIRE(got.contains(name));
      CHECK((got.at(name) == bytes));
    }
    CHECK(got.size() == expected.size());
  }

  TEST_CASE(
      "grace_s bounds the save, not the report after it, and a report that fails is no reason for another code [32]") {
    const auto stop = [](const std::string& then) {  // in the pause after the first step
      const Scratch scratch("grace");
      write_run(scratch.path, "small.toml");
      Process process = start(scratch.path, {"run", "small.toml", "--set", "grace_s=3"}, failpoints(then.c_str()));
      wait_until(process, [&] { return !slurp(scratch.path / "runs/small/dense/metrics.jsonl").empty(); });
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      process.send(SIGTERM);
      return process.wait();
    };
    CHECK(stop("train.after_step=sleep:60").code == 128 + SIGTERM);
    const Outcome slow = stop("train.after_step=sleep:1,run.stopped_report=sleep:5");
    INFO(slow.err);
    CHECK(slow.code == 75);
    const Outcome failed = stop("train.after_step=sleep:1,run.stopped_report=error");
    INFO(failed.err);
    CHECK(failed.code == 75);
    CHECK(failed.err.find("no report of what was stopped") != std::string::npos);
  }

  TEST_CASE("SIGUSR2 reaches the stages of an ablation: they save and go on [31]") {
    const Scratch scratch("usr2");
    write_run(scratch.path, "micro.toml");
    const fs::path dense = scratch.path / "runs/micro/labelled/seed-1/dense";
    Process process = start(scratch.path,
                            {"ablate", "micro.toml", "--jobs", "1", "--set", "dense.checkpoint_steps=1000", "--set",
                             "dense.keep_finished=true"},
                            failpoints("train.after_step=sleep:1@2"));
    wait_until(process, [&] { return !slurp(dense / "metrics.jsonl").empty(); });
    process.send(SIGUSR2);
    wait_until(process, [&] { return holds_checkpoint(dense); });
    CHECK(holds_checkpoint(dense));
    CHECK(!fs::exists(dense / "ckpt/step-00000032"));  // not the one at the stage's end
    process.send(SIGTERM);
    CHECK(process.wait().code == 75);
  }

  TEST_CASE("a verb without anything to save ends at the first Ctrl-C") {
    const Scratch scratch("verbs");
    write_run(scratch.path, "small.toml");
    REQUIRE(run(scratch.path, {"run", "small.toml"}).code == 0);
    Process process =
        start(scratch.path, {"export", "runs/small/pruned", "-o", "out"}, failpoints("io.rename=sleep:60"));
    wait_until(process, [&] {
      return std::ranges::any_of(fs::directory_iterator(scratch.path), [](const fs::directory_entry& entry) {
        return entry.path().filename().string().starts_with(".tmp-out");
      });
    });
    process.send(SIGINT);
    CHECK(process.wait().signal == SIGINT);
  }

  TEST_CASE("steps that were skipped are listed once, whatever kills came between [1]") {
    const Scratch straight("skips_straight"), killed("skips");
    write_run(straight.path, "small.toml");
    write_run(killed.path, "small.toml");
    const std::vector<std::string> command = {
        "run", "small.toml", "--set", "dense.drop_grad_norm=1", "--set", "dense.max_skipped_steps=1000"};
    REQUIRE(run(straight.path, command).code == 0);
    const std::string bad = slurp(straight.path / "runs/small/dense/bad_batches.jsonl");
    CHECK(std::ranges::count(bad, '\n') >= 4);
    CHECK(run(killed.path, command, failpoints("train.after_step=abort@7")).signal == SIGKILL);
    CHECK(run(killed.path, command, failpoints("train.after_step=abort@6")).signal == SIGKILL);
    REQUIRE(run(killed.path, command).code == 0);
    CHECK(slurp(killed.path / "runs/small/dense/bad_batches.jsonl") == bad);
    CHECK(without_clock(slurp(killed.path / "runs/small/dense/metrics.jsonl")) ==
          without_clock(slurp(straight.path / "runs/small/dense/metrics.jsonl")));
  }

  TEST_CASE("a stage whose every gradient norm reaches the bar stops, and the bar is named") {
    const Scratch scratch("skips_all");
    write_run(scratch.path, "small.toml");
    const Outcome stopped = run(scratch.path, {"run", "small.toml", "--set", "dense.drop_grad_norm=1e-9", "--set",
                                               "dense.max_skipped_steps=3"});
    CHECK(stopped.code == 6);
    CHECK(stopped.err.find("stage 'dense' step 4: 4 steps in a row were skipped") != std::string::npos);
    CHECK(stopped.err.find("may need a higher dense.drop_grad_norm than 1e-09") != std::string::npos);
  }
}
