// What a later stage could not do is refused by config, plan and run, with the stage's name and before anything is
// made; what is not there yet stops the run alone.
#include "tests/recipes/given_model.h"  // before any CHECK

#include <doctest/doctest.h>

#include <cstring>
#include <limits>

using namespace coppice::test;

namespace {

constexpr const char* kDense =
    "[[stage]]\nname = \"dense\"\nkind = \"train\"\nmodel = \"source\"\ntokens = 256\nseq_len = 64\nbatch_tokens = "
    "128\n";
constexpr const char* kScores =
    "[[stage]]\nname = \"scores\"\nkind = \"evaluate\"\nof = [\"dense\"]\nseq_len = 64\ntasks = "
    "[\"tasks/judged.jsonl\"]\n";
constexpr const char* kRelease = "[[stage]]\nname = \"release\"\nkind = \"export\"\nfrom = \"dense\"\n";
constexpr const char* kImport = "[[stage]]\nname = \"given\"\nkind = \"import\"\npath = \"hf\"\n";

/// Each of them refuses `recipe` with `code` and these words; no stage has begun.
void check_refused(const GivenModel& given, const std::string& recipe, int code, const std::vector<std::string>& words,
                   const std::vector<std::string>& verbs = {"config", "run"}) {
  const fs::path& folder = given.scratch.path;
  spill(folder / "r.toml", recipe);
  for (const std::string& verb : verbs) {
    const Outcome outcome = run(folder, {verb, "r.toml"});
    INFO(verb << ": " << outcome.err);
    CHECK(outcome.code == code);
    for (const std::string& word : words) CHECK(outcome.err.find(word) != std::string::npos);
  }
  CHECK_FALSE(fs::exists(folder / "runs/chain/dense"));
  fs::remove_all(folder / "runs");
}

/// Another text of the same length in a file.
void exchange(const fs::path& file, const std::string& from, const std::string& to) {
  std::string bytes = slurp(file);
  REQUIRE(bytes.find(from) != std::string::npos);
  REQUIRE(from.size() == to.size());
  bytes.replace(bytes.find(from), from.size(), to);
  spill(file, bytes);
}

/// A tokenizer model in which a piece of two letters is "<s", so that "<s>" splits into two pieces.
std::string with_split_control_piece(const fs::path& file) {
  std::string bytes = slurp(file);
  const coppice::Tokenizer tokenizer = coppice::Tokenizer::load(file);
  for (const coppice::Piece& piece : tokenizer.pieces()) {
    if (piece.text.size() != 2 || piece.type != coppice::PieceType::normal ||
        static_cast<unsigned char>(piece.text[0]) >= 0x80)
      continue;
    bytes.replace(bytes.find("\x0a\x02" + piece.text), 4, "\x0a\x02<s");
    return bytes;
  }
  return {};
}

}  // namespace

TEST_SUITE("recipe") {
  TEST_CASE("before work: tasks") {
    const GivenModel given("before_tasks");
    const std::string recipe = given.recipe(std::string(kDense) + kScores);
    const fs::path tasks = given.scratch.path / "tasks/judged.jsonl";
    check_refused(given, recipe, 3, {"stage 'scores'", "tasks/judged.jsonl: no such task file"}, {"run"});
    spill(given.scratch.path / "r.toml", recipe);
    for (const char* verb : {"config", "plan"})
      CHECK(run(given.scratch.path, {verb, "r.toml"}).code == 0);  // `data tasks` may come later
    spill(tasks, "{\"context\": \"a\", \"choices\": [\"b\", \"c\"], \"answer\": 2}\n");
    check_refused(given, recipe, 3, {"stage 'scores'", "judged.jsonl:1: answer: got 2"}, {"config", "plan", "run"});
    spill(tasks,
          nlohmann::json({{"context", "a"}, {"choices", {"b", std::string(40000, 'c')}}, {"answer", 0}}).dump() + "\n");
    check_refused(
        given, recipe, 3,
        {"stage 'scores'", "judged.jsonl:1: choices[1]: is", "positions"});  // the tokenizer is given, so this is known
    spill(
        tasks,
        "{\"context\": \"a\", \"choices\": [\"b\", \"c\"], \"answer\": 1, \"documents\": [\"x0\", \"x1\", \"x2\"]}\n");
    check_refused(given, recipe, 3, {"stage 'scores'", "which this recipe trains on"});
    const std::string ablation =
        "seeds = [1, 2]\n" +
        given.recipe(std::string(kDense) + kScores + "[[arm]]\nname = \"plain\"\n[[arm]]\nname = \"other\"\n");
    check_refused(given, ablation, 3, {"arm 'plain': stage 'scores'", "which this recipe trains on"},
                  {"config", "plan", "ablate"});
  }

  TEST_CASE("before work: a given tokenizer that an export cannot write") {
    const GivenModel given("before_tokenizer");
    const std::string recipe = given.recipe(std::string(kDense) + kRelease);
    const std::string split = with_split_control_piece(given.scratch.path / "hf/tokenizer.model");
    REQUIRE_FALSE(split.empty());
    const std::string whole = slurp(given.scratch.path / "hf/tokenizer.model");
    spill(given.scratch.path / "hf/tokenizer.model", split);
    check_refused(given, recipe, 2, {"stage 'release'", "'<s>' splits into the pieces '<s' and '>'"});
    spill(given.scratch.path / "hf/tokenizer.model", whole);
    std::string other_size = recipe;
    other_size.replace(other_size.find("vocab_size = 384"), 16, "vocab_size = 400");
    check_refused(given, other_size, 2, {"tokenizer.vocab_size: got 400", "holds 384 pieces", "set vocab_size = 384"});
  }

  TEST_CASE("before work: an imported folder, its headers by config and its values before anything is trained") {
    const GivenModel given("before_import");
    const std::string recipe = given.recipe(std::string(kDense) + kImport);  // the import comes last
    const fs::path weights = given.scratch.path / "hf/model.safetensors";
    const std::string whole = slurp(weights);
    exchange(weights, "model.layers.1.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.height");
    check_refused(given, recipe, 3, {"stage 'given'", "model.layers.1.mlp.up_proj.weight is missing"});
    spill(weights, whole);
    exchange(weights, "\"F32\"", "\"I32\"");
    check_refused(given, recipe, 3, {"stage 'given'", "is I32, only F32, BF16 and F16 are read"});
    spill(weights, whole.substr(0, whole.size() - 64));
    check_refused(given, recipe, 3, {"stage 'given'", "model.safetensors"});
    std::string not_finite = whole;
    const float value = std::numeric_limits<float>::quiet_NaN();
    std::memcpy(not_finite.data() + not_finite.size() - sizeof value, &value, sizeof value);
    spill(weights, not_finite);
    check_refused(given, recipe, 3, {"holds values that are not finite"}, {"run"});
  }

  TEST_CASE("before work: labels from elsewhere") {
    const GivenModel given("before_labels");
    const std::string taught =
        "[[stage]]\nname = \"taught\"\nkind = \"train\"\nmodel = \"source\"\nlabels = \"labels\"\ntokens = "
        "256\nseq_len = 64\nbatch_tokens = 128\n";
    const std::string labels = "[[stage]]\nname = \"labels\"\nkind = \"label\"\n";
    const fs::path folder = given.scratch.path;
    spill(folder / "make.toml", given.recipe(std::string(kDense) + labels + "teacher = \"dense\"\ncontext = 64\n"));
    const Outcome made = run(folder, {"run", "make.toml", "--out", "made"});
    INFO(made.err);
    REQUIRE(made.code == 0);
    REQUIRE(run(folder, {"labels", "export", "given/prose.jsonl", "--tokens", "made/data/tokens/prose", "--cache",
                         "made/labels/labels/prose"})
                .code == 0);
    for (const char* from : {"import = \"given\"\n", "cache = \"made/labels/labels\"\n"}) {
      const std::string stage = kDense + labels + from;
      check_refused(given, given.recipe(stage + "tier = \"topk\"\n" + taught), 3,
                    {"stage 'labels'", "another tier: found top1, expected topk"});
      check_refused(given, given.recipe(stage + "tier = \"top1_prob\"\n" + taught), 3,
                    {"stage 'labels'", "another tier: found top1, expected top1_prob"});
    }
    // half of the labels: found when they are read, before `dense` is trained
    const std::string lines = slurp(folder / "given/prose.jsonl");
    const size_t half = lines.find('\n', lines.size() / 2);
    spill(folder / "given/prose.jsonl", lines.substr(0, half + 1));
    std::string all = taught;
    all.replace(all.find("tokens = 256"), 12, "tokens = 65536");
    check_refused(given, given.recipe(kDense + labels + "import = \"given\"\ncoverage = \"used\"\n" + all), 3,
                  {"no labels for tokens", "of stage 'taught' draws"}, {"run"});
  }

  TEST_CASE("before work: masks that were learned under one budget are cut for the widths they were learned for") {
    const GivenModel given("before_masks");
    const std::string masks = std::string(kDense) +
                              "[[stage]]\nname = \"masks\"\nkind = \"learn_masks\"\nfrom = \"dense\"\ntarget = "
                              "\"cut_1\"\nbudget = \"global\"\n" +
                              "round_to = 1\ntokens = 256\nseq_len = 64\nbatch_tokens = 128\n[[stage]]\nname = "
                              "\"pruned\"\nkind = \"prune\"\nfrom = \"masks\"\n";
    check_refused(given, given.recipe(masks + "target = \"cut_2\"\n"), 2,
                  {"stage 'pruned'", "give this stage target = \"cut_1\""});
  }
}
