// The step `words`: both a number of different entries and a share of the words.
#include <doctest/doctest.h>

#include "src/text/document_metadata.h"
#include "tests/corpus/step_of.h"
#include "tests/corpus/steps/look_at.h"

#include <nlohmann/json.hpp>

using namespace coppice;

namespace {

std::string words(int count, const std::string& more) {
  std::string text = more;
  for (int i = 0; i < count; ++i) text += " plain";
  return text;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("words step: three different entries and half a percent of the words") {
    const ScratchFolder folder("words");
    const auto step = test::step_of(folder, "kind = \"words\"\n");
    CHECK(test::look_at(*step, words(597, "porn xxx milf")).dropped_by == "unsafe_words");  // 3 of 600
    CHECK(test::look_at(*step, words(598, "porn xxx milf")).dropped_by.empty());            // 3 of 601
    CHECK(test::look_at(*step, words(100, "porn xxx porn xxx porn xxx")).dropped_by.empty());
    CHECK(test::look_at(*step, words(598, "porn xxx milf milf")).values[0] == 3);
    CHECK(test::look_at(*step, "").values[0] == 0);
  }

  TEST_CASE("words step: counts go into metadata") {
    const ScratchFolder folder("words");
    const auto step = test::step_of(folder, "kind = \"words\"\nrule = \"trade\"\n");
    const test::LookedThrough looked = test::look_at(*step, "porn porn xxx plain");
    const Json counts = find_metadata(looked.document, "trade").value();
    CHECK(counts.at("found") == 3);
    CHECK(counts.at("distinct") == 2);
    CHECK(counts.at("rate") == 0.75);
    CHECK_FALSE(find_metadata(test::look_at(*step, "plain").document, "trade").has_value());
    CHECK(step->rules().front().name == "trade");
  }

  TEST_CASE("words step: C4's rule, one hit of a list of one's own") {
    const ScratchFolder folder("words");
    folder.write("list.txt", "red fox\n");
    const std::string lists = "lists = [\"" + (folder / "list.txt").string() + "\"]\n";
    const auto step = test::step_of(folder, "kind = \"words\"\n" + lists + "min_distinct = 1\nmin_rate = 0.0\n");
    CHECK(step->inputs().size() == 1);
    CHECK(test::look_at(*step, words(1000, "red fox")).dropped_by == "unsafe_words");
    CHECK(test::look_at(*step, words(1000, "porn xxx milf")).dropped_by.empty());
  }

  TEST_CASE("words step: options that cannot be are refused") {
    const ScratchFolder folder("words");
    const auto says = [&](const std::string& text, std::string_view part) {
      const std::string refusal = test::refusal_of_step(folder, "kind = \"words\"\n" + text);
      CAPTURE(refusal);
      CHECK(refusal.find(part) != std::string::npos);
    };
    says("min_distinct = 0", "my.toml:3: min_distinct: got 0");
    says("min_rate = 1.5", "my.toml:3: min_rate: got 1.5");
    says("lists = [\"absent.txt\"]", "absent.txt");
  }
}
