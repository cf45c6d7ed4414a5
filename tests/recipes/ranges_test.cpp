// Numbers and names that no stage could work with: refused when the recipe is read, with file:line, key, what came and
// what was expected.
#include <doctest/doctest.h>

#include "recipes/language/recipe.h"
#include "src/base/errors.h"
#include "tests/recipes/program.h"

using namespace coppice;
using namespace coppice::test;

namespace {

const std::string kSmall = slurp(fs::path(COPPICE_SOURCE_DIR) / "tests/recipes/small.toml");

/// What small.toml is refused with; empty when it is not.
std::string refusal(const std::string& text, const std::vector<Override>& overrides = {}) {
  const Scratch scratch("ranges");
  spill(scratch.path / "small.toml", text);
  try {
    load_recipe((scratch.path / "small.toml").string(), overrides, {});
  } catch (const UserError& error) {
    CHECK(error.code() == ExitCode::recipe);
    return error.what();
  }
  return "";
}

std::string replaced(const std::string& before, const std::string& after) {
  std::string text = kSmall;
  const size_t place = text.find(before);
  REQUIRE(place != std::string::npos);
  return text.replace(place, before.size(), after);
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("ranges: a number outside is refused with its key and what was expected") {
    REQUIRE(refusal(kSmall).empty());
    std::string weightless = replaced("path = \"corpus/prose.jsonl\"\n", "path = \"corpus/prose.jsonl\"\nweight = 0\n");
    REQUIRE(refusal(weightless).empty());  // `dense` has a mixture of its own
    weightless.insert(weightless.find("path = \"corpus/code.jsonl\"\n"), "weight = 0\n");
    CHECK(refusal(weightless)
              .find("pruned: calibration text is drawn by the weights of [[data.domain]], and all of them are 0") !=
          std::string::npos);
    const struct {
      const char *path, *value, *words;
    } cases[] = {
        {"grace_s", "-1", "grace_s: got -1, expected 0 to 86400"},
        {"dense.max_grad_norm", "0", "max_grad_norm: got 0, expected above 0"},
        {"dense.drop_grad_norm", "nan", "drop_grad_norm: got nan, expected above 0"},
        {"dense.weight_decay", "1", "weight_decay: got 1, expected at least 0 and below 1"},
        {"dense.final_lr_ratio", "1.5", "final_lr_ratio: got 1.5, expected 0 to 1"},
        {"dense.max_skipped_steps", "-1", "max_skipped_steps: got -1, expected 0 or more"},
        {"dense.recompute", "\"gate-up\"",
         "recompute: got 'gate-up', expected one of: auto, none, elementwise, gate_up, layer"},
        {"dense.warmup_steps", "-2", "warmup_steps: got -2, expected 0 or more, or -1"},
        {"dense.tokens", "4611686018427387903", "tokens: got 4611686018427387903, expected 1 to"},
        {"dense.tokens", "1e15", "steps, expected below 10^8"},
        {"dense.rope_theta", "inf", "rope_theta: got inf"},
        {"dense.kd_temperature", "1e-40", "kd_temperature: got 1e-40, expected 0.01 to 100"},
        {"dense.kd_temperature", "150.5", "kd_temperature: got 150.5, expected 0.01 to 100"},
        {"dense.kd_temperature", "nan", "kd_temperature: got nan, expected 0.01 to 100"},
        {"pruned.calibration_tokens", "4611686018427387904",
         "calibration_tokens: got 4611686018427387904, expected 1 to 10^8"},
        {"pruned.refit_damping", "0", "refit_damping: got 0, expected 1e-8 to 1"},
        {"pruned.refit_damping", "nan", "refit_damping: got nan, expected 1e-8 to 1"},
        {"pruned.refit_damping", "1.5", "refit_damping: got 1.5, expected 1e-8 to 1"},
        {"scores.speed_tokens", "1", "speed_tokens: got 1, expected 0 (not measured) or 2 to 65536"},
        {"scores.speed_tokens", "-1", "speed_tokens: got -1, expected 0"},
        {"scores.speed_tokens", "4611686018427387904", "speed_tokens: got 4611686018427387904, expected 0"},
        {"scores.speed_tokens", "65536",
         "scores: speed_tokens: got 65536, but the model of stage 'dense' has 4096 positions, for prompt and new "
         "tokens; "
         "expected at most 2048"},
        {"data.tuning_share", "0.5", "tuning_share: got 0.5, expected 0 (none) or more, below 0.5"},
        {"data.tuning_share", "-0.1", "tuning_share: got -0.1, expected 0"},
        {"data.tuning_share", "nan", "tuning_share: got nan, expected 0"},
        {"scores.split", "\"tuning\"", "split: \"tuning\" needs documents set aside for it; give data.tuning_share"},
        {"scores.split", "\"held\"", "split: got 'held', expected one of: heldout, tuning; did you mean 'heldout'?"},
        {"dense.eval_split", "\"tuning\"", "eval_split: \"tuning\" needs documents set aside for it"},
        {"dense.master", "\"whole\"", "master: got 'whole', expected one of: auto, fp32, split"},
        {"release.formats", "[]", "formats: expected at least one"},
    };
    for (const auto& [path, value, words] : cases) {
      const std::string text = refusal(kSmall, {{path, value, ""}});
      INFO(path << " = " << value << ": " << text);
      CHECK(text.find(words) != std::string::npos);
    }
    CHECK(refusal(kSmall, {{"dense.keep_last", "2147483647", ""}}).empty());
    const auto labels_at = [](const std::string& temperature) {
      return refusal(kSmall +
                     "\n[[stage]]\nname = \"labels\"\nkind = \"label\"\nteacher = \"dense\"\ntier = "
                     "\"sample\"\ntemperature = " +
                     temperature + "\n");
    };
    for (const char* outside : {"0.0", "1e-40", "0.009", "101.0", "inf", "nan"})
      CHECK_MESSAGE(labels_at(outside).find(", expected 0.01 to 100") != std::string::npos, outside);
    for (const char* inside : {"0.01", "1.0", "100.0"}) CHECK(labels_at(inside).empty());
  }

  TEST_CASE(
      "ranges: mixtures name a domain once and give it a number of epochs; stages have names that nothing else has") {
    CHECK(refusal(replaced("weight = 1\n", "weight = 1\nmax_epochs = -1\n"))
              .find("max_epochs: got -1, expected 0 (no limit) or more") != std::string::npos);
    CHECK(refusal(replaced("weight = 1\n", "weight = 1\nmax_epochs = nan\n")).find("max_epochs: got nan") !=
          std::string::npos);
    CHECK(refusal(replaced("path = \"corpus/code.jsonl\"\n", "path = \"x\"\nmax_epochs = inf\n"))
              .find("max_epochs: got inf") != std::string::npos);
    const std::string twice =
        refusal(replaced("weight = 1\n", "weight = 1\n\n[[stage.mixture]]\ndomain = \"prose\"\n"));
    CHECK(twice.find("small.toml:") != std::string::npos);
    CHECK(twice.find("'prose' is given twice") != std::string::npos);
    for (const char* name : {"report.md", "report.json", "run.json", "log.txt", "recipe.toml", "data"}) {
      INFO(name);
      CHECK(refusal(replaced("name = \"scores\"", "name = \"" + std::string(name) + "\"")).find("choose another") !=
            std::string::npos);
    }
  }

  TEST_CASE("config: a value tells whether it comes from the file, a preset or another model") {
    const Scratch scratch("origins");
    spill(scratch.path / "small.toml",
          replaced("[model.student]\n",
                   "[model.other]\npreset = \"demo-student\"\nnum_attention_heads = 6\n\n[model.student]\n"));
    const std::string file = (scratch.path / "small.toml").string();
    const std::string text = load_recipe(file, {}, {}).with_origins;
    const auto origin = [&](const std::string& table, const std::string& key) {
      const size_t line = text.find("\n" + key + " = ", text.find("[model." + table + "]"));
      REQUIRE(line != std::string::npos);
      const size_t comment = text.find('#', line);
      return text.substr(comment + 2, text.find('\n', comment) - comment - 2);
    };
    CHECK(origin("source", "hidden_size").find("small.toml:") != std::string::npos);
    CHECK(origin("source", "rope_theta") == "default");
    CHECK(origin("source", "head_dim") == "hidden_size / num_attention_heads");
    CHECK(origin("other", "hidden_size") == "preset demo-student");
    CHECK(origin("other", "num_attention_heads").find("small.toml:") != std::string::npos);
    CHECK(origin("other", "head_dim") == "hidden_size / num_attention_heads");
    CHECK(origin("student", "hidden_size") == "model.source");
    CHECK(origin("student", "intermediate_size").find("small.toml:") != std::string::npos);
  }
}
