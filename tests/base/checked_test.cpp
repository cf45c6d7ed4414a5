#include "src/base/checked.h"

#include <doctest/doctest.h>

#include <limits>

#include "tests/caught.h"

using namespace coppice;

namespace {
constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();
}

TEST_SUITE("unit") {
  TEST_CASE("checked: results up to 2^64 - 1, overflow is a bad file") {
    CHECK(checked_add(kMax - 1, 1, "f") == kMax);
    CHECK(checked_multiply(0xffffffffu, 0x100000001u, "f") == kMax);
    CHECK(checked_multiply(0, kMax, "f") == 0);
    CHECK(checked_round_up(0, 32, "f") == 0);
    CHECK(checked_round_up(1, 32, "f") == 32);
    CHECK(checked_round_up(32, 32, "f") == 32);
    CHECK(checked_round_up(33, 32, "f") == 64);
    CHECK(checked_round_up(kMax, 1, "f") == kMax);
    CHECK(caught([] { checked_add(kMax, 1, "f.gguf"); }).text ==
          "f.gguf: the sum 18446744073709551615 + 1 does not fit in 64 bits");
    CHECK(caught([] { checked_multiply(uint64_t{1} << 32, uint64_t{1} << 32, "f"); }).code == 3);
    CHECK(caught([] { checked_round_up(kMax - 3, 32, "f"); }).code == 3);
    CHECK(caught([] { checked_round_up(5, 0, "f"); }).code == 3);
  }
}
