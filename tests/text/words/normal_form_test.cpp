// The form in which texts are compared: what datatrove 0.10.1 makes of the same texts.
#include "src/text/words/normal_form.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "src/base/json.h"

using namespace coppice;

namespace {

std::string normal(std::string_view text) {
  std::string out = "left from another text";
  normal_form(text, out);
  return out;
}

/// Shingles of five words; a shorter text is one.
std::set<std::string> shingles(const std::string& text) {
  const std::string form = normal(text);
  std::vector<std::string_view> words;
  split_normal_form(form, words);
  std::set<std::string> found;
  const size_t width = std::min<size_t>(5, words.size());
  for (size_t i = 0; i + width <= words.size(); ++i) {
    const std::string_view first = words[i], last = words[i + width - 1];
    found.emplace(first.data(), last.data() + last.size());
  }
  return found;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("normal form: case, numbers, punctuation, white space, accents") {
    CHECK(normal("The  QUICK\tbrown\r\n fox!") == "the quick brown fox");
    CHECK(normal("") == "");
    CHECK(normal(" \n ...") == "");
    CHECK(normal("in 2,024 and 1.2.3, 1..2 5% x1y22") == "in 0 and 0 0 0 0 0 x0y0");
    CHECK(normal("٣٫١٤ ५") == "0 0");                    // digits of any script, an Arabic decimal mark
    CHECK(normal("$5 a+b © don't") == "0 a b © don t");  // signs that are no punctuation stay
    CHECK(normal("Éte\u0301 ÀÖ") == "ete ao");
    CHECK(normal("\u00a0x\u3000y\u200bz\u2028") == "x y\u200bz");
    CHECK(normal("\u0301 a \u0301 b") == "a b");  // marks alone leave no word, nor a second blank
    CHECK(normal("한") == "\u1112\u1161\u11ab");  // three times as long
    CHECK(normal("ΟΔΟΣ ΟΔΟΣ' ΣΑΣ.Σ Σ") == "οδος οδος σασ ς σ");
    CHECK(normal("𝔘𐐀") == "𝔘𐐨");
    CHECK(normal("İ") == "i");
  }

  TEST_CASE("normal form: grows with what it holds") {
    std::string text, expected;
    for (int i = 0; i < 5000; ++i) {
      text += "각";
      expected += "\u1100\u1161\u11a8";
    }
    CHECK(normal(text) == expected);
    CHECK(normal(text + " END") == expected + " end");
  }

  TEST_CASE("normal form: words are views of it") {
    std::vector<std::string_view> words = {"old"};
    split_normal_form("one two", words);
    CHECK(words == std::vector<std::string_view>{"one", "two"});
    split_normal_form("", words);
    CHECK(words.empty());
  }

  TEST_CASE("normal form: the Jaccard similarities of datatrove's shingles, exactly") {
    const Json fixture = read_json(COPPICE_SOURCE_DIR "/tests/corpus/fixtures/near_duplicates.json");
    CHECK(fixture["pairs"].size() == 24);
    for (const Json& pair : fixture["pairs"]) {
      const std::set<std::string> a = shingles(pair["a"]), b = shingles(pair["b"]);
      const auto common =
          static_cast<size_t>(std::ranges::count_if(a, [&](const auto& one) { return b.contains(one); }));
      if (pair.contains("common")) {
        CHECK(a.size() == pair["shingles_a"].get<size_t>());
        CHECK(b.size() == pair["shingles_b"].get<size_t>());
        CHECK(common == pair["common"].get<size_t>());
      }
      CHECK(static_cast<double>(common) / static_cast<double>(a.size() + b.size() - common) ==
            pair["jaccard"].get<double>());
    }
  }
}
