// --allow-change and rewind on the real program: what goes on from a checkpoint, what is recorded, what is refused.
#include <doctest/doctest.h>

#include "tests/recipes/same_results.h"

using namespace coppice::test;

namespace {

using Words = std::vector<std::string>;

const Words kLower = {"run", "small.toml", "--set", "dense.lr=0.001"};
const Words kAllowed = {"run", "small.toml", "--set", "dense.lr=0.001", "--allow-change", "dense.lr"};

std::function<void()> killed_after(int steps) {
  return [steps] { setenv("COPPICE_FAILPOINTS", ("train.after_step=abort@" + std::to_string(steps)).c_str(), 1); };
}

/// A run of small.toml (16 steps, a checkpoint every 4) whose source was killed after so many.
struct KilledRun : Scratch {
  fs::path dense;
  KilledRun(const std::string& name, int steps) : Scratch(name), dense(path / "runs/small/dense") {
    write_run(path, "small.toml");
    REQUIRE(run(path, {"run", "small.toml"}, killed_after(steps)).signal == SIGKILL);
  }
};

std::vector<double> rates_of(const fs::path& stage) {
  std::vector<double> rates;
  std::istringstream lines(slurp(stage / "metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) rates.push_back(nlohmann::json::parse(line).at("lr"));
  return rates;
}

nlohmann::json changes_of(const fs::path& stage) {
  return nlohmann::json::parse(slurp(stage / "manifest.json")).at("identity").at("changes");
}

}  // namespace

TEST_SUITE("faults") {
  TEST_CASE(
      "a lower rate from the last checkpoint on: refused with the flag that allows it, then recorded, and found again "
      "without it") {
    const KilledRun changed("midway", 7), twin("midway_twin", 6), straight("midway_straight", 1);
    const Outcome refused = run(changed.path, kLower);
    INFO(refused.err);
    CHECK(refused.code == 2);
    CHECK(refused.err.find("lr 0.01 -> 0.001") != std::string::npos);
    CHECK(refused.err.find("--allow-change dense.lr") != std::string::npos);

    const Outcome outcome = run(changed.path, kAllowed);
    INFO(outcome.err);
    REQUIRE(outcome.code == 0);
    REQUIRE(run(straight.path, {"run", "small.toml"}).code == 0);
    const std::vector<double> rates = rates_of(changed.dense), before = rates_of(straight.dense);
    REQUIRE(rates.size() == 16);
    for (size_t step = 0; step < 16; ++step)
      CHECK(rates[step] == doctest::Approx(step < 4 ? before[step] : before[step] / 10));
    const nlohmann::json changes = changes_of(changed.dense);
    REQUIRE(changes.size() == 1);
    CHECK(changes[0]["step"] == 4);
    CHECK(changes[0]["keys"]["options.lr"] == nlohmann::json({0.01, 0.001}));
    CHECK(slurp(changed.path / "runs/small/report.md").find("lr 0.01 -> 0.001 at step 4") != std::string::npos);
    CHECK(nlohmann::json::parse(slurp(changed.path / "runs/small/report.json"))["stages"][0]["changed"] ==
          "lr 0.01 -> 0.001 at step 4");

    CHECK(run(changed.path, kLower).out.find("already complete") != std::string::npos);
    CHECK(run(changed.path, {"run", "small.toml"}).code == 2);

    CHECK(run(twin.path, kAllowed, killed_after(7)).signal ==
          SIGKILL);  // a kill after the change, and the same command again
    REQUIRE(run(twin.path, kAllowed).code == 0);
    check_same_runs(twin.path / "runs/small", changed.path / "runs/small");
  }

  TEST_CASE(
      "back to an older checkpoint: later ones are set aside, and the run ends with the same bits as if nothing had "
      "been") {
    const KilledRun back("midway_back", 11), straight("midway_back_straight", 1);
    const Outcome absent = run(back.path, {"rewind", "runs/small/dense", "--step", "5"});
    INFO(absent.err);
    CHECK(absent.code == 3);
    CHECK(absent.err.find("steps 4, 8") != std::string::npos);
    REQUIRE(run(back.path, {"rewind", "runs/small/dense", "--step", "4"}).code == 0);
    CHECK(fs::exists(back.dense / "ckpt/.left-step-00000008"));
    CHECK(!fs::exists(back.dense / "ckpt/step-00000008"));
    {
      Process owner = start(back.path, {"run", "small.toml"},
                            [] { setenv("COPPICE_FAILPOINTS", "train.after_step=sleep:60@2", 1); });
      while (!owner.poll() &&
             std::ranges::count(slurp(back.dense / "metrics.jsonl"), '\n') != 6)  // 11 until it cuts the lost steps off
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
      CHECK(run(back.path, {"rewind", "runs/small/dense", "--step", "4"}).code == 5);
      owner.send(SIGKILL);
      owner.wait();
    }
    REQUIRE(run(back.path, {"run", "small.toml"}).code == 0);
    REQUIRE(run(straight.path, {"run", "small.toml"}).code == 0);
    check_same_runs(back.path / "runs/small", straight.path / "runs/small");
    const Outcome nothing = run(back.path, {"rewind", "runs/small/dense", "--step", "4"});
    CHECK(nothing.code == 2);
    CHECK(nothing.err.find("no stage under way") != std::string::npos);
  }

  TEST_CASE(
      "a checkpoint from before the change is not gone on from unasked; asked, the change holds from its step on") {
    const KilledRun damaged("midway_damaged", 11), early("midway_early", 5);
    CHECK(run(damaged.path, kAllowed, killed_after(2)).signal == SIGKILL);  // changed at 8
    spill(damaged.dense / "ckpt/step-00000008/part-00000.h5", "rubbish");
    const Outcome refused = run(damaged.path, kLower);
    INFO(refused.err);
    CHECK(refused.code == 2);
    CHECK(refused.err.find("coppice rewind runs/small/dense --step 4") != std::string::npos);
    REQUIRE(run(damaged.path, {"rewind", "runs/small/dense", "--step", "4"}).code == 0);
    REQUIRE(run(damaged.path, kLower).code == 0);
    CHECK(changes_of(damaged.dense)[0]["step"] == 4);
    REQUIRE(run(early.path, kAllowed).code == 0);  // changed at 4
    check_same_runs(damaged.path / "runs/small", early.path / "runs/small");
  }

  TEST_CASE(
      "a change taken back before another checkpoint was never made; one that cannot be leaves the run as it was") {
    const KilledRun undone("midway_undone", 9), straight("midway_undone_straight", 1);
    CHECK(run(undone.path, kAllowed, killed_after(2)).signal == SIGKILL);
    CHECK(run(undone.path, {"run", "small.toml", "--allow-change", "dense.lr"}, killed_after(1)).signal == SIGKILL);
    const Outcome shorter =
        run(undone.path, {"run", "small.toml", "--set", "dense.tokens=2048", "--allow-change", "dense.tokens"});
    INFO(shorter.err);
    CHECK(shorter.code == 2);
    CHECK(shorter.err.find("more than the 4 steps") != std::string::npos);
    const Outcome idle = run(undone.path, {"run", "small.toml", "--allow-change", "dense.lr"});
    INFO(idle.err);
    CHECK(idle.code == 0);
    CHECK(idle.err.find("changes nothing") != std::string::npos);
    REQUIRE(run(straight.path, {"run", "small.toml"}).code == 0);
    check_same_runs(undone.path / "runs/small", straight.path / "runs/small");
  }

  TEST_CASE("what no checkpoint goes on under is refused before any work") {
    const Scratch scratch("midway_refused");
    write_run(scratch.path, "small.toml");
    for (const auto& [key, expected] : {std::pair{"dense.seq_len", "no key that a checkpoint can go on under"},
                                        {"dens.lr", "<stage>.<key>"},
                                        {"pruned.lr", "<stage>.<key>"}}) {
      const Outcome outcome = run(scratch.path, {"run", "small.toml", "--allow-change", key});
      INFO(outcome.err);
      CHECK(outcome.code == 2);
      CHECK(outcome.err.find(expected) != std::string::npos);
    }
    CHECK(run(scratch.path, {"run", "small.toml", "--rerun", "--allow-change", "dense.lr"}).code == 2);
    CHECK(!fs::exists(scratch.path / "runs"));
  }
}
