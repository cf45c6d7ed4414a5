#include "src/tasks/python_text.h"
#include "src/text/text_encoding.h"

#include <doctest/doctest.h>

using namespace coppice;

TEST_SUITE("unit") {
  TEST_CASE("python_text: what Python 3.11 says of the same strings") {
    CHECK(strip("\u00a0\n a b\t\u3000\x1f") == "a b");
    CHECK(strip_left("\u2003x ") == "x ");
    CHECK(strip_right(" x\u0085") == " x");
    CHECK(strip("\u200b") == "\u200b");  // zero-width space is no white space
    CHECK(strip("") == "");
    CHECK(count_words("") == 1);
    CHECK(count_words("one two") == 2);
    CHECK(count_words(" one \n\u00a0 two ") == 4);  // ['', 'one', 'two', '']
    CHECK(count_code_points("\u00e4\u4e2d\U0001F600a") == 4);
    CHECK(code_points("a\u00e4\U0001F600") == std::vector<std::string>{"a", "\u00e4", "\U0001F600"});
    CHECK(replace_all("aaaa", "aa", "b") == "bb");
    CHECK(replace_all("a    b", "  ", " ") == "a  b");
    CHECK(split_text("a  b ", " ") == std::vector<std::string>{"a", "", "b", ""});
    CHECK(split_text("", " ") == std::vector<std::string>{""});
    CHECK(is_digits("012"));
    CHECK_FALSE(is_digits(""));
    CHECK_FALSE(is_digits("-1"));
  }
}
