// Values and decisions of the quality rules on 74 texts around every limit, as datatrove 0.10.1 has them, to the last
// bit; with words between white space, and with spaCy's.
#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "src/base/files.h"
#include "src/base/json.h"
#include "src/corpus/quality/c4.h"
#include "src/corpus/quality/document_measures.h"
#include "src/corpus/quality/quality_rules.h"

using namespace coppice;

namespace {

std::vector<Json> read_lines(const std::string& name) {
  std::ifstream file(COPPICE_SOURCE_DIR "/tests/corpus/fixtures/" + name);
  std::vector<Json> rows;
  for (std::string line; std::getline(file, line);) rows.push_back(Json::parse(line));
  return rows;
}

std::map<std::string, std::string> texts() {
  std::map<std::string, std::string> found;
  for (const Json& row : read_lines("documents.jsonl")) found[row["id"]] = row["text"];
  return found;
}

const QualityRuleSet& set_of(const std::string& name) {
  for (const QualityRuleSet& set : quality_rule_sets())
    if (name == set.name) return set;
  throw std::runtime_error(name);
}

/// Values by name, as far as they are defined.
std::map<std::string, double> measure(QualityText& text, const QualityRuleSet& set) {
  std::vector<double> values(set.rules.size(), std::nan(""));
  Repetition repetition;
  C4 c4({});
  switch (set.set) {
    case QualitySet::gopher_quality:
      measure_gopher_quality(text, values);
      break;
    case QualitySet::gopher_repetition:
      repetition.measure(text, values);
      break;
    case QualitySet::fineweb:
      measure_fineweb(text, 30, repetition, values);
      break;
    case QualitySet::c4:
      c4.measure(text, values);
      break;
    default:
      throw std::runtime_error(set.name);
  }
  std::map<std::string, double> named;
  for (size_t i = 0; i < values.size(); ++i)
    if (!std::isnan(values[i])) named[set.rules[i].name] = values[i];
  return named;
}

/// The first rule that drops; "keep" where none does.
std::string decision(const std::map<std::string, double>& values, const QualityRuleSet& set) {
  for (const QualityRule& rule : set.rules)
    if (const auto found = values.find(rule.name);
        found != values.end() && (found->second < rule.least || found->second > rule.most))
      return rule.name;
  return "keep";
}

/// datatrove's reasons by our rules' names.
std::string our_name(const std::string& reason) {
  static const std::map<std::string, std::string> kNames = {{"gopher_short_doc", "words"},
                                                            {"gopher_long_doc", "words"},
                                                            {"gopher_below_avg_threshold", "mean_word_length"},
                                                            {"gopher_above_avg_threshold", "mean_word_length"},
                                                            {"gopher_too_many_hashes", "hash_ratio"},
                                                            {"gopher_too_many_ellipsis", "ellipsis_ratio"},
                                                            {"gopher_too_many_bullets", "bullet_line_ratio"},
                                                            {"gopher_too_many_end_ellipsis", "ellipsis_line_ratio"},
                                                            {"gopher_below_alpha_threshold", "alpha_word_ratio"},
                                                            {"gopher_enough_stop_words", "stop_words"},
                                                            {"dup_para_frac", "dup_paragraph_ratio"},
                                                            {"dup_para_char_frac", "dup_paragraph_char_ratio"},
                                                            {"dup_line_frac", "dup_line_ratio"},
                                                            {"dup_line_char_frac", "dup_line_char_ratio"},
                                                            {"duplicated_5_n_grams", "dup_5_gram"},
                                                            {"duplicated_6_n_grams", "dup_6_gram"},
                                                            {"duplicated_7_n_grams", "dup_7_gram"},
                                                            {"duplicated_8_n_grams", "dup_8_gram"},
                                                            {"duplicated_9_n_grams", "dup_9_gram"},
                                                            {"duplicated_10_n_grams", "dup_10_gram"},
                                                            {"too_few_sentences", "sentences"}};
  const auto found = kNames.find(reason);
  return found == kNames.end() ? reason : found->second;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("quality: values and decisions of datatrove's filters, to the last bit") {
    const std::map<std::string, std::string> all = texts();
    CHECK(all.size() == 74);
    size_t num_values = 0;
    for (const auto& [mode, rule] : {std::pair{"whitespace", WordRule::whitespace}, {"spacy", WordRule::english}}) {
      QualityText text(rule);
      for (const Json& row : read_lines("filters.jsonl")) {
        const std::string id = row["id"];
        CAPTURE(id);
        CAPTURE(mode);
        text.set(all.at(id), "");
        CHECK(text.num_words() == row[mode]["words"].get<size_t>());
        for (const char* filter : {"gopher_quality", "gopher_repetition", "fineweb"}) {
          const QualityRuleSet& set = set_of(filter);
          const Json& theirs = row[mode][filter];
          const std::map<std::string, double> values = measure(text, set);
          for (const auto& [name, value] : theirs["rules"].items()) {
            const bool is_mean = name.starts_with("mean_word_length");
            const std::string ours = is_mean ? "mean_word_length" : name;
            CAPTURE(name);
            REQUIRE(values.contains(ours));
            CHECK(values.at(ours) == value[0].get<double>());
            ++num_values;
          }
          const std::string decided = theirs["decision"];
          if (decided != "undefined" && decided != "empty") CHECK(decision(values, set) == our_name(decided));
        }
      }
    }
    CHECK(num_values > 3000);
  }

  TEST_CASE("quality: C4's lines, text and sentences") {
    const std::map<std::string, std::string> all = texts();
    QualityText text(WordRule::english);
    size_t kept_texts = 0;
    for (const Json& row : read_lines("filters.jsonl")) {
      const std::string id = row["id"];
      CAPTURE(id);
      text.set(all.at(id), "");
      std::array<double, 3> values;
      values.fill(std::nan(""));
      C4 c4({});
      c4.measure(text, values);
      const Json& theirs = row["c4"];
      const std::string decided = theirs["decision"];
      CHECK(decided == (values[0] > 0   ? "lorem_ipsum"
                        : values[1] > 0 ? "curly_bracket"
                        : values[2] < 5 ? "too_few_sentences"
                                        : "keep"));
      const auto count = [&](const char* fate) { return theirs["lines"].value(fate, uint64_t{0}); };
      CHECK(c4.lines().kept == count("kept"));
      CHECK(c4.lines().long_word == count("too_long_word"));
      CHECK(c4.lines().open == count("no_terminal_punc"));
      CHECK(c4.lines().few_words == count("too_few_words"));
      CHECK(c4.lines().javascript == count("javascript"));
      CHECK(c4.lines().policy == count("policy"));
      if (theirs.contains("sentences")) CHECK(values[2] == theirs["sentences"].get<double>());
      if (!theirs.contains("text_sha256")) continue;
      CHECK(sha256_hex(c4.kept_text()) == theirs["text_sha256"].get<std::string>());
      ++kept_texts;
    }
    CHECK(kept_texts > 20);
  }

  TEST_CASE("quality: texts of 100,000 and 100,001 words") {
    for (const Json& row : read_lines("long_documents.jsonl")) {
      std::string whole;
      for (int i = 0; i < row["count"].get<int>(); ++i) whole += row["unit"].get<std::string>();
      QualityText text(WordRule::whitespace);
      text.set(whole, "");
      std::vector<double> values(8, std::nan(""));
      measure_gopher_quality(text, values);
      CHECK(values[0] == row["count"].get<double>());
      CHECK((values[0] > 100000) == (row["whitespace"]["gopher_quality"] == "gopher_long_doc"));
    }
  }

  TEST_CASE("quality: n-grams are equal by their letters, wherever words are cut") {
    QualityText text(WordRule::whitespace);
    std::array<double, 13> values;
    const auto dup_5 = [&](const std::string& whole) {
      values.fill(std::nan(""));
      text.set(whole, "");
      Repetition().measure(text, values);
      return values[7];
    };
    CHECK(dup_5("a b c d ef x y z ab c d e f") == 6.0 / 27);
    CHECK(dup_5("aaaa bbbb cccc dddd eeee x y z aaaab bbb ccccd ddd eeee") == 20.0 / 55);
    CHECK(dup_5("a b c d ef x y z ab c d e g") == 0.0);
    CHECK(dup_5("only four words here") == 0.0);
  }

  TEST_CASE("quality: ratios of characters and of open sentences") {
    QualityText text(WordRule::english);
    std::array<double, 6> values;
    const auto measure = [&](const std::string& whole) {
      values.fill(std::nan(""));
      text.set(whole, "");
      measure_ratios(text, values);
    };
    measure("One (2) é.\nTwo 33 [x]");
    CHECK(values[0] == 8.0 / 21);
    CHECK(values[1] == 3.0 / 21);
    CHECK(values[2] == 0.0);
    CHECK(values[3] == 5.0 / 21);
    CHECK(values[4] == 4.0 / 21);
    CHECK(values[5] == 0.5);
    measure("see http://a.example/x. or www.b.example!");
    CHECK(values[2] == (18.0 + 13) / 41);
    measure("https://www.example.com/a");
    CHECK(values[2] == 1.0);
    measure("www.a.example/http://b.example and www.www.www.");
    CHECK(values[2] == (30.0 + 11) / 47);
    std::string many;
    for (int i = 0; i < 20'000; ++i) many += "www.";  // read once, not once from each
    measure(many);
    CHECK(values[2] == (many.size() - 1.0) / static_cast<double>(many.size()));
    measure("");
    CHECK(std::isnan(values[0]));
    CHECK(std::isnan(values[5]));
  }
}
