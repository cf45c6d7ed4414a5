#include "src/tensors/kernels/split_master.h"

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <initializer_list>

using namespace coppice;

TEST_SUITE("kernel") {
  TEST_CASE("split_master: both halves are the master bit for bit, the working copy is its nearest bf16") {
    bool exact = true, nearest = true;
    const auto check = [&](uint32_t bits) {
      const float master = std::bit_cast<float>(bits);
      const SplitMaster split = split_master(master);
      if (std::isnan(master)) {
        exact = exact && std::isnan(to_float(split.working)) && std::isnan(join_master(split));
        return;
      }
      exact = exact && std::bit_cast<uint32_t>(join_master(split)) == bits;
      const bool tie = (bits & 0xffff) == 0x8000;
      nearest = nearest && (tie || split.working.bits == to_bf16(master).bits);
    };
    for (uint32_t high = 0; high < 0x10000; ++high)
      for (const uint32_t low : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) check(high << 16 | low);
    for (uint32_t low = 0; low < 0x10000; ++low)
      for (const uint32_t high : {0u, 0x3f80u, 0x7f7fu, 0xbf81u, 0xff7fu}) check(high << 16 | low);
    CHECK(exact);
    CHECK(nearest);
  }
}
