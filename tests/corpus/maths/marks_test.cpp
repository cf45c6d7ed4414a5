// Marks of mathematics against the fixture and by hand.
#include "src/corpus/maths/marks.h"
#include "src/text/text_encoding.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "src/base/json.h"
#include "tests/caught.h"
#include "tests/scratch_folder.h"

using namespace coppice;

namespace {

using Numbers = std::vector<uint32_t>;

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("maths marks: the built-in lists and the pages of mathematics.json, exactly") {
    const Json fixture = read_json(COPPICE_SOURCE_DIR "/tests/corpus/fixtures/mathematics.json");
    const std::vector<std::string> templates = list_entries(kMathsTemplates), symbols = list_entries(kMathsSymbols);
    CHECK(templates == fixture["templates"].get<std::vector<std::string>>());
    CHECK(symbols == fixture["symbols"].get<std::vector<std::string>>());
    const StringFinder finder(templates, "templates");
    const SymbolCounter counter(symbols, "symbols");
    CHECK(fixture["cases"].size() == 5);
    for (const Json& page : fixture["cases"]) {
      std::vector<std::string> found;
      for (const uint32_t number : finder.find(page["html"].get<std::string>())) found.push_back(templates[number]);
      std::ranges::sort(found);
      CHECK_MESSAGE(found == page["templates"].get<std::vector<std::string>>(), page["id"].get<std::string>());
      CHECK_MESSAGE(counter.count(page["text"].get<std::string>()) == page["symbols"].get<uint64_t>(),
                    page["id"].get<std::string>());
    }
    for (const std::string& symbol : symbols) CHECK_MESSAGE(counter.count("a" + symbol + "1") == 1, symbol);
    for (uint32_t i = 0; i < templates.size(); ++i) {
      const Numbers found = finder.find("x" + templates[i] + "x");
      CHECK_MESSAGE(std::ranges::find(found, i) != found.end(), templates[i]);
    }
  }

  TEST_CASE("maths marks: strings within strings and beside each other") {
    const StringFinder finder({"he", "she", "his", "hers", "e", "xyz"}, "here");
    CHECK(finder.find("ushers") == Numbers{0, 1, 3, 4});
    CHECK(finder.find("ahishe") == Numbers{0, 1, 2, 4});
    CHECK(finder.find("xyxyz") == Numbers{5});
    CHECK(finder.find("xy") == Numbers{});
    CHECK(finder.find("") == Numbers{});
    CHECK(StringFinder({std::string("\0\xff", 2)}, "here").find(std::string("a\0\xff", 3)) == Numbers{0});
    CHECK(StringFinder({"a", "a"}, "here").find("a") == Numbers{0});
  }

  TEST_CASE("maths marks: a command ends where no letter follows") {
    const SymbolCounter counter({"\\in", "\\int", "\u2211"}, "here");
    CHECK(counter.count("\\in \\int \\into \\in1 \\in_ \\IN \\\\in in") == 5);
    CHECK(counter.count("\\int\u00e4") == 1);
    CHECK(counter.count("\u2211\u2211 \u2212") == 2);
    CHECK(counter.count("\\") == 0);
    CHECK(counter.count("\\" + std::string(1 << 20, 'a')) == 0);
    CHECK(counter.count("\xe2\x88") == 0);  // cut short
    CHECK(count_code_points("a\u00e4\u2211\U0001D54F") == 4);
  }

  TEST_CASE("maths marks: lists that are none") {
    CHECK(list_entries("a\r\n\n b \nc") == std::vector<std::string>{"a", " b ", "c"});
    CHECK(
        caught([] { StringFinder({}, "list"); }).says("list: got 0 strings of 0 bytes together, expected 1 to 65535"));
    CHECK(caught([] { StringFinder({std::string(70000, 'a')}, "list"); }).code == 3);
    CHECK(caught([] { SymbolCounter({}, "list"); }).says("list: got no symbol"));
    for (const char* symbol : {"alpha", "\\", "\\a1", "a", "\u2211\u2211", "\\\u2211"})
      CHECK_MESSAGE(caught([&] { SymbolCounter({symbol}, "list"); }).says("expected \\name or a single character"),
                    symbol);
  }
}
