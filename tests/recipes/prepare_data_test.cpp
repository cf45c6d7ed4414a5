// Data of a recipe on the real program: stopped, killed and with other thread counts it comes out the same.
#include "recipes/prepare_data.h"

#include <doctest/doctest.h>

#include "src/base/errors.h"
#include "tests/recipes/program.h"

using namespace coppice::test;

namespace {

/// tokenizer and shards: relative path -> bytes.
std::map<std::string, std::string> data_of(const fs::path& run) {
  std::map<std::string, std::string> data;
  for (const auto& entry : fs::recursive_directory_iterator(run / "data"))
    if (entry.is_regular_file()) data[fs::relative(entry.path(), run).string()] = slurp(entry.path());
  return data;
}

void check_same(const std::map<std::string, std::string>& got, const std::map<std::string, std::string>& expected) {
  for (const auto& [name, bytes] : expected) {
    INFO(name);
    REQUIRE(got.contains(name));
    CHECK((got.at(name) == bytes));
  }
  CHECK(got.size() == expected.size());
}

const std::vector<std::string> kTokenize = {"data", "tokenize", "tiny.toml", "--set", "data.shard_tokens=20000"};

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("corpus hash: files that are not read do not count, names and bytes of the others do") {
    const Scratch scratch("corpus_hash");
    const fs::path corpus = scratch.path / "corpus";
    spill(corpus / "a.txt", "one");
    spill(corpus / "sub" / "b.jsonl", "{\"text\": \"two\"}\n");
    const std::string hash = coppice::corpus_sha256(corpus);
    spill(corpus / "README.md", "about this folder");
    CHECK(coppice::corpus_sha256(corpus) == hash);
    fs::rename(corpus / "a.txt", corpus / "c.txt");
    CHECK(coppice::corpus_sha256(corpus) != hash);
    fs::rename(corpus / "c.txt", corpus / "a.txt");
    CHECK(coppice::corpus_sha256(corpus) == hash);
    spill(corpus / "a.txt", "One");
    CHECK(coppice::corpus_sha256(corpus) != hash);

    const auto code_of = [](const fs::path& path) {
      try {
        coppice::corpus_sha256(path);
      } catch (const coppice::Error& error) {
        return static_cast<int>(error.code());
      }
      return 0;
    };
    fs::create_directories(scratch.path / "other");
    spill(scratch.path / "other" / "README.md", "no corpus");
    CHECK(code_of(scratch.path / "other") == 3);
    CHECK(code_of(scratch.path / "absent") == 3);
    fs::create_symlink("loop.txt", corpus / "loop.txt");
    CHECK(code_of(corpus) == 3);
    CHECK(code_of(corpus / "loop.txt") == 3);
  }
}

TEST_SUITE("faults") {
  TEST_CASE("tokenizing: killed behind a shard and stopped, it goes on there; one thread or two, the bytes are the same") {
    const Scratch straight("tokens_straight"), killed("tokens_killed");
    write_tiny_run(straight.path);
    write_tiny_run(killed.path);
    std::vector<std::string> two_threads = kTokenize;
    two_threads.insert(two_threads.end(), {"--set", "threads=2"});
    const Outcome undisturbed = run(straight.path, two_threads);
    INFO(undisturbed.err);
    REQUIRE(undisturbed.code == 0);
    const auto expected = data_of(straight.path / "runs/tiny");
    REQUIRE(expected.contains("data/tokens/code/shard-00002.h5"));

#ifdef COPPICE_WITH_FAILPOINTS
    std::vector<std::string> one_thread = kTokenize;
    one_thread.insert(one_thread.end(), {"--set", "threads=1"});
    const fs::path first = killed.path / "runs/tiny/data/tokens/prose/shard-00000.h5";
    CHECK(run(killed.path, one_thread, [] { setenv("COPPICE_FAILPOINTS", "tokens.after_shard=abort@1", 1); }).signal == SIGKILL);
    REQUIRE(fs::exists(first));
    const auto written = fs::last_write_time(first);
    for (int i = 0; i < 2; ++i) CHECK(run(killed.path, one_thread, [] { setenv("COPPICE_FAILPOINTS", "tokens.after_shard=abort@1", 1); }).signal == SIGKILL);
    const Outcome resumed = run(killed.path, one_thread);
    INFO(resumed.err);
    CHECK(resumed.code == 0);
    CHECK((fs::last_write_time(first) == written));
    check_same(data_of(killed.path / "runs/tiny"), expected);
#endif
  }

#ifdef COPPICE_WITH_FAILPOINTS
  TEST_CASE("tokenizer training: a stop ends it at once with exit 75, and the next run starts it over") {
    const Scratch scratch("trainer_stopped");
    write_tiny_run(scratch.path);
    Process process = start(scratch.path, kTokenize, [] { setenv("COPPICE_FAILPOINTS", "tokenizer.train=sleep:600", 1); });
    while (!process.poll() && slurp(process.err).find("training the tokenizer") == std::string::npos) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    process.send(SIGTERM);  // the grace time would end it with 128 + 15
    const Outcome& outcome = process.wait();
    INFO(outcome.err);
    CHECK(outcome.code == 75);
    CHECK(outcome.err.find("run again") != std::string::npos);
    CHECK(run(scratch.path, kTokenize).code == 0);
  }
#endif
}
