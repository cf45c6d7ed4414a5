// One step as a pipeline of one, its flags as TOML.
#include "src/corpus/run/step_verb.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "tests/caught.h"
#include "tests/corpus/run/small_steps.h"

namespace coppice {

using namespace test;

TEST_SUITE("unit") {
  TEST_CASE("step verb: inputs become sources named like them, flags become keys") {
    const CorpusSettings settings =
        read_step_verb({.kind = "size",
                        .inputs = {"crawl/*.jsonl.gz", "notes/a.jsonl.zst", "in/a.jsonl", "."},
                        .source_kind = "jsonl",
                        .license = "MIT",
                        .text = "body",
                        .data = {{"memory", "1GB"}, {"threads", "2"}},
                        .options = {{"min_bytes", "7"}}},
                       kSmallSteps);
    REQUIRE(settings.sources.size() == 4);
    CHECK(settings.sources[0].name == "crawl");
    CHECK(settings.sources[0].path == "crawl/*.jsonl.gz");
    CHECK(settings.sources[1].name == "a");
    CHECK(settings.sources[2].name == "a-2");
    CHECK(settings.sources[3].name == "data");
    CHECK(settings.sources[3].license == "MIT");
    CHECK(settings.sources[3].text == "body");
    CHECK(settings.sources[0].kind == "jsonl");
    CHECK(settings.sources[0].text_option == "--text");
    CHECK(settings.memory_bytes == 1'000'000'000);
    CHECK(settings.threads == 2);
    REQUIRE(settings.steps.size() == 1);
    CHECK(settings.steps[0].rules[0].least == 7);
  }

  TEST_CASE("step verb: a value that is no TOML is a string, a name never anything else") {
    CHECK(toml_value("0.5") == "0.5");
    CHECK(toml_value("[\"a\", \"b\"]") == "[\"a\", \"b\"]");
    CHECK(toml_value("{ en = 0.65 }") == "{ en = 0.65 }");
    CHECK(toml_value("benchmarks/*.jsonl") == "\"benchmarks/*.jsonl\"");
    CHECK(toml_value("1\nb = 2") == "\"1\\nb = 2\"");
    CHECK(toml_value("1 # x") == "1 # x");
    CHECK(toml_string("7\"\n") == "\"7\\\"\\n\"");
    const CorpusSettings settings =
        read_step_verb({.kind = "size", .inputs = {"12.jsonl"}, .source = "true"}, kSmallSteps);
    CHECK(settings.sources[0].name == "true");
    CHECK(settings.sources[0].path == "12.jsonl");
  }

  TEST_CASE("step verb: a flag of a list is given once or several times, or as a list") {
    CHECK(list_value({"CC-BY-*"}) == "[\"CC-BY-*\"]");
    CHECK(list_value({"CC-BY-*", "true", "a\"b"}) == "[\"CC-BY-*\", \"true\", \"a\\\"b\"]");
    CHECK(list_value({"[\"a\", \"b\"]"}) == "[\"a\", \"b\"]");
    CHECK(list_value({"{ en = 0.65 }"}) == "{ en = 0.65 }");
    for (const StepKind* kind : step_kinds()) {
      if (std::string_view(kind->kind) != "licences") continue;
      const std::vector<StepOption> options = kind->options();
      CHECK(std::ranges::find(options, "allow", &StepOption::key)->is_list);
      CHECK_FALSE(std::ranges::find(options, "page", &StepOption::key)->is_list);
    }
    const CorpusSettings settings = read_step_verb({.kind = "licences",
                                                    .inputs = {"a"},
                                                    .stages = {"core", "long"},
                                                    .options = {{"allow", list_value({"CC-BY-*", "CC0-1.0"})}}});
    CHECK(settings.steps[0].options.find(R"(allow = ["CC-BY-*", "CC0-1.0"])") != std::string::npos);
    CHECK(settings.sources[0].stages == std::vector<std::string>{"core", "long"});
  }

  TEST_CASE("step verb: what is refused names the key") {
    const StepVerb verb{.kind = "size", .inputs = {"a"}, .options = {{"min_bytes", "many"}}};
    const Caught refused = caught([&] { read_step_verb(verb, kSmallSteps); });
    CHECK(refused.code == 2);
    CHECK(refused.says("--min-bytes: min_bytes: got \"many\" (string), expected an integer"));
    const auto says = [](const StepVerb& of, const std::string& text) {
      const Caught caught_now = caught([&] { list_source_files(read_step_verb(of, kSmallSteps).sources); });
      CHECK_MESSAGE(caught_now.says(text), caught_now.text);
      CHECK_MESSAGE(caught_now.text.find("coppice data size:") == std::string::npos, caught_now.text);
    };
    says({.kind = "size", .inputs = {"a"}, .data = {{"memory", "1MB"}}}, "--memory: memory: got '1MB'");
    says({.kind = "size", .inputs = {"a"}, .data = {{"max_bad_share", "x"}}}, "--max-bad-share: max_bad_share: got");
    says({.kind = "size", .inputs = {"a", "no/such.jsonl"}}, "a: source 'a': no such file or folder: 'a'");
    says({.kind = "size", .inputs = {"a"}, .source_kind = "pdf"}, "a: source 'a': kind: got 'pdf'");
    says({.kind = "size", .inputs = {"a"}, .options = {{"min_bytes", "[1,\n2]"}, {"max_digits", "x"}}},
         "--min-bytes: ");
    says({.kind = "size", .inputs = {"a"}, .options = {{"max_digits", "x"}, {"min_bytes", "[1,\n2]"}}},
         "--min-bytes: ");
    says({.kind = "size", .inputs = {"a"}, .source = "x/y"}, "--source: name: got 'x/y'");
    CHECK(caught([&] {
            step_recipe({.kind = "size", .inputs = {"a", "b"}, .source = "s"});
          }).says("--source: names one input, got 2"));
  }
}

}  // namespace coppice
