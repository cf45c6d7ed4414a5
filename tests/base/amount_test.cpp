#include "src/base/amount.h"

#include <doctest/doctest.h>

using namespace coppice;

TEST_SUITE("unit") {
  TEST_CASE("amounts: a number above 0 and its unit, and nothing else") {
    CHECK(parse_amount("108M", kCountUnits) == 108e6);
    CHECK(parse_amount("1.08e8", kCountUnits) == 108e6);
    CHECK(parse_amount("1.2B", kCountUnits) == 1.2e9);
    CHECK(parse_amount("0.8", kPlainUnits) == 0.8);
    CHECK(parse_amount("1e18", kPlainUnits) == 1e18);
    for (const char* text : {"", "M", "0", "-1", "1e400", "nan", "inf", "2e18", "1e17k", "3 M", "3MB", " 3", "0x10"})
      CHECK_FALSE(parse_amount(text, kCountUnits).has_value());
    CHECK_FALSE(parse_amount("3M", kPlainUnits).has_value());
  }
}
