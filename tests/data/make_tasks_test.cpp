// Items made of held-out documents: the right choice is right, the others come from where they should.
#include "src/data/make_tasks.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <set>

using namespace coppice;
using nlohmann::json;

namespace {

/// Documents of made-up words, sentence after sentence.
std::vector<Document> documents(size_t count, size_t sentences = 60) {
  std::vector<Document> result;
  for (size_t d = 0; d < count; ++d) {
    std::string text;
    for (size_t s = 0; s < sentences; ++s) {
      for (size_t w = 0; w < 9; ++w)
        text += std::string(w == 0 ? "" : " ") + "w" +
                std::string(1 + (d + s * w) % 7, static_cast<char>('a' + (d * 5 + s * 3 + w * w) % 26));
      text += s % 4 == 3 ? ".\n" : ". ";
    }
    result.push_back({.id = "doc-" + std::to_string(d), .source = "made", .text = text, .license = ""});
  }
  return result;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE(
      "continuation_items: the right piece follows the context, the others are of other documents; order does not "
      "matter") {
    std::vector<Document> all = documents(9);
    const std::vector<std::string> lines = continuation_items("made", all, 40);
    REQUIRE(lines.size() == 40);
    std::set<std::string> seen;
    std::set<size_t> answers;
    for (const std::string& line : lines) {
      const json one = json::parse(line);
      const auto choices = one.at("choices").get<std::vector<std::string>>();
      const auto answer = one.at("answer").get<size_t>();
      const auto ids = one.at("documents").get<std::vector<std::string>>();
      REQUIRE(choices.size() == 4);
      REQUIRE(ids.size() == 4);
      CHECK(std::set(choices.begin(), choices.end()).size() == 4);
      CHECK(std::set(ids.begin(), ids.end()).size() == 4);
      const auto text_of = [&](const std::string& id) {
        for (const Document& document : all)
          if (document.id == id) return document.text;
        return std::string();
      };
      CHECK(text_of(ids[0]).find(one.at("context").get<std::string>() + " " + choices.at(answer)) != std::string::npos);
      CHECK(seen.insert(one.at("context")).second);
      answers.insert(answer);
    }
    CHECK(answers.size() == 4);
    std::ranges::reverse(all);
    CHECK(continuation_items("made", all, 40) == lines);
    CHECK(continuation_items("made", documents(3), 40).empty());  // too few for three others
    all.push_back({.id = "short", .source = "", .text = "only a few words", .license = ""});
    all.push_back({.id = "one-word", .source = "", .text = std::string(1000, 'x'), .license = ""});
    CHECK(continuation_items("made", all, 40) == lines);
  }

  TEST_CASE("word_items: the sentence's own last word among neighbours by frequency") {
    const std::vector<Document> all = documents(5);
    const std::vector<std::string> lines = word_items("made", all, 30);
    REQUIRE(lines.size() == 30);
    for (const std::string& line : lines) {
      const json one = json::parse(line);
      const auto choices = one.at("choices").get<std::vector<std::string>>();
      CHECK(choices.size() == 4);
      CHECK(std::set(choices.begin(), choices.end()).size() == 4);
      const std::string sentence =
          one.at("context").get<std::string>() + " " + choices.at(one.at("answer").get<size_t>()) + ".";
      CHECK(std::ranges::any_of(all, [&](const Document& document) {
        return document.id == one.at("documents").at(0) && document.text.find(sentence) != std::string::npos;
      }));
    }
    CHECK(word_items("made", documents(1, 1), 30).empty());
  }
}
