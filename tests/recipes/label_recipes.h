// Recipes that label and distil in a moment, and what they leave.
#pragma once

#include <map>
#include <string>

#include "tests/recipes/label_shards.h"
#include "tests/recipes/program.h"

namespace coppice::test {

/// The tiny recipe's data and models, shards of 4096 tokens, and a source that was trained for a moment; `stages`
/// follow.
inline std::string label_recipe(const std::string& stages) {
  std::string tiny = slurp(fs::path(COPPICE_SOURCE_DIR) / "tests/recipes/tiny.toml");
  tiny.replace(tiny.find("shard_tokens = 65536"), 20, "shard_tokens = 4096");
  return tiny.substr(0, tiny.find("[[stage]]")) +
         "[[stage]]\nname = \"dense\"\nkind = \"train\"\nmodel = \"source\"\ntokens = 10240\nseq_len = "
         "64\nbatch_tokens = 512\n\n" +
         stages;
}

inline std::map<std::string, std::string> files_of(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file() && !entry.path().filename().string().starts_with(".lock-"))
      files[fs::relative(entry.path(), folder).string()] = slurp(entry.path());
  return files;
}

inline std::map<std::string, std::string> weights_of(const fs::path& stage) {
  std::map<std::string, std::string> files = files_of(stage / "model");
  std::erase_if(files, [](const auto& file) { return !file.first.ends_with(".h5"); });
  return files;
}

/// The files of a label stage: the same from another batch, after a kill, joined by a second process, and by two at
/// once.
inline std::map<std::string, std::string> check_same_bytes(const Scratch& scratch, const std::string& label_options) {
  write_corpus(scratch.path / "corpus");
  const auto write = [&](const char* file, const std::string& options) {
    spill(scratch.path / file, label_recipe("[[stage]]\nname = \"labels\"\nkind = \"label\"\n" + options + "\n\n"));
  };
  write("one.toml", label_options);
  write("other.toml", label_options + "\nbatch_tokens = 1024");
  const auto labels_of = [&](const std::string& out) { return files_of(scratch.path / out / "labels/labels"); };
  const Outcome straight = run(scratch.path, {"run", "one.toml", "--out", "runs/straight"});
  INFO(straight.err);
  REQUIRE(straight.code == 0);
  const auto wanted = labels_of("runs/straight");
  REQUIRE(wanted.size() > 12);

  const Outcome other = run(scratch.path, {"run", "other.toml", "--out", "runs/other"});
  CHECK(other.code == 0);
  CHECK(other.err.find("batch_tokens is set and has no effect") != std::string::npos);
  CHECK(labels_of("runs/other") == wanted);

  const Outcome killed = run(scratch.path, {"run", "one.toml", "--out", "runs/killed"},
                             [] { setenv("COPPICE_FAILPOINTS", "label.claimed=abort@5", 1); });
  CHECK(killed.signal == SIGKILL);
  const Outcome joined = run(scratch.path, {"labels", "join", "one.toml", "--stage", "labels", "--out", "runs/killed"});
  INFO(joined.err);
  CHECK(joined.code == 0);
  CHECK(labels_of("runs/killed") == wanted);
  CHECK(run(scratch.path, {"run", "one.toml", "--out", "runs/killed"}).code == 0);
  CHECK(labels_of("runs/killed") == wanted);

  Process first = start(scratch.path, {"run", "one.toml", "--out", "runs/two"},
                        [] { setenv("COPPICE_FAILPOINTS", "label.claimed=sleep:3@3", 1); });
  wait_for([&] { return count_shards(scratch.path / "runs/two/labels") >= 2 || first.poll(); });
  first.send(SIGSTOP);  // until the other has a part
  Process second = start(scratch.path, {"labels", "join", "one.toml", "--stage", "labels", "--out", "runs/two"});
  wait_for([&] { return count_shards(scratch.path / "runs/two/labels") >= 4 || second.poll(); });
  first.send(SIGCONT);
  INFO(second.wait().err);
  CHECK(second.wait().code == 0);
  CHECK(std::stoll(second.outcome.out) >= 2);
  CHECK(first.wait().code == 0);
  CHECK(labels_of("runs/two") == wanted);
  return wanted;
}

/// The teacher's term at the first step.
inline double first_kd(const fs::path& stage) {
  std::istringstream lines(slurp(stage / "metrics.jsonl"));
  std::string line;
  std::getline(lines, line);
  return nlohmann::json::parse(line).at("kd").get<double>();
}

}  // namespace coppice::test
