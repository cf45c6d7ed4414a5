// What stages will ask of the tokens is known once these are there, and refused before the first stage.
#include <doctest/doctest.h>

#include "tests/recipes/program.h"

using namespace coppice::test;

namespace {

void replace(const fs::path& file, const std::string& before, const std::string& after) {
  std::string text = slurp(file);
  const size_t place = text.find(before);
  REQUIRE(place != std::string::npos);
  spill(file, text.replace(place, before.size(), after));
}

}  // namespace

TEST_SUITE("faults") {
  TEST_CASE("tokens that a later stage cannot work with are refused before the first one [45]") {
    const Scratch scratch("windows");
    write_run(scratch.path, "small.toml");
    const fs::path recipe = scratch.path / "small.toml";
    const auto refused = [&](int code, const std::vector<std::string>& words,
                             const std::vector<std::string>& set = {}) {
      std::vector<std::string> command = {"run", "small.toml"};
      for (const std::string& text : set) command.insert(command.end(), {"--set", text});
      const Outcome outcome = run(scratch.path, command);
      INFO(outcome.err);
      CHECK(outcome.code == code);
      for (const std::string& word : words) CHECK(outcome.err.find(word) != std::string::npos);
      CHECK(!fs::exists(scratch.path / "runs/small/dense"));
    };
    refused(2, {"small.toml:", "'scores'", "30000 tokens"}, {"scores.seq_len=30000"});
    fs::remove_all(scratch.path / "runs");
    refused(2, {"small.toml:", "'scores': no tuning text has a window of 30000 tokens", "data.tuning_share"},
            {"scores.seq_len=30000", "data.tuning_share=0.1", "scores.split=\"tuning\""});
    fs::remove_all(scratch.path / "runs");
    const Outcome one_domain =
        run(scratch.path, {"run", "small.toml", "--set", "scores.seq_len=4096", "--set", "dense.tokens=1024"});
    INFO(one_domain.err);  // prose has 2.3k tokens held out, code 15k
    CHECK(one_domain.code == 0);
    CHECK(one_domain.err.find("no held-out window of 4096 tokens in 'prose': not evaluated") != std::string::npos);
    fs::remove_all(scratch.path / "runs");

    replace(recipe, "weight = 1\n", "weight = 1\nmax_epochs = 0.05\n");
    refused(2, {"small.toml:", "'dense'", "max_epochs", "of 8192 tokens"});
    replace(recipe, "max_epochs = 0.05\n", "");
    fs::remove_all(scratch.path / "runs");

    std::string few;  // enough for windows of 64 tokens, too little for calibration's 256
    for (int i = 0; i < 2; ++i)
      few += "{\"id\":\"d" + std::to_string(i) +
             "\",\"text\":\"int main() { return 0; } // a program of one line, twice\"}\n";
    spill(scratch.path / "corpus/code.jsonl", few);
    refused(3, {"'pruned' (calibration)", "code", "256 tokens"});
  }
}
