// Half precision to float: every one of the 65,536 numbers against its definition.
#include "src/tokens/half.h"

#include <doctest/doctest.h>

#include <cmath>

using namespace coppice;

TEST_SUITE("unit") {
  TEST_CASE("half: every number has its value") {
    int wrong = 0;
    for (uint32_t half = 0; half < 65536; ++half) {
      const int exponent = static_cast<int>(half >> 10 & 31), mantissa = static_cast<int>(half & 1023);
      const float value = half_to_float(static_cast<uint16_t>(half));
      if (exponent == 31 && mantissa != 0) {
        wrong += !std::isnan(value);
        continue;
      }
      const double magnitude = exponent == 31  ? INFINITY
                               : exponent == 0 ? std::ldexp(mantissa, -24)
                                               : std::ldexp(1024 + mantissa, exponent - 25);
      const auto expected = static_cast<float>(half >= 32768 ? -magnitude : magnitude);
      wrong += value != expected || std::signbit(value) != std::signbit(expected);
    }
    CHECK(wrong == 0);
    CHECK(half_to_float(0x3555) == 0.333251953125F);  // 1365 / 4096
  }
}
