// Words in names.
#include "src/text/html/name_marks.h"

#include <doctest/doctest.h>

namespace coppice {

TEST_SUITE("unit") {
  TEST_CASE("name_marks: words are found inside others, in any case, and several at once") {
    CHECK(name_marks("") == 0);
    CHECK(name_marks("x") == 0);
    CHECK(name_marks("SideBar-left") == (kUnlikely | kNegative));
    CHECK(name_marks("article") == (kMaybe | kPositive));
    CHECK((name_marks("article-comments body") & (kUnlikely | kMaybe)) == (kUnlikely | kMaybe));
    CHECK((name_marks("mycommentpost") & kUnlikely) != 0);
  }

  TEST_CASE("name_marks: some words count whole alone") {
    CHECK(name_marks("hid") == kNegative);
    CHECK(name_marks("a hid b") == kNegative);
    CHECK(name_marks("a\nhid") == kNegative);
    CHECK(name_marks("chide") == 0);
    CHECK((name_marks("MathJax") & kFormula) != 0);
    CHECK((name_marks("MathJaxed") & kFormula) == 0);
  }

  TEST_CASE("name_marks: a word that breaks off begins another") {
    CHECK((name_marks("combanner") & kUnlikely) != 0);    // combx, banner
    CHECK((name_marks("sidesponsor") & kUnlikely) != 0);  // sidebar, sponsor
    CHECK((name_marks("\xC3\xA9menu") & kUnlikely) != 0);
  }
}

}  // namespace coppice
