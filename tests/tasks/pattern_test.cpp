#include "src/tasks/pattern.h"

#include <doctest/doctest.h>

#include "tests/caught.h"

using namespace coppice;

namespace {

using Matches = std::vector<std::vector<std::string>>;
Matches find(const char* expression, std::string_view text) { return Pattern(expression, "here").find_all(text); }

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("pattern: re.findall of Python 3.11, groups and empty matches") {
    CHECK(find("#### (\\-?[0-9\\.\\,]+)", "a #### 12,5. b #### -7") == Matches{{"12,5."}, {"-7"}});
    CHECK(find("(-?[$0-9.,]{2,})|(-?[0-9]+)", "5 and $1,000.") == Matches{{"", "5"}, {"$1,000.", ""}});
    CHECK(find("x*", "axb") == Matches{{""}, {"x"}, {""}, {""}});
    CHECK(find("x*", "\u00e4") == Matches{{""}, {""}});  // an empty match before and behind one letter
    CHECK(find("[0-9]+", "none").empty());
    CHECK(find("\\w+", "\u00e4\u00f6 b") == Matches{{"\u00e4\u00f6"}, {"b"}});
    CHECK(find("a",
               "\xff"
               "a") == Matches{{"a"}});  // text that is no UTF-8
  }

  TEST_CASE("pattern: re.sub with nothing") {
    CHECK(Pattern("(?s).*#### ", "here").remove_all("a\nb #### 4\n#### 5") == "5");
    CHECK(Pattern("\\.$", "here").remove_all("5.") == "5");
    CHECK(Pattern("\\.$", "here").remove_all("5.\n") == "5\n");  // $ stands before a last line break too
    CHECK(Pattern("\\[.*?\\]", "here").remove_all("a [b] c [d\n]") == "a  c [d\n]");
    CHECK(Pattern("x*", "here").remove_all("axbx") == "ab");
  }

  TEST_CASE("pattern: letters of other scripts change their case") {
    CHECK(lower_case("\u00c4B \u0416") == "\u00e4b \u0436");
    CHECK(capitalized("\u00e4RGER Is") == "\u00c4rger is");
    CHECK(capitalized("") == "");
    CHECK(lower_case("") == "");
  }

  TEST_CASE("pattern: what is no expression, and one that would never end, are refused") {
    CHECK(caught([] { Pattern("(", "file.yaml"); }).says("file.yaml"));
    CHECK(caught([] { Pattern("(", "file.yaml"); }).code == 3);
    CHECK(caught([] { Pattern(std::string(20000, 'a'), "file.yaml"); }).code == 3);
    const auto endless = caught([] { find("(a+)+$", std::string(60, 'a') + "b"); });
    CHECK(endless.code == 3);
    CHECK(endless.says("match limit"));
  }
}
