// What makes a corpus: keys, sources and steps as they are read, and what is refused with its line.
#include "src/corpus/run/corpus_settings.h"

#include <doctest/doctest.h>

#include "tests/caught.h"
#include "tests/corpus/run/small_steps.h"
#include "tests/scratch_folder.h"

namespace coppice {
namespace {

using namespace test;

const ScratchFolder& scratch() {
  static const ScratchFolder folder("corpus_settings");
  return folder;
}

CorpusSettings read(const std::string& text) {
  return load_corpus(scratch().write("corpus.toml", text), {}, {}, kSmallSteps);
}

/// The refusal's text behind the folder: `corpus.toml:3: ...`.
std::string refusal(const std::string& text) {
  const Caught refused = caught([&] { read(text); });
  CHECK(refused.code == 2);
  const size_t at = refused.text.find("corpus.toml");
  return at == std::string::npos ? refused.text : refused.text.substr(at);
}

constexpr const char* kSource = "[data]\n[[data.source]]\nname = \"a\"\npath = \"in\"\n";

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("corpus settings: both ways to write sources and steps say the same") {
    const CorpusSettings tables = read(
        "[data]\nmemory = \"1.5GB\"\nvalues = \"sample\"\nmax_bad_share = 1\nthreads = 3\ndoc_timeout_s = 2\n"
        "[[data.source]]\nname = \"crawl\"\npath = \"in/*.jsonl\"\nkind = \"jsonl\"\ntext = \"body\"\npriority = 5\n"
        "stages = [\"core\"]\nlicense = \"MIT\"\n"
        "[[data.source]]\nname = \"press\"\npath = \"press\"\n"
        "[[data.step]]\nkind = \"size\"\nmin_bytes = 9\nonly = \"press\"\n"
        "[[data.step]]\nkind = \"size\"\nname = \"again\"\n");
    CHECK(tables.memory_bytes == 1'500'000'000);
    CHECK(tables.kept_values == CorpusSettings::Values::sample);
    CHECK(tables.max_bad_share == 1);
    CHECK(tables.threads == 3);
    CHECK(tables.doc_timeout_s == 2);
    REQUIRE(tables.sources.size() == 2);
    CHECK(tables.sources[0].name == "crawl");
    CHECK(tables.sources[0].text == "body");
    CHECK(tables.sources[0].priority == 5);
    CHECK(tables.sources[0].stages == std::vector<std::string>{"core"});
    CHECK(tables.sources[0].where.ends_with("corpus.toml:7"));
    CHECK(tables.sources[1].license == "unknown");
    REQUIRE(tables.steps.size() == 2);
    CHECK(tables.steps[0].name == "size");
    CHECK(tables.steps[0].rules[0].least == 9);
    CHECK_FALSE(tables.steps[0].looks_at(tables.sources[0]));
    CHECK(tables.steps[0].looks_at(tables.sources[1]));
    CHECK(tables.steps[1].name == "again");
    CHECK(tables.steps[1].rules[0].least == 4);
    CHECK(tables.steps[1].by_document() != nullptr);
    CHECK(tables.steps[1].by_group() == nullptr);

    const CorpusSettings arrays = read(
        "[data]\nsource = [\n  { name = \"crawl\", path = \"in/*.jsonl\" },\n  { name = \"press\", path = \"press\" "
        "},\n]\n"
        "step = [\n  { kind = \"size\", min_bytes = 9, only = [\"press\"] },\n  { kind = \"size\", name = \"again\" "
        "},\n]\n");
    CHECK(arrays.steps[0].fingerprint == tables.steps[0].fingerprint);
    CHECK(arrays.steps[1].fingerprint != tables.steps[0].fingerprint);
    CHECK(arrays.memory_bytes == 4'000'000'000);
    CHECK(arrays.kept_values == CorpusSettings::Values::all);
  }

  TEST_CASE("corpus settings: a fingerprint is that of options and inputs, not of the name or of what is not said") {
    const std::string source = kSource;
    const auto of = [&](const std::string& step) {
      return read(source + "[[data.step]]\n" + step).steps[0].fingerprint;
    };
    CHECK(of("kind = \"size\"\n") == of("kind = \"size\"\nname = \"other\"\nmin_bytes = 4\n"));
    CHECK(of("kind = \"size\"\n") != of("kind = \"size\"\nmin_bytes = 5\n"));
    CHECK(of("kind = \"plain\"\n") != of("kind = \"pii\"\n"));
  }

  TEST_CASE("corpus settings: --set and --unset reach sources and steps by their names") {
    const auto file = scratch().write(
        "set.toml",
        "[data]\n[[data.source]]\nname = \"a\"\npath = \"in\"\n[[data.source]]\nname = \"b.c\"\npath = \"in\"\n"
        "[[data.step]]\nkind = \"size\"\nmin_bytes = 9\nmax_digits = 7\n"
        "[[data.step]]\nkind = \"size\"\nname = \"again\"\n[[data.step]]\nkind = \"plain\"\n");
    const auto of = [&](const std::string& path, const std::string& value) {
      return load_corpus(file, {{path, value}}, {}, kSmallSteps);
    };
    CHECK(of("data.step.size.min_bytes", "5").steps[0].rules[0].least == 5);
    CHECK(of("data.step.again.min_bytes", "6").steps[1].rules[0].least == 6);
    CHECK(of("data.step.again.min_bytes", "6").steps[0].rules[0].least == 9);
    CHECK(of("data.step.plain.max_x", "1").steps[2].rules[0].most == 1);
    CHECK(of("data.source.a.priority", "3").sources[0].priority == 3);
    CHECK(of("data.source.b.c.path", "\"other\"").sources[1].path == "other");
    CHECK(load_corpus(file, {}, {"data.step.size.max_digits"}, kSmallSteps).steps[0].rules[1].most == 3);
    const auto says = [&](const std::string& path, const std::string& value, const std::string& text) {
      const Caught refused = caught([&] { of(path, value); });
      CHECK(refused.code == 2);
      CHECK_MESSAGE(refused.says(text), refused.text);
    };
    says("data.step.sise.min_bytes", "5",
         "--set data.step.sise.min_bytes: no [[data.step]] is called 'sise', expected one "
         "of: size, again, plain; did you mean 'size'?");
    says("data.step.size", "5", "'size' is a [[data.step]]: name a key of it, data.step.size.<key>");
    says("data.step.size.min_byte", "5", "--set: unknown key 'min_byte'; did you mean 'min_bytes'?");
    says("data.step.size.min_bytes", "\"x\"", "data.step.size.min_bytes: got \"x\" (string)");
    says("data.source.2.path", "5", "no [[data.source]] is called '2', expected one of: a, b.c");
    const auto twins = scratch().write("twins.toml",
                                       "[data]\n[[data.source]]\nname = \"a\"\npath = \"in\"\n"
                                       "[[data.step]]\nkind = \"size\"\n[[data.step]]\nkind = \"size\"\n");
    CHECK(caught([&] {
            load_corpus(twins, {{"data.step.size.min_bytes", "5"}}, {}, kSmallSteps);
          }).says("2 [[data.step]] are called 'size'; give each a name of its own"));
  }

  TEST_CASE("corpus settings: refused with file and line") {
    const std::string source = kSource;
    CHECK(refusal("[data]\nmemroy = \"1GB\"\n[[data.source]]\nname = \"a\"\npath = \"in\"\n")
              .starts_with("corpus.toml:2: unknown key 'memroy'; did you mean 'memory'?"));
    CHECK(refusal(source + "paht = \"x\"\n").starts_with("corpus.toml:5: unknown key 'paht'; did you mean 'path'?"));
    CHECK(refusal(source + "[[data.step]]\nkind = \"size\"\nmin_byte = 3\n")
              .starts_with("corpus.toml:7: unknown key 'min_byte'; did you mean 'min_bytes'?"));
    CHECK(refusal("[dta]\n").find("got none, expected [[data.source]]") != std::string::npos);
    CHECK(refusal(source + "[stage]\n").starts_with("corpus.toml:5: unknown key 'stage'"));
    CHECK(refusal(source + "[[data.step]]\nkind = \"siez\"\n")
              .starts_with(
                  "corpus.toml:6: kind: got 'siez', expected one of: size, plain, same, common, pii, counted; did you "
                  "mean 'size'?"));
    CHECK(refusal(source + "[[data.step]]\nmin_bytes = 3\n").starts_with("corpus.toml:5: kind: got ''"));
    CHECK(refusal(source + "[[data.step]]\nkind = \"size\"\nonly = [\"b\"]\n")
              .starts_with("corpus.toml:7: only: no source is named 'b'; did you mean 'a'?"));
    CHECK(refusal(source + "[[data.step]]\nkind = \"size\"\n[[data.step]]\nkind = \"size\"\n")
              .find("name: 'size' is the step of ") != std::string::npos);
    CHECK(refusal(source + "[[data.source]]\nname = \"a\"\npath = \"b\"\n").find("name: 'a' is the source of ") !=
          std::string::npos);
    CHECK(refusal(source + "[[data.step]]\nkind = \"size\"\nname = \"a/b\"\n").starts_with("corpus.toml:7: name: got"));
    CHECK(refusal("[data]\n[[data.source]]\nname = \"..\"\npath = \"in\"\n").find("name: got '..'") !=
          std::string::npos);
    CHECK(refusal("[data]\n[[data.source]]\nname = \"a\"\n").find("names no files") != std::string::npos);
    for (const char* key : {"memory = \"3 cows\"", "memory = \"1MB\"", "values = \"some\"", "max_bad_share = 2",
                            "max_bad_share = nan", "threads = -1", "doc_timeout_s = -1", "keep = \"lists\""})
      CHECK(refusal(std::string("[data]\n") + key + "\n[[data.source]]\nname = \"a\"\npath = \"in\"\n")
                .starts_with("corpus.toml:2: "));
  }

  TEST_CASE("corpus settings: public data needs licence, homepage, date and a step for personal data") {
    const std::string source = std::string(kSource) + "public = true\n";
    CHECK(
        refusal(source).starts_with("corpus.toml:2: license: the public source 'a' needs licence, homepage and date"));
    CHECK(refusal(source + "license = \"CC0-1.0\"\n").starts_with("corpus.toml:2: homepage: "));
    CHECK(refusal(source + "license = \"CC0-1.0\"\nhomepage = \"https://a\"\n").starts_with("corpus.toml:2: date: "));
    const std::string told = source + "license = \"CC0-1.0\"\nhomepage = \"https://a\"\ndate = \"2026-01-31\"\n";
    CHECK(refusal(told).starts_with("corpus.toml:2: pii: no step looks for personal data in the public source 'a'"));
    CHECK(refusal(told + "[[data.source]]\nname = \"b\"\npath = \"b\"\n[[data.step]]\nkind = \"pii\"\nonly = \"b\"\n")
              .starts_with("corpus.toml:2: pii: "));
    CHECK(refusal(told + "pii = \"no\"\n").starts_with("corpus.toml:9: pii: got 'no'"));
    CHECK(read(told + "pii = \"checked elsewhere\"\n").sources[0].is_public);
    CHECK(read(told + "[[data.step]]\nkind = \"pii\"\n").sources[0].is_public);
  }
}

}  // namespace coppice
