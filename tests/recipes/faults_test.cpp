// Killed, starved, fed rubbish: the promises about failure, each on the real program (numbers in brackets: rows of the
// fault matrix they stand for).
#include "src/tensors/cuda_devices.h"  // before any CHECK

#include <doctest/doctest.h>

#include "tests/recipes/program.h"

using namespace coppice::test;

namespace {

const std::vector<std::string> kStages = {"data", "dense", "masks",   "pruned", "cut_activation", "labels",
                                          "core", "long",  "scratch", "scores", "release"};

/// Seconds each stage took in a run, from run.json.
double seconds_of(const fs::path& run, const std::string& stage) {
  const nlohmann::json json = nlohmann::json::parse(slurp(run / "run.json"));
  return json.contains("seconds") ? json["seconds"].value(stage, 0.05) : 0.05;
}

/// Waits until a stage has begun (its identity.json is there) or the process has ended.
bool wait_for_stage(Process& process, const fs::path& run, const std::string& stage) {
  while (!process.poll()) {
    if (fs::exists(run / stage / "identity.json")) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return false;
}

void sleep_s(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

void check_equal(const std::map<std::string, std::string>& got, const std::map<std::string, std::string>& expected) {
  for (const auto& [name, bytes] : expected) {
    INFO(name);
    REQUIRE(got.contains(name));
    CHECK((got.at(name) == bytes));
  }
  for (const auto& [name, bytes] : got) {
    INFO(name);
    CHECK(expected.contains(name));
  }
}

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

}  // namespace

TEST_SUITE("faults") {
  TEST_CASE(
      "kill -9 at a random instant of every stage, then the same command: bitwise the undisturbed run [1, 31, 50]") {
    const Scratch straight("straight"), killed("killed");
    write_tiny_run(straight.path);
    write_tiny_run(killed.path);
    const Outcome undisturbed = run(straight.path, {"run", "tiny.toml"});
    INFO(undisturbed.err);
    REQUIRE(undisturbed.code == 0);
    const fs::path expected = straight.path / "runs/tiny", got = killed.path / "runs/tiny";

    const unsigned seed = std::random_device()();
    MESSAGE("seed " << seed);
    std::mt19937 random(seed);
    int kills = 0;
    for (const std::string& stage : kStages) {
      Process process = start(killed.path, {"run", "tiny.toml"});
      if (!wait_for_stage(process, got, stage)) {
        REQUIRE(process.outcome.code == 0);
        break;
      }
      sleep_s(std::uniform_real_distribution<>(0, 1.2 * seconds_of(expected, stage))(random));
      process.send(SIGKILL);
      kills += process.wait().signal == SIGKILL;
    }
    CHECK(kills >= 10);
    const Outcome resumed = run(killed.path, {"run", "tiny.toml"});
    INFO(resumed.err);
    REQUIRE(resumed.code == 0);
    check_equal(results_of(got), results_of(expected));
  }

  TEST_CASE(
      "killed after any number of system calls, again and again until it is done: bitwise the undisturbed run [1, 2, "
      "3]") {
    const Scratch straight("calls_straight"), killed("calls");
    write_run(straight.path, "small.toml");
    write_run(killed.path, "small.toml");
    const std::vector<std::string> command = {"run", "small.toml", "--set", "dense.keep_finished=true"};
    REQUIRE(run(straight.path, command).code == 0);
    const unsigned seed = std::random_device()();
    MESSAGE("seed " << seed);
    std::mt19937 random(seed);
    int kills = 0;
    Outcome last;
    do {
      const std::string calls =
          std::to_string(std::uniform_int_distribution<>(10, 40 + 4 * kills)(random));  // grows, so that it ends
      last = run(killed.path, command, [&] {
        setenv("COPPICE_FAIL_AFTER_IO", calls.c_str(), 1);
        if (kills % 2 == 1) setenv("COPPICE_FAILPOINTS", "ckpt.background=nan", 1);  // whoever writes checkpoints
      });
      kills += last.signal == SIGKILL;
    } while (last.signal == SIGKILL && kills < 100);
    INFO(last.err);
    CHECK(last.code == 0);
    CHECK(kills >= 5);
    check_equal(results_of(killed.path / "runs/small"), results_of(straight.path / "runs/small"));
  }

  TEST_CASE(
      "killed between the last checkpoint and the removal of one that it replaces: as many are left as keep_last says "
      "[2]") {
    const Scratch scratch("kept");
    write_run(scratch.path, "small.toml");
    const std::vector<std::string> command = {"run", "small.toml", "--set", "dense.keep_finished=true"};
    const Outcome killed =
        run(scratch.path, command, [] { setenv("COPPICE_FAILPOINTS", "ckpt.after_rename=abort@4", 1); });
    REQUIRE(killed.signal == SIGKILL);
    const fs::path ckpt = scratch.path / "runs/small/dense/ckpt";
    for (const char* step : {"step-00000008", "step-00000012", "step-00000016"}) REQUIRE(fs::exists(ckpt / step));
    REQUIRE(run(scratch.path, command).code == 0);
    CHECK(!fs::exists(ckpt / "step-00000008"));
    CHECK(fs::exists(ckpt / "step-00000012"));
    CHECK(fs::exists(ckpt / "step-00000016"));
  }

  TEST_CASE("SIGTERM and SIGINT: checkpoint, exit 75, and the run goes on bitwise [31]") {
    const Scratch straight("term_straight"), stopped("term_stopped");
    write_tiny_run(straight.path);
    write_tiny_run(stopped.path);
    const std::vector<std::string> command = {
        "run", "tiny.toml", "--set", "dense.checkpoint_steps=1000"};  // no checkpoint of its own before the signal
    REQUIRE(run(straight.path, command).code == 0);
    const fs::path root = stopped.path / "runs/tiny";
    for (const int number : {SIGTERM, SIGINT}) {
      Process process = start(stopped.path, command);
      while (!process.poll() && slurp(root / "dense/metrics.jsonl").size() < (number == SIGTERM ? 200u : 6000u))
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      process.send(number);
      const Outcome& outcome = process.wait();
      INFO(outcome.err);
      CHECK(outcome.code == 75);
      CHECK(outcome.err.find("run again") != std::string::npos);
      CHECK(fs::exists(root / "dense/ckpt"));
    }
    REQUIRE(run(stopped.path, command).code == 0);
    auto got = results_of(root), expected = results_of(straight.path / "runs/tiny");
    const auto is_checkpoint = [](const auto& entry) {
      return entry.first.starts_with("dense/ckpt/");
    };  // the signals wrote some of their own
    std::erase_if(got, is_checkpoint);
    std::erase_if(expected, is_checkpoint);
    check_equal(got, expected);
  }

  TEST_CASE("a stop while models are scored keeps those that are, and the stage ends as if undisturbed") {
    const Scratch straight("scores_straight"), stopped("scores_stopped");
    write_tiny_run(straight.path);
    write_tiny_run(stopped.path);
    REQUIRE(run(straight.path, {"run", "tiny.toml"}).code == 0);
    const fs::path root = stopped.path / "runs/tiny", scored = root / "scores/scored.json";
    Process process = start(stopped.path, {"run", "tiny.toml"},
                            [] { setenv("COPPICE_FAILPOINTS", "evaluate.scored=sleep:0.5@2", 1); });
    while (!process.poll() && !(fs::exists(scored) && nlohmann::json::parse(slurp(scored))["models"].size() == 2))
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    process.send(SIGTERM);
    const Outcome& outcome = process.wait();
    INFO(outcome.err);
    CHECK(outcome.code == 75);
    REQUIRE(fs::exists(scored));
    nlohmann::json kept = nlohmann::json::parse(slurp(scored));
    CHECK(kept["models"].size() == 2);
    REQUIRE(run(stopped.path, {"run", "tiny.toml"}).code == 0);
    check_equal(results_of(root), results_of(straight.path / "runs/tiny"));
  }

  TEST_CASE("a damaged checkpoint is named, set aside and passed over; all damaged is exit 3 [14, 17]") {
    const Scratch scratch("damaged");
    write_tiny_run(scratch.path);
    const fs::path ckpt = scratch.path / "runs/tiny/dense/ckpt";
    Process process = start(scratch.path, {"run", "tiny.toml"});
    while (!process.poll() && !fs::exists(ckpt / "step-00000020"))
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    process.send(SIGTERM);
    REQUIRE(process.wait().code == 75);
    const auto flip = [](const fs::path& file) {
      std::string bytes = slurp(file);
      bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
      spill(file, bytes);
    };
    std::vector<fs::path> steps;
    for (const auto& entry : fs::directory_iterator(ckpt)) steps.push_back(entry.path());
    std::ranges::sort(steps);
    REQUIRE(steps.size() == 2);
    SUBCASE("the newest: the one before it is used") {
      flip(steps[1] / "part-00000.h5");
      Process again = start(scratch.path, {"run", "tiny.toml"});
      const Outcome& outcome = again.wait();
      CHECK(outcome.code == 0);
      CHECK(outcome.err.find(steps[1].filename().string()) != std::string::npos);
      const Scratch straight("damaged_straight");
      write_tiny_run(straight.path);
      REQUIRE(run(straight.path, {"run", "tiny.toml"}).code == 0);
      CHECK(slurp(straight.path / "runs/tiny/dense/model/part-00000.h5") ==
            slurp(scratch.path / "runs/tiny/dense/model/part-00000.h5"));
    }
    SUBCASE("all: no silent fresh start") {
      for (const fs::path& step : steps) flip(step / "manifest.json");
      const Outcome outcome = run(scratch.path, {"run", "tiny.toml"});
      CHECK(outcome.code == 3);
      CHECK(outcome.err.find("step-") != std::string::npos);
    }
  }

  TEST_CASE("a disk that fills up ends with exit 4, and the run goes on when there is room [5, 6]") {
    const Scratch scratch("full");
    write_tiny_run(scratch.path);
    REQUIRE(run(scratch.path, {"data", "tokenize", "tiny.toml"}).code == 0);
    const Outcome full = run(scratch.path, {"run", "tiny.toml"}, [] {
      const rlimit limit{.rlim_cur = 150'000, .rlim_max = 150'000};  // a checkpoint of the source needs 350 kB
      setrlimit(RLIMIT_FSIZE, &limit);
    });
    INFO(full.err);
    CHECK(full.code == 4);
    CHECK(full.err.find("ckpt") != std::string::npos);
    CHECK(!fs::exists(scratch.path / "runs/tiny/dense/ckpt/step-00000010"));
    CHECK(run(scratch.path, {"run", "tiny.toml"}).code == 0);
  }

  TEST_CASE("a second run in the folder is told so at once; the first is unaffected [29]") {
    const Scratch scratch("locked");
    write_tiny_run(scratch.path);
    Process first = start(scratch.path, {"run", "tiny.toml"});
    REQUIRE(wait_for_stage(first, scratch.path / "runs/tiny", "dense"));
    const Outcome second = run(scratch.path, {"run", "tiny.toml"});
    CHECK(second.code == 5);
    CHECK(second.err.find(std::to_string(first.pid)) != std::string::npos);
    CHECK(first.wait().code == 0);
  }

  TEST_CASE("what cannot work is refused before any work, in one line, with the right code [12, 18, 45, 49]") {
    const Scratch scratch("refused");
    write_tiny_run(scratch.path);
    const auto refused = [&](const std::vector<std::string>& extra, int code, const std::vector<std::string>& words,
                             const std::string& recipe = "tiny.toml") {
      std::vector<std::string> command = {"run", recipe};
      command.insert(command.end(), extra.begin(), extra.end());
      const Outcome outcome = run(scratch.path, command);
      INFO(outcome.err);
      CHECK(outcome.code == code);
      CHECK(outcome.err.find('\n') == outcome.err.size() - 1);  // one line
      for (const std::string& word : words) CHECK(first_line(outcome.err).find(word) != std::string::npos);
      CHECK(!fs::exists(scratch.path / "runs/tiny/dense"));
    };
    refused({"--set", "core.teacher_wieght=0.5"}, 2, {"teacher_wieght", "teacher_weight"});
    refused({"--set", "cor.tokens=5"}, 2, {"cor"});
    refused({"--set", "core.tokens=\"many\""}, 2, {"tokens", "many"});
    refused({"--set", "core.batch_tokens=100"}, 2, {"batch_tokens", "100", "64"});
    refused({"--set", "core.from=\"prunned\""}, 2, {"prunned", "pruned"});
    refused({"--set", "model.student.intermediate_size=97"}, 2, {"97", "96"});
    refused({"--set", "model.student.hidden_size=64"}, 2, {"intermediate_size"});
    refused({"--set", "masks.mask_form=\"soft\""}, 2, {"mask_form", "plain"});
    refused({"--set", "device=\"tpu\""}, 2, {"tpu", "cpu"});
    refused({"--set", "device=\"cuda:127\""}, 1,
            {"stage 'dense': device = \"cuda:127\": ", coppice::why_not_here(at::Device(at::kCUDA, 127)), "\"cpu\""});
    refused({}, 2, {"missing.toml"}, "missing.toml");
    refused({"--out", "/proc/nowhere"}, 4, {"/proc/nowhere"});
    refused({"--set", "model.source.hidden_size=16384", "--set", "model.source.num_hidden_layers=64", "--set",
             "model.source.intermediate_size=65536"},
            7, {"of memory"});

    const auto with_corpus = [&](const std::string& bytes, int code, const std::vector<std::string>& words) {
      spill(scratch.path / "corpus/bad.jsonl", bytes);
      const Outcome outcome = run(scratch.path, {"run", "bad.toml"});
      INFO(outcome.err);
      CHECK(outcome.code == code);
      for (const std::string& word : words) CHECK(outcome.err.find(word) != std::string::npos);
      CHECK(!fs::exists(scratch.path / "runs/tiny/dense"));
      fs::remove_all(scratch.path / "runs");
    };
    std::string bad = slurp(scratch.path / "tiny.toml");
    bad.replace(bad.find("corpus/code.jsonl"), 17, "corpus/bad.jsonl");
    spill(scratch.path / "bad.toml", bad);
    refused({}, 3, {"corpus/bad.jsonl"}, "bad.toml");  // missing
    with_corpus("", 3, {"corpus/bad.jsonl", "empty"});
    with_corpus("not json\n", 3, {"corpus/bad.jsonl", "1"});
    with_corpus("{\"id\":\"a\",\"text\":\"good\"}\n{\"id\":\"b\",\"text\":\"bad \xff\xfe\"}\n", 3,
                {"corpus/bad.jsonl", "2", "UTF-8"});
    with_corpus("{\"id\":\"a\",\"text\":\"too short\"}\n", 3, {"code"});
  }

  TEST_CASE("a result that was changed behind the run's back is refused, naming the file [14, 44]") {
    const Scratch scratch("tampered");
    write_tiny_run(scratch.path);
    REQUIRE(run(scratch.path, {"run", "tiny.toml"}).code == 0);
    const fs::path root = scratch.path / "runs/tiny";
    const auto flip_and_run = [&](const fs::path& file, const std::vector<std::string>& command) {
      const std::string good = slurp(file);
      std::string bytes = good;
      bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 4);
      spill(file, bytes);
      const Outcome outcome = run(scratch.path, command);
      INFO(file << ": " << outcome.err);
      CHECK(outcome.code == 3);
      CHECK(outcome.err.find(file.filename().string()) != std::string::npos);
      spill(file, good);
    };
    flip_and_run(root / "masks/masks.h5", {"run", "tiny.toml"});
    flip_and_run(root / "core/manifest.json", {"run", "tiny.toml"});
    flip_and_run(root / "pruned/prune_plan.json", {"inspect", "runs/tiny/pruned/prune_plan.json"});
    flip_and_run(root / "long/model/part-00000.h5", {"generate", "runs/tiny/long", "--prompt", "x"});
    fs::remove_all(root / "core");
    flip_and_run(root / "labels/labels/code/shard-00000.h5", {"run", "tiny.toml"});
    flip_and_run(root / "data/tokens/code/shard-00000.h5", {"run", "tiny.toml"});
    CHECK(run(scratch.path, {"run", "tiny.toml"}).code == 0);
  }
}
