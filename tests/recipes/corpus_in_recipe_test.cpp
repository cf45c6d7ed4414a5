// A recipe that makes its corpus: [[data.source]] and [[data.step]] before the tokenizer, domains of sources, what a
// source's stages allow, one corpus for all arms of an ablation.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <fstream>

#include "recipes/commands/open_model.h"
#include "recipes/language/recipe.h"
#include "src/base/errors.h"
#include "src/text/documents.h"
#include "tests/recipes/program.h"
#include "tests/recipes/same_results.h"
#include "tests/recipes/score_by_hand.h"

using namespace coppice::test;

namespace {

using Json = nlohmann::json;

/// Two sources, one of them filtered; a domain of one, a domain of both; two stages with mixtures of their own.
const std::string kRecipe = R"toml(name = "small"
device = "cpu"
threads = 1

[data]
memory = "64MB"
heldout_share = 0.08
shard_tokens = 65536

[[data.source]]
name = "prose"
path = "corpus/prose.jsonl"

[[data.source]]
name = "code"
path = "corpus/code.jsonl"
priority = 2

[[data.step]]
kind = "quality"
only = ["prose"]
rules = ["gopher_quality"]
alpha_word_ratio = 0.5

[[data.step]]
kind = "dedup"

[[data.domain]]
name = "alone"
sources = ["prose"]

[[data.domain]]
name = "both"
sources = ["prose", "code"]

[tokenizer]
vocab_size = 384
training_bytes = 60000

[model.source]
hidden_size = 32
num_hidden_layers = 1
num_attention_heads = 2
num_key_value_heads = 1
intermediate_size = 32

[[stage]]
name = "core"
kind = "train"
model = "source"
tokens = 2048
seq_len = 64
batch_tokens = 512

[[stage.mixture]]
domain = "alone"
weight = 1

[[stage]]
name = "long"
kind = "train"
from = "core"
tokens = 1024
seq_len = 64
batch_tokens = 512

[[stage.mixture]]
domain = "both"
weight = 1

[[stage]]
name = "scores"
kind = "evaluate"
of = ["core", "long"]
seq_len = 64
tokens = 1024
)toml";

std::string replaced(std::string text, const std::string& before, const std::string& after) {
  const size_t place = text.find(before);
  REQUIRE(place != std::string::npos);
  return text.replace(place, before.size(), after);
}

/// The line of the file, counted from 1, in which the words stand first.
std::string line_of(const std::string& text, const std::string& words) {
  const size_t place = text.find(words);
  REQUIRE(place != std::string::npos);
  return std::to_string(1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(place), '\n'));
}

void write_recipe(const fs::path& folder, const std::string& text) {
  write_corpus(folder / "corpus");
  spill(folder / "small.toml", text);
}

/// What the recipe is refused with; empty when it is not.
std::string refusal(const std::string& text) {
  const Scratch scratch("corpus_refusal");
  spill(scratch.path / "small.toml", text);
  try {
    coppice::load_recipe((scratch.path / "small.toml").string(), {}, {});
  } catch (const coppice::UserError& error) {
    CHECK(error.code() == coppice::ExitCode::recipe);
    return error.what();
  }
  return "";
}

/// Relative path -> bytes of every file below a corpus; of links to them, of the file.
std::map<std::string, std::string> files_of(const fs::path& corpus) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(corpus))
    if (entry.is_regular_file()) files[entry.path().lexically_relative(corpus).string()] = slurp(entry.path());
  return files;
}

size_t count_of(const std::string& text, const std::string& words) {
  size_t count = 0;
  for (size_t at = text.find(words); at != std::string::npos; at = text.find(words, at + 1)) ++count;
  return count;
}

/// Documents of a source that a finished corpus holds.
uint64_t documents_left(const fs::path& corpus, const std::string& source) {
  const Json report = Json::parse(slurp(corpus / "report.json"));
  for (const Json& row : report.at("sources"))
    if (row.at("source") == source) return row.at("out").at("documents").get<uint64_t>();
  return 0;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("corpus in a recipe: what does not fit together is refused when the recipe is read, with its line") {
    REQUIRE(refusal(kRecipe).empty());
    const std::string domain = "sources = [\"prose\", \"code\"]";
    const struct {
      std::string before, after, words;
    } cases[] = {
        {domain, "sources = [\"prose\", \"cod\"]", "sources: got 'cod', expected one of: prose, code; did you mean"},
        {domain, "sources = [\"code\", \"code\"]", "sources: 'code' is given twice"},
        {domain, "sources = [\"code\"]\npath = \"x\"", "sources: domain 'both' has a path, too; expected one of them"},
        {domain, "sources = []", "domain 'both' has no path"},
        {"kind = \"dedup\"", "kind = \"dedupe\"", "kind: got 'dedupe', expected one of: "},
        {"kind = \"dedup\"", "kind = \"dedup\"\nband = 3", "unknown key 'band'; did you mean 'bands'?"},
        {"kind = \"dedup\"", "kind = \"quality\"", "name: 'quality' is the step of "},
        {"only = [\"prose\"]", "only = [\"pros\"]", "only: no source is named 'pros'; did you mean 'prose'?"},
        {"name = \"code\"\npath", "name = \"prose\"\npath", "name: 'prose' is the source of "},
        {"name = \"code\"\npath", "name = \"a/b\"\npath", "name: got 'a/b', expected a source's name of at most"},
        {"path = \"corpus/code.jsonl\"\n", "", "path: source 'code' names no files"},
        {"priority = 2", "pii = \"yes\"", "pii: got 'yes', expected \"checked elsewhere\" or nothing"},
        {"priority = 2", "public = true", "license: the public source 'code' needs licence, homepage and date"},
        {"priority = 2", "public = true\nlicense = \"MIT\"\nhomepage = \"https://example.org\"\ndate = \"2026-01-31\"",
         "pii: no step looks for personal data in the public source 'code'"},
        {"memory = \"64MB\"", "memory = \"1MB\"", "memory: got '1MB', expected a size from 16MB on such as 4GB"},
        {"memory = \"64MB\"", "values = \"some\"", "values: got 'some', expected all, sample or none"},
        {"memory = \"64MB\"", "max_bad_share = 2", "max_bad_share: got 2, expected a share from 0 to 1"},
        {"memory = \"64MB\"", "doc_timeout_s = -1", "doc_timeout_s: got -1, expected seconds from 0 to 1e6"},
        {"memory = \"64MB\"", "corpus_folder = \"\"", "corpus_folder: is empty; expected a folder"},
        {"priority = 2", "stages = [\"core\"]",
         "mixture: stage 'long' draws from domain 'both', which holds the source 'code', allowed in core alone"},
    };
    for (const auto& [before, after, words] : cases) {
      const std::string text = refusal(replaced(kRecipe, before, after));
      INFO(after << ": " << text);
      CHECK(text.find("small.toml:") != std::string::npos);
      CHECK(text.find(words) != std::string::npos);
    }

    const size_t sources = kRecipe.find("[[data.source]]"), steps = kRecipe.find("[[data.step]]"),
                 domains = kRecipe.find("[[data.domain]]");
    const std::string no_sources = refusal(kRecipe.substr(0, sources) + kRecipe.substr(steps));
    CHECK(no_sources.find("source: got none, expected [[data.source]] with name and path") != std::string::npos);
    const std::string no_corpus = refusal(kRecipe.substr(0, sources) + kRecipe.substr(domains));
    CHECK(no_corpus.find("sources: the recipe has no [[data.source]]") != std::string::npos);
  }

  TEST_CASE("corpus in a recipe: a source's stages hold for what draws from it, and for nothing else") {
    CHECK(refusal(replaced(kRecipe, "priority = 2", "stages = [\"long\"]")).empty());
    const std::string text = replaced(kRecipe, "priority = 2", "stages = [\"core\", \"other\"]");
    const std::string refused = refusal(text);
    CHECK(refused.find("small.toml:" + line_of(text, "[[stage]]\nname = \"long\"") + ": mixture: ") !=
          std::string::npos);
    CHECK(refused.find("allowed in core, other alone") != std::string::npos);
    const std::string source_line = line_of(text, "[[data.source]]\nname = \"code\"");
    CHECK(refused.find("small.toml:" + source_line + ")") != std::string::npos);
  }
}

TEST_SUITE("recipe") {
  TEST_CASE("corpus in a recipe: made, tokenized and trained on; again it is complete and changes no byte") {
    const Scratch scratch("corpus_in_recipe");
    write_recipe(scratch.path, kRecipe);
    const fs::path corpus = scratch.path / "corpora/small", root = scratch.path / "runs/small";

    const Outcome planned = run(scratch.path, {"plan", "small.toml"});
    CHECK(planned.code == 0);
    CHECK(planned.err.find("domain 'both': the corpus in corpora/small is not made yet") != std::string::npos);
    CHECK(planned.out.find("text of alone, both: not made yet\n") != std::string::npos);
    CHECK(planned.out.find("reads the corpus about") == std::string::npos);
    CHECK_FALSE(fs::exists(corpus));

    const Outcome first = run(scratch.path, {"run", "small.toml"});
    INFO(first.err);
    REQUIRE(first.code == 0);
    const uint64_t prose = documents_left(corpus, "prose"), code = documents_left(corpus, "code");
    CHECK(prose > 20);
    CHECK(prose < 55);  // the filter has taken some
    CHECK(code == 124);
    CHECK(first.err.find("domain 'alone': " + std::to_string(prose) + " documents") != std::string::npos);
    CHECK(first.err.find("domain 'both': " + std::to_string(prose + code) + " documents") != std::string::npos);
    CHECK_FALSE(fs::exists(corpus / "work"));
    CHECK(fs::exists(root / "report.html"));

    const auto before = files_of(corpus), results = results_of(root);
    const Outcome second = run(scratch.path, {"run", "small.toml"});
    INFO(second.err);
    CHECK(second.code == 0);
    CHECK(second.err.find("corpora/small: already complete, " + std::to_string(prose + code) + " documents") !=
          std::string::npos);
    CHECK(second.out.find("already complete") != std::string::npos);
    check_same(files_of(corpus), before);
    check_same(results_of(root), results);

    // By itself, by two tasks, the corpus is the same but for the links of domains, which the run makes.
    auto documents = before;
    std::erase_if(documents, [](const auto& file) { return file.first.starts_with("domains/"); });
    CHECK(documents.size() < before.size());
    const auto task = [&](const char* number) {
      return start(scratch.path, {"data", "run", "small.toml", "--out", "corpora/tasks", "--task", number, "--wait"});
    };
    Process even = task("0/2"), odd = task("1/2");
    CHECK(even.wait().code == 0);
    CHECK(odd.wait().code == 0);
    check_same(files_of(scratch.path / "corpora/tasks"), documents);
  }

  TEST_CASE("corpus in a recipe: data run and run make the same folder, and other settings are refused, not mixed in") {
    const Scratch scratch("corpus_data_run");
    write_recipe(scratch.path, kRecipe);
    const Outcome made = run(scratch.path, {"data", "run", "small.toml"});
    INFO(made.err);
    REQUIRE(made.code == 0);
    const auto before = files_of(scratch.path / "corpora/small");
    const Outcome tokenized = run(scratch.path, {"data", "tokenize", "small.toml"});
    INFO(tokenized.err);
    CHECK(tokenized.code == 0);
    CHECK(tokenized.err.find("corpora/small: already complete") != std::string::npos);
    auto after = files_of(scratch.path / "corpora/small");
    std::erase_if(after, [](const auto& file) { return file.first.starts_with("domains/"); });
    check_same(after, before);

    spill(scratch.path / "small.toml", replaced(kRecipe, "alpha_word_ratio = 0.5", "alpha_word_ratio = 0.4"));
    const Outcome changed = run(scratch.path, {"data", "tokenize", "small.toml"});
    CHECK(changed.code == 3);
    CHECK(changed.err.find("corpora/small/report.json: the corpus was made otherwise: step 1 'quality': "
                           "alpha_word_ratio was 0.5, is 0.4") != std::string::npos);
    CHECK(changed.err.find("choose another folder, or remove this corpus") != std::string::npos);
    const Outcome elsewhere =
        run(scratch.path, {"data", "run", "small.toml", "--set", "data.corpus_folder=\"corpora/looser\""});
    INFO(elsewhere.err);
    CHECK(elsewhere.code == 0);
    CHECK(fs::exists(scratch.path / "corpora/looser/report.json"));

    std::ofstream(scratch.path / "corpus/code.jsonl", std::ios::app) << "{\"text\": \"one line more\"}\n";
    spill(scratch.path / "small.toml", kRecipe);
    const Outcome grown = run(scratch.path, {"data", "run", "small.toml"});
    CHECK(grown.code == 3);
    CHECK(grown.err.find("was made of corpus/code.jsonl with ") != std::string::npos);

    fs::remove_all(scratch.path / "corpus");
    const Outcome gone = run(scratch.path, {"data", "tokenize", "small.toml"});
    INFO(gone.err);
    CHECK(gone.code == 0);
    CHECK(gone.err.find("source 'code': nothing is left at ") != std::string::npos);
    const Outcome set = run(scratch.path, {"data", "run", "small.toml", "--set", "data.step.quality.min_words=40"});
    CHECK(set.code == 3);
    CHECK(set.err.find("step 1 'quality': min_words was 50, is 40") != std::string::npos);
  }

  TEST_CASE("corpus in a recipe: a source of no domain is a warning") {
    const Scratch scratch("corpus_unused");
    write_recipe(scratch.path, replaced(kRecipe, "sources = [\"prose\", \"code\"]", "sources = [\"prose\"]"));
    const Outcome shown = run(scratch.path, {"config", "small.toml"});
    CHECK(shown.code == 0);
    CHECK(shown.err.find("source 'code' is in no [[data.domain]]") != std::string::npos);
    CHECK(shown.err.find("source 'prose' is in no") == std::string::npos);
  }

  TEST_CASE("corpus in a recipe: a mixture that a source's stages forbid is refused before any work by every verb") {
    const Scratch scratch("corpus_stages");
    write_recipe(scratch.path, replaced(kRecipe, "priority = 2", "stages = [\"core\"]"));
    for (const std::vector<std::string>& verb : std::vector<std::vector<std::string>>{
             {"config", "small.toml"}, {"plan", "small.toml"}, {"run", "small.toml"}, {"data", "run", "small.toml"}}) {
      const Outcome refused = run(scratch.path, verb);
      INFO(verb.front() << ": " << refused.err);
      CHECK(refused.code == 2);
      CHECK(refused.err.find("small.toml:") != std::string::npos);
      CHECK(refused.err.find("which holds the source 'code', allowed in core alone") != std::string::npos);
    }
    CHECK_FALSE(fs::exists(scratch.path / "corpora"));
  }

  TEST_CASE("corpus in a recipe: rights of a corpus that was made before go with its documents") {
    const Scratch scratch("corpus_rights");
    write_recipe(scratch.path, replaced(kRecipe, "priority = 2", "stages = [\"long\"]\nlicense = \"MIT\""));
    REQUIRE(run(scratch.path, {"data", "run", "small.toml"}).code == 0);

    // Another recipe reads the documents by their path, and calibrates on them before it trains.
    std::string other = kRecipe;
    const size_t sources = other.find("[[data.source]]"), domains = other.find("[[data.domain]]");
    other.erase(sources, domains - sources);
    other = replaced(other, "memory = \"64MB\"\n", "");
    other = replaced(other, "sources = [\"prose\"]", "path = \"corpora/small/documents/prose\"");
    other = replaced(other, "sources = [\"prose\", \"code\"]", "path = \"corpora/small\"");
    spill(scratch.path / "other.toml", other);
    const Outcome trained = run(scratch.path, {"run", "other.toml"});
    INFO(trained.err);
    REQUIRE(trained.code == 0);
    const Outcome inspected = run(scratch.path, {"inspect", "runs/small/data/tokens/both"});
    CHECK(inspected.out.find("source prose, licence unknown\n") != std::string::npos);
    CHECK(inspected.out.find("source code, licence MIT, for long alone\n") != std::string::npos);
    CHECK(run(scratch.path, {"inspect", "runs/small/data/tokens/alone"}).out.find("source code") == std::string::npos);

    spill(scratch.path / "closed.toml", replaced(other, "domain = \"alone\"", "domain = \"both\""));
    for (const char* verb : {"config", "plan", "run"}) {
      const Outcome refused = run(scratch.path, {verb, "closed.toml"});
      INFO(verb << ": " << refused.err);
      CHECK(refused.code == 2);
      CHECK(refused.err.find("which holds the source 'code', allowed in long alone (") != std::string::npos);
      CHECK(refused.err.find("corpora/small/sources.json)") != std::string::npos);
    }

    // With the corpus gone the record of the run holds, and the shards themselves.
    fs::remove_all(scratch.path / "corpora");
    CHECK(run(scratch.path, {"run", "other.toml"}).code == 0);
    CHECK(run(scratch.path, {"config", "closed.toml"}).code == 2);
  }

  TEST_CASE("corpus in a recipe: calibration draws from no source that is closed to its stage") {
    const std::string stages =
        "[[stage]]\nname = \"cut\"\nkind = \"prune\"\nfrom = \"core\"\ntarget = \"student\"\n"
        "scores = \"activation\"\n\n[[stage]]\nname = \"scores\"";
    std::string recipe = replaced(kRecipe, "[[stage]]\nname = \"scores\"", stages);
    recipe = replaced(recipe, "[[stage]]\nname = \"core\"",
                      "[model.student]\nintermediate_size = 16\n\n[[stage]]\nname = \"core\"");
    CHECK(refusal(recipe).empty());
    recipe = replaced(recipe, "priority = 2", "stages = [\"long\"]");
    CHECK(refusal(recipe).find("calibration text: stage 'cut' draws from domain 'both', which holds the source 'code', "
                               "allowed in long alone") != std::string::npos);
    CHECK(refusal(replaced(recipe, "name = \"both\"", "name = \"both\"\nweight = 0")).empty());
  }

  TEST_CASE("corpus by a language model: documents have minus its bits a byte, for any number of threads") {
    const Scratch scratch("corpus_language_model");
    write_recipe(scratch.path, kRecipe);
    REQUIRE(run(scratch.path, {"run", "small.toml"}).code == 0);
    fs::create_directories(scratch.path / "texts");
    std::vector<std::string> texts = {"The forester cuts the coppice in winter.", "x",
                                      std::string(3000, 'z') + " and more that nobody reads"};
    for (size_t i = 0; i < texts.size(); ++i)
      spill(scratch.path / fmt::format("texts/{}.jsonl", i),
            fmt::format("{{\"id\": \"{}\", \"text\": \"{}\"}}\n", i, texts[i]));
    const auto classify = [&](const std::string& out, const std::string& threads) {
      return run(scratch.path, {"data", "classify", "texts", "-o", out, "--model", "runs/small/core", "--min-score",
                                "-100", "--threads", threads});
    };
    const Outcome one = classify("one", "1"), two = classify("two", "2");
    INFO(one.err);
    REQUIRE(one.code == 0);
    REQUIRE(two.code == 0);
    check_same(files_of(scratch.path / "one/documents"), files_of(scratch.path / "two/documents"));

    const coppice::OpenedModel opened = coppice::open_model(scratch.path / "runs/small/core");
    for (size_t i = 0; i < texts.size(); ++i) {
      const double expected = score_by_hand(opened, opened.tokenizer.eos_id(), texts[i]);
      double score = 0;
      coppice::for_each_document(scratch.path / fmt::format("one/documents/texts/{}.jsonl.zst", i),
                                 [&](coppice::Document&& document) {
                                   REQUIRE(document.scores.size() == 1);
                                   CHECK(document.scores[0].name == "core");
                                   score = document.scores[0].value;
                                 },
                                 {.keep_fields = true});
      CAPTURE(i);
      CHECK(score < 0);
      CHECK(score == doctest::Approx(expected).epsilon(1e-4));
    }

    // Another model is another step.
    const Outcome other = run(scratch.path, {"data", "classify", "texts", "-o", "one", "--model", "runs/small/long",
                                             "--score", "core", "--min-score", "-100"});
    CHECK(other.code == 3);
    const Outcome none = run(scratch.path, {"data", "classify", "texts", "-o", "none", "--model", "texts"});
    CHECK(none.code == 3);
    CHECK_FALSE(fs::exists(scratch.path / "none"));
  }

  TEST_CASE("corpus in a recipe: the arms and seeds of an ablation share one") {
    const Scratch scratch("corpus_ablation");
    write_recipe(scratch.path,
                 replaced(kRecipe, "threads = 1\n", "threads = 1\nseeds = [1, 2]\n") +
                     "\n[[arm]]\nname = \"plain\"\n\n[[arm]]\nname = \"slower\"\nset = { core.lr = 0.001 }\n");
    const Outcome first = run(scratch.path, {"ablate", "small.toml"});
    INFO(first.err);
    REQUIRE(first.code == 0);
    CHECK(count_of(first.err, "what went and why") == 1);
    size_t corpora = 0;
    for ([[maybe_unused]] const auto& entry : fs::directory_iterator(scratch.path / "corpora")) ++corpora;
    CHECK(corpora == 1);
    const Outcome second = run(scratch.path, {"ablate", "small.toml"});
    CHECK(second.code == 0);
    CHECK(count_of(second.err, "corpora/small: already complete") == 1);
  }
}
