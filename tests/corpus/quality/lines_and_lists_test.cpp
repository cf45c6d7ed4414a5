// Lines of DCLM, C4's references, lists of addresses.
#include <doctest/doctest.h>

#include <array>
#include <cmath>

#include "src/base/errors.h"
#include "src/corpus/quality/c4.h"
#include "src/corpus/quality/dclm_lines.h"
#include "src/corpus/quality/url_lists.h"
#include "tests/scratch_folder.h"

using namespace coppice;

namespace {

std::string refusal(const std::filesystem::path& domains, const std::filesystem::path& words) {
  try {
    UrlLists(domains, words);
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

std::string c4_text(const std::string& whole, const C4Options& options) {
  QualityText text(WordRule::english);
  text.set(whole, "");
  std::array<double, 3> values;
  values.fill(std::nan(""));
  C4 c4(options);
  c4.measure(text, values);
  return c4.kept_text();
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("dclm lines: capitals, digits, counters, single words, shops") {
    for (const char* line : {"ALL CAPITALS HERE", "123 456", "2024", "12 likes", "* 1,234 Comments!", "1.2K  views",
                             "Menu", "3 items in cart", "The end of it. Read more...", "Sign-in to comment"}) {
      CAPTURE(line);
      CHECK(is_dclm_line_dropped(line) == (std::string(line) != "123 456"));
    }
    for (const char* line : {"", "He said 12 likes were enough", "12 bananas", "Some CAPITALS here, few of them",
                             "Sign-in is what this long line of more than ten words begins with today"}) {
      CAPTURE(line);
      CHECK_FALSE(is_dclm_line_dropped(line));
    }
    std::array<double, 1> values = {std::nan("")};
    std::string kept;
    CHECK(measure_dclm_lines("One line stays.\n12 likes\n\nAnother one stays.", values, kept));
    CHECK(values[0] == 2.0 / 8);
    CHECK(kept == "One line stays.\n\nAnother one stays.");
    CHECK_FALSE(measure_dclm_lines("One line stays.", values, kept));
    CHECK(values[0] == 0.0);
  }

  TEST_CASE("c4: references go, what stands around them stays; limits are options") {
    CHECK(c4_text("[1]It was[23][edit] so[citation needed] [x] [12.", {.terminal = false}) == "It was so [x] [12.");
    CHECK(c4_text("It was so [1]", {.terminal = false}) == "It was so");
    CHECK(c4_text("It was so [1]", {}) == "");
    CHECK(c4_text("Two words.\nThree words here.", {.fewest_words = 2}) == "Two words.\nThree words here.");
    CHECK(c4_text("A longer word is here.\nA short one is.", {.longest_word = 5}) == "A short one is.");
    CHECK(c4_text("Here we USE COOKIES always.\nPlease read our Privacy Policy.\nIt rained today.", {}) ==
          "It rained today.");
  }

  TEST_CASE("url lists: domains with what is below them, whole words of addresses") {
    const ScratchFolder scratch;
    spill(scratch / "domains", "# comment\nExample.com\n\nbad.example.org # why\n");
    spill(scratch / "words", "casino\nfree\n");
    const UrlLists lists(scratch / "domains", scratch / "words");
    CHECK(lists.inputs().size() == 2);
    CHECK(lower_host("https://user:x@Www.Example.com.:8080/a@b") == "www.example.com");
    CHECK(lower_host("example.com/path") == "example.com");
    CHECK(lists.is_domain_listed("https://www.example.com/a"));
    CHECK(lists.is_domain_listed("http://bad.example.org"));
    CHECK_FALSE(lists.is_domain_listed("https://notexample.com/example.com"));
    CHECK_FALSE(lists.is_domain_listed("https://example.org"));
    std::string host = "example.com";
    while (host.size() < 253) host.insert(0, host.size() == 251 ? "aa" : "a.");
    CHECK(host.size() == 253);
    CHECK(lists.is_domain_listed("https://" + host + "/"));
    CHECK_FALSE(lists.is_domain_listed("https://a." + host + "/"));  // no name of a host is longer
    std::array<double, 2> values = {std::nan(""), std::nan("")};
    lists.measure("", values);
    CHECK(std::isnan(values[0]));
    lists.measure("https://x.org/Free-casino_freedom", values);
    CHECK(values[0] == 0);
    CHECK(values[1] == 2);
    spill(scratch / "bad", "example.com\nhttps://example.com/\n");
    CHECK(refusal(scratch / "bad", "")
              .ends_with("bad:2: got 'https://example.com/', expected a domain as in example.com"));
    CHECK(refusal("", scratch / "domains")
              .ends_with("domains:2: got 'Example.com', expected one word of letters and digits"));
  }
}
