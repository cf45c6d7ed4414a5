// Data of a recipe on the real program: stopped, killed and with other thread counts it comes out the same.
#include "recipes/stages/prepare_data.h"
#include "recipes/language/sources.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "src/base/errors.h"
#include "src/tokens/token_shards.h"
#include "tests/recipes/program.h"
#include "tests/recipes/same_results.h"

using namespace coppice::test;

namespace {

/// tokenizer and shards: relative path -> bytes.
std::map<std::string, std::string> data_of(const fs::path& run) {
  std::map<std::string, std::string> data;
  for (const auto& entry : fs::recursive_directory_iterator(run / "data"))
    if (entry.is_regular_file()) data[fs::relative(entry.path(), run).string()] = slurp(entry.path());
  return data;
}

coppice::Recipe recipe_of(const std::vector<coppice::DomainOptions>& domains) {
  coppice::Recipe recipe;
  recipe.sources = std::make_shared<coppice::Sources>();
  recipe.data.domains = domains;
  recipe.data.heldout_share = 0.3;
  return recipe;
}

std::vector<std::string> lines_of(const fs::path& file) {
  std::vector<std::string> lines;
  std::istringstream text(slurp(file));
  for (std::string line; std::getline(text, line);) lines.push_back(line);
  return lines;
}

/// The corpus of tiny.toml with records that are no documents between the others.
void write_bad_records(const fs::path& corpus) {
  std::string text = "{\"text\": \"torn\n";
  size_t number = 0;
  for (const std::string& line : lines_of(corpus)) {
    text += line + "\n";
    if (++number % 5 == 0) text += number % 2 == 0 ? "{\"text\": null}\n" : "{\"text\": \"caf\xE9\"}\n";
  }
  spill(corpus, text);
}

/// Hashes of the ids of all documents in one folder of shards.
std::set<uint64_t> documents_in(const fs::path& folder) {
  std::set<uint64_t> ids;
  const coppice::TokenShards shards(folder);
  for (size_t shard = 0; shard < shards.shards().size(); ++shard)
    ids.insert(shards.document_ids(shard).begin(), shards.document_ids(shard).end());
  return ids;
}

const std::vector<std::string> kTokenize = {"data", "tokenize", "tiny.toml", "--set", "data.shard_tokens=20000"};

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE(
      "data identity: text_key decides what the text is; at its default, and whatever max_bad is, nothing is said of "
      "either") {
    const Scratch scratch("data_identity");
    spill(scratch.path / "a.jsonl", "{\"text\": \"one\", \"body\": \"two\"}\n");
    coppice::Recipe recipe = recipe_of({{.name = "a", .path = (scratch.path / "a.jsonl").string()}});
    const coppice::Json plain = coppice::data_identity(recipe);
    CHECK(plain.at("domains").at(0).size() == 2);  // name, sha256: as runs before these options have it
    recipe.data.max_bad = 7;
    CHECK(coppice::data_identity(recipe) == plain);
    recipe.data.tuning_share = 0.2;
    CHECK(coppice::data_identity(recipe).at("tuning_share") == 0.2);
    recipe.data.tuning_share = 0;
    recipe.data.domains[0].text_key = "body";
    CHECK(coppice::data_identity(recipe) != plain);
  }
}

TEST_SUITE("recipe") {
  TEST_CASE("tuning split: whole documents out of the training part alone; held out are the same as without it") {
    const Scratch without("tuning_without"), with("tuning_with");
    for (const Scratch* scratch : {&without, &with}) write_tiny_run(scratch->path);
    std::vector<std::string> tunes = kTokenize;
    tunes.insert(tunes.end(), {"--set", "data.tuning_share=0.1"});
    const Outcome plain = run(without.path, kTokenize), outcome = run(with.path, tunes);
    INFO(outcome.err);
    REQUIRE(plain.code == 0);
    REQUIRE(outcome.code == 0);
    CHECK(plain.out.find("for tuning") == std::string::npos);
    CHECK_FALSE(fs::exists(without.path / "runs/tiny/data/tuning"));
    for (const char* domain : {"prose", "code"}) {
      CAPTURE(domain);
      const auto documents = [&](const Scratch& scratch, const char* split) {
        return documents_in(scratch.path / "runs/tiny/data" / split / domain);
      };
      const std::set<uint64_t> tuning = documents(with, "tuning");
      std::set<uint64_t> rest = documents(with, "tokens");
      CHECK(documents(with, "heldout") == documents(without, "heldout"));
      CHECK(tuning.size() >= 3);
      const size_t trained = rest.size();
      rest.insert(tuning.begin(), tuning.end());
      CHECK(rest.size() == trained + tuning.size());
      CHECK(rest == documents(without, "tokens"));
      const coppice::TokenShards shards(with.path / "runs/tiny/data/tuning" / domain);
      CHECK(outcome.out.find(", " + std::to_string(shards.num_tokens()) + " for tuning\n") != std::string::npos);
    }
    const Outcome none =
        run(without.path, {"data", "tokenize", "tiny.toml", "--out", "runs/none", "--set", "data.tuning_share=0.0001"});
    CHECK(none.code == 2);
    CHECK(none.err.find("data.tuning_share: got 0.0001: no document at all is set aside for tuning") !=
          std::string::npos);
    CHECK(none.err.find("domain 'prose': none of its") != std::string::npos);
  }

  TEST_CASE("tuning split: evaluations and looks while training read it; plan, inspect and report say so") {
    const Scratch scratch("tuning_scores");
    write_run(scratch.path, "small.toml");
    const std::vector<std::string> options = {"--set", "data.tuning_share=0.1",      "--set", "scores.split=\"tuning\"",
                                              "--set", "dense.eval_split=\"tuning\""};
    const auto with = [&](std::vector<std::string> command) {
      command.insert(command.end(), options.begin(), options.end());
      return command;
    };
    const Outcome plan = run(scratch.path, with({"plan", "small.toml"}));
    CHECK(plan.out.find(" to train on, ") != std::string::npos);
    CHECK(plan.out.find(" for tuning\n") != std::string::npos);
    const Outcome held = run(scratch.path, {"run", "small.toml", "--out", "held", "--set", "data.tuning_share=0.1"});
    const Outcome tuned = run(scratch.path, with({"run", "small.toml", "--out", "tuned"}));
    INFO(held.err << tuned.err);
    REQUIRE(held.code == 0);
    REQUIRE(tuned.code == 0);
    const auto json = [&](const char* file) { return nlohmann::json::parse(slurp(scratch.path / file)); };
    // one source, looked at on other text
    CHECK(slurp(scratch.path / "tuned/dense/model/part-00000.h5") ==
          slurp(scratch.path / "held/dense/model/part-00000.h5"));
    CHECK(json("tuned/dense/manifest.json")["results"]["heldout_loss"] !=
          json("held/dense/manifest.json")["results"]["heldout_loss"]);
    CHECK(json("tuned/scores/manifest.json")["split"] == "tuning");
    CHECK_FALSE(json("held/scores/manifest.json").contains("split"));
    for (size_t i = 0; i < 2; ++i) {
      const nlohmann::json of_held = json("held/report.json")["models"][i],
                           of_tuned = json("tuned/report.json")["models"][i];
      CHECK(of_tuned["split"] == "tuning");
      CHECK_FALSE(of_held.contains("split"));
      CHECK(of_tuned["loss"] != of_held["loss"]);
      CHECK(std::abs(of_tuned["loss"].get<double>() - of_held["loss"].get<double>()) < 0.5);  // the same kind of text
    }
    CHECK(json("tuned/report.json")["verdict"].get<std::string>().find("scored on the tuning text") !=
          std::string::npos);
    const std::string shown = run(scratch.path, {"inspect", "tuned"}).out;
    const std::string tokens =
        std::to_string(coppice::TokenShards(scratch.path / "tuned/data/tuning/prose").num_tokens() +
                       coppice::TokenShards(scratch.path / "tuned/data/tuning/code").num_tokens());
    CHECK(shown.find(", 2 for tuning (" + tokens + " tokens)\n") != std::string::npos);
    // items of held-out documents are none to choose by
    REQUIRE(run(scratch.path, {"data", "tasks", "small.toml", "--output", "made"}).code == 0);
    const Outcome tasks =
        run(scratch.path, with({"run", "small.toml", "--out", "more", "--set", "scores.tasks=\"made/word.jsonl\""}));
    CHECK(tasks.code == 3);
    CHECK(tasks.err.find("which this recipe holds out") != std::string::npos);
    CHECK(tasks.err.find("the stage scores on tuning text; leave it to a stage that scores on held-out text") !=
          std::string::npos);
  }
}

TEST_SUITE("faults") {
  TEST_CASE(
      "tokenizing: killed behind a shard and stopped, it goes on there; one thread or two, the bytes are the same") {
    const Scratch straight("tokens_straight"), killed("tokens_killed");
    write_tiny_run(straight.path);
    write_tiny_run(killed.path);
    std::vector<std::string> two_threads = kTokenize;
    two_threads.insert(two_threads.end(), {"--set", "threads=2", "--set", "data.tuning_share=0.1"});
    const Outcome undisturbed = run(straight.path, two_threads);
    INFO(undisturbed.err);
    REQUIRE(undisturbed.code == 0);
    const auto expected = data_of(straight.path / "runs/tiny");
    REQUIRE(expected.contains("data/tokens/code/shard-00002.h5"));
    REQUIRE(expected.contains("data/tuning/prose/shard-00000.h5"));

#ifdef COPPICE_WITH_FAILPOINTS
    std::vector<std::string> one_thread = kTokenize;
    one_thread.insert(one_thread.end(), {"--set", "threads=1", "--set", "data.tuning_share=0.1"});
    const fs::path first = killed.path / "runs/tiny/data/tokens/prose/shard-00000.h5";
    CHECK(run(killed.path, one_thread, [] { setenv("COPPICE_FAILPOINTS", "tokens.after_shard=abort@1", 1); }).signal ==
          SIGKILL);
    REQUIRE(fs::exists(first));
    const auto written = fs::last_write_time(first);
    for (int i = 0; i < 2; ++i)
      CHECK(run(killed.path, one_thread, [] {
              setenv("COPPICE_FAILPOINTS", "tokens.after_shard=abort@1", 1);
            }).signal == SIGKILL);
    const Outcome resumed = run(killed.path, one_thread);
    INFO(resumed.err);
    CHECK(resumed.code == 0);
    CHECK((fs::last_write_time(first) == written));
    check_same(data_of(killed.path / "runs/tiny"), expected);
#endif
  }

  TEST_CASE(
      "tokenizing: bad records are left out and named; the shards are those of the corpus without them; beyond max_bad "
      "it is refused first") {
    const Scratch clean("tokens_clean"), bad("tokens_bad"), killed("tokens_bad_killed");
    for (const Scratch* scratch : {&clean, &bad, &killed}) write_tiny_run(scratch->path);
    for (const Scratch* scratch : {&bad, &killed}) write_bad_records(scratch->path / "corpus/prose.jsonl");
    REQUIRE(run(clean.path, kTokenize).code == 0);

    std::vector<std::string> strict = kTokenize;
    strict.insert(strict.end(), {"--set", "data.max_bad=3"});
    const Outcome refused = run(bad.path, strict);
    INFO(refused.err);
    CHECK(refused.code == 3);
    CHECK(refused.err.find("prose.jsonl:1: record 1: ") != std::string::npos);
    CHECK(refused.err.find("data.max_bad") != std::string::npos);
    CHECK_FALSE(fs::exists(bad.path / "runs/tiny/data/tokenizer/tokenizer.model"));  // before any work

    const Outcome outcome = run(bad.path, kTokenize);
    INFO(outcome.err);
    REQUIRE(outcome.code == 0);
    const std::string told = "prose.jsonl:1: record 1: ";
    const size_t first = outcome.err.find(told);
    REQUIRE(first != std::string::npos);
    CHECK(outcome.err.find(told, first + 1) == std::string::npos);  // once, though it is read twice
    CHECK(outcome.err.find("no documents and were left out; the first 10 are shown") != std::string::npos);
    const auto expected = data_of(clean.path / "runs/tiny"), got = data_of(bad.path / "runs/tiny");
    for (const auto& [name, bytes] : expected) {
      if (!name.starts_with("data/tokens") && !name.starts_with("data/heldout") && !name.starts_with("data/tokenizer"))
        continue;
      INFO(name);
      REQUIRE(got.contains(name));
      CHECK((got.at(name) == bytes));
    }
    const coppice::Json record =
        coppice::read_sealed(bad.path / "runs/tiny/data/corpus/prose.json", "coppice.corpus", 1);
    const size_t lines = lines_of(clean.path / "corpus/prose.jsonl").size();
    CHECK(record.at("documents") == lines);
    CHECK(record.at("bad_records") == 1 + lines / 5);
    CHECK(run(bad.path, kTokenize).err.find(told) == std::string::npos);  // nothing left to do

#ifdef COPPICE_WITH_FAILPOINTS
    for (int i = 0; i < 2; ++i)
      CHECK(run(killed.path, kTokenize, [] { setenv("COPPICE_FAILPOINTS", "tokens.after_shard=abort@1", 1); }).signal ==
            SIGKILL);
    CHECK(run(killed.path, kTokenize).code == 0);
    check_same(data_of(killed.path / "runs/tiny"), got);
#endif
  }

  TEST_CASE("tokenizing: a domain that is tokenized needs its corpus no more, whatever the others still need") {
    const Scratch scratch("tokens_gone");
    write_tiny_run(scratch.path);
    const fs::path data = scratch.path / "runs/tiny/data";
    REQUIRE(run(scratch.path, kTokenize).code == 0);
    const auto expected = data_of(scratch.path / "runs/tiny");
    fs::remove(data / "tokens/code/manifest.json");
    fs::remove(scratch.path / "corpus/prose.jsonl");
    const Outcome outcome = run(scratch.path, kTokenize);
    INFO(outcome.err);
    CHECK(outcome.code == 0);
    CHECK(outcome.err.find("prose.jsonl is gone, so its held-out texts are not looked for") != std::string::npos);
    check_same(data_of(scratch.path / "runs/tiny"), expected);
  }

  TEST_CASE("tokenizing: held-out texts that are trained on under other ids are counted and said") {
    const Scratch scratch("tokens_repeated");
    write_tiny_run(scratch.path);
    const fs::path prose = scratch.path / "corpus/prose.jsonl", code = scratch.path / "corpus/code.jsonl";
    std::string copies;
    size_t held = 0;
    for (const std::string& line : lines_of(prose)) {
      nlohmann::json document = nlohmann::json::parse(line);
      if (!coppice::is_heldout(document["id"].get<std::string>(), 0.08)) continue;
      for (int copy = 0; document["id"] = "copy " + std::to_string(held) + " " + std::to_string(copy),
               coppice::is_heldout(document["id"].get<std::string>(), 0.08);)
        ++copy;
      ++held;
      copies += document.dump() + "\n";
    }
    REQUIRE(held > 0);
    spill(prose, slurp(prose) + copies);
    spill(code, slurp(code) + copies.substr(0, copies.find('\n') + 1));
    const Outcome outcome = run(scratch.path, kTokenize);
    INFO(outcome.err);
    REQUIRE(outcome.code == 0);
    const std::string all = std::to_string(held);
    CHECK(outcome.err.find("domain 'prose': " + all + " of " + all +
                           " held-out texts (100.00%) stand word for word in its training part too") !=
          std::string::npos);
    CHECK(outcome.err.find("domain 'prose': 1 of " + all + " held-out texts") != std::string::npos);
  }

#ifdef COPPICE_WITH_FAILPOINTS
  TEST_CASE("tokenizer training: a stop ends it at once with exit 75, and the next run starts it over") {
    const Scratch scratch("trainer_stopped");
    write_tiny_run(scratch.path);
    Process process =
        start(scratch.path, kTokenize, [] { setenv("COPPICE_FAILPOINTS", "tokenizer.train=sleep:600", 1); });
    while (!process.poll() && slurp(process.err).find("training the tokenizer") == std::string::npos)
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    process.send(SIGTERM);  // the grace time would end it with 128 + 15
    const Outcome& outcome = process.wait();
    INFO(outcome.err);
    CHECK(outcome.code == 75);
    CHECK(outcome.err.find("run again") != std::string::npos);
    CHECK(run(scratch.path, kTokenize).code == 0);
  }
#endif
}
