// Words, sentences and lines: what spaCy and Python make of the same texts.
#include "src/text/words/words.h"

#include <doctest/doctest.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "src/base/json.h"

using namespace coppice;

namespace {

using Words = std::vector<std::string>;

Words split(WordRule rule, std::string_view text, std::string_view language = "") {
  WordSplitter splitter(rule);
  std::vector<std::string_view> words;
  splitter.split(text, words, language);
  return {words.begin(), words.end()};
}

std::vector<Json> read_lines(const std::string& name) {
  std::ifstream file(COPPICE_SOURCE_DIR "/tests/corpus/fixtures/" + name);
  std::vector<Json> rows;
  for (std::string line; std::getline(file, line);) rows.push_back(Json::parse(line));
  return rows;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("words: english and its sentences are spaCy's, on 13 documents") {
    std::map<std::string, std::string> texts;
    for (const Json& row : read_lines("documents.jsonl")) texts[row["id"]] = row["text"];
    WordSplitter splitter(WordRule::english);
    std::vector<std::string_view> words;
    size_t documents = 0;
    for (int time = 0; time < 2; ++time)  // the second time from what is remembered
      for (const Json& row : read_lines("tokens.jsonl")) {
        const std::string& text = texts.at(row["id"]);
        CAPTURE(row["id"].get<std::string>());
        splitter.split(text, words);
        CHECK(Words(words.begin(), words.end()) == row["words"].get<Words>());
        std::vector<size_t> sentences;
        for_each_line(text, [&](std::string_view line) {
          if (line = strip_blanks(line); line.empty()) return;
          splitter.split(line, words);
          sentences.push_back(count_sentences(line, words));
        });
        CHECK(sentences == row["sentences"].get<std::vector<size_t>>());
        ++documents;
      }
    CHECK(documents == 26);
  }

  TEST_CASE("words: english, rule by rule") {
    const auto english = [](std::string_view text) { return split(WordRule::english, text); };
    CHECK(english("(\"It's 5km,\" he said...)") ==
          Words{"(", "\"", "It", "'s", "5", "km", ",", "\"", "he", "said", "...", ")"});
    CHECK(english("e.g. Mr. Smith's U.S. I can't. Cannot!") ==
          Words{"e.g.", "Mr.", "Smith", "'s", "U.S.", "I", "ca", "n't", ".", "Can", "not", "!"});
    CHECK(english("a-b 2-b 2-3 a/b a:b 4+5 x.Y x,y x--y") == Words{"a",  "-", "b", "2", "-", "b", "2",  "-", "3",
                                                                   "a",  "/", "b", "a", ":", "b", "4",  "+", "5",
                                                                   "x.", "Y", "x", ",", "y", "x", "--", "y"});
    CHECK(english("https://a.example/x-y,z mail@b.example www.c.example. 8.8.8.8:53/a-b") ==
          Words{"https://a.example/x-y,z", "mail@b.example", "www.c.example", ".", "8.8.8.8:53/a-b"});
    CHECK(english("US$5 €7 10% 3°C. C++ :-) f(x):") ==
          Words{"US$", "5", "€", "7", "10", "%", "3", "°", "C", ".", "C++", ":-)", "f(x", "):"});
    CHECK(english("don’t “so” I'm =| ok:)") == Words{"do", "n’t", "“", "so", "”", "I", "'m", "=|", "ok", ":)"});
    CHECK(english("") == Words{});
    CHECK(english(" \u00a0\n") == Words{});
  }

  TEST_CASE("words: white space, peeled, and by language") {
    CHECK(split(WordRule::whitespace, "\u00a0a-b,\u3000c\u2028d\u200be") == Words{"a-b,", "c", "d\u200be"});
    CHECK(split(WordRule::peeled, "(\"it's\") $5 --- x") ==
          Words{"(", "\"", "it's", "\"", ")", "$", "5", "-", "-", "-", "x"});
    CHECK(split(WordRule::automatic, "can't 東京") == Words{"ca", "n't", "東京"});
    CHECK(split(WordRule::automatic, "can't 東京", "en") == Words{"ca", "n't", "東京"});
    CHECK(split(WordRule::automatic, "can't 東京abcกข。", "ja") == Words{"can't", "東", "京", "abc", "ก", "ข", "。"});
    CHECK(find_word_rule("auto") == WordRule::automatic);
    CHECK_FALSE(find_word_rule("uax29"));
  }

  TEST_CASE("words: what they answer does not depend on what they were asked before") {
    WordSplitter splitter(WordRule::english);
    std::vector<std::string_view> words;
    std::string all;
    for (int i = 0; i < 200000; ++i) all += "x" + std::to_string(i) + "-y, ";
    splitter.split(all, words);
    CHECK(words.size() == 200000 * 4);
    splitter.split("x7-y, x7-y,", words);
    CHECK(Words(words.begin(), words.end()) == Words{"x7", "-", "y", ",", "x7", "-", "y", ","});
  }

  TEST_CASE("words: sentences and the white space between them") {
    const auto count = [](std::string_view text) {
      WordSplitter splitter(WordRule::english);
      std::vector<std::string_view> words;
      splitter.split(text, words);
      return count_sentences(text, words);
    };
    CHECK(count("") == 0);
    CHECK(count("One. Two! Three?") == 3);
    CHECK(count("Wait... is it so?") == 1);
    CHECK(count("He said \"no.\" Then he left.") == 2);
    CHECK(count("One. ") == 1);
    CHECK(count("One.  ") == 2);  // more than one blank is a word of spaCy's
    CHECK(count("One.)  )") == 2);
  }

  TEST_CASE("words: lines as Python's splitlines cuts them") {
    std::vector<std::string> lines;
    for_each_line(
        "a\r\nb\rc\n\nd\x0b"
        "e\x0c"
        "f\x1cg\x1dh\x1ei\u0085j\u2028k\u2029l\x1fm\n",
        [&](std::string_view line) { lines.emplace_back(line); });
    CHECK(lines == std::vector<std::string>{"a", "b", "c", "", "d", "e", "f", "g", "h", "i", "j", "k", "l\x1fm"});
  }

  TEST_CASE("words: long chunks and many signs take linear time") {
    WordSplitter splitter(WordRule::english);
    std::vector<std::string_view> words;
    const auto of = [](std::string_view unit, size_t count) {
      std::string text;
      for (size_t i = 0; i < count; ++i) text += unit;
      return text;
    };
    for (const auto& [unit, expected] : std::vector<std::pair<std::string, size_t>>{{"a", 1},
                                                                                    {"(", 1'000'000},
                                                                                    {".", 1},
                                                                                    {"@", 1},
                                                                                    {"a@", 1},
                                                                                    {"a.", 0},
                                                                                    {"'s", 0},
                                                                                    {"a-", 0},
                                                                                    {"😀", 1'000'000}}) {
      const std::string text = of(unit, 1'000'000);
      splitter.split(text, words);
      CAPTURE(unit);
      if (expected > 0) CHECK(words.size() == expected);
      size_t bytes = 0;
      for (const std::string_view word : words) bytes += word.size();
      CHECK(bytes == text.size());
    }
  }
}
