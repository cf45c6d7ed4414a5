// Sorted ids in a fixed number of bits: by hand, against the number of lists that there are, and back again.
#include "src/data/sorted_ids.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <random>
#include <tuple>
#include <vector>

#include "src/base/errors.h"

using namespace coppice;

namespace {

/// log2 of the number of sets of k out of n.
double log2_sets(double n, double k) {
  return (std::lgamma(n + 1) - std::lgamma(k + 1) - std::lgamma(n - k + 1)) / std::log(2.0);
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("sorted ids: bits of two ids of sixteen, by hand") {
    // two low bits; high bits 1 of 5 = 0101b and 3 of 14 = 1110b: 0, 1 0, 0, 1; then the low bits 01b and 10b
    const SortedIdCode code(2, 16);
    CHECK(code.bits() == 9);
    std::array<uint8_t, 2> row{};
    code.write(std::array<int64_t, 2>{5, 14}, row.data(), 0);
    CHECK(row == std::array<uint8_t, 2>{0b00110010, 0b1});
    std::array<int64_t, 2> ids{};
    CHECK(code.read(row.data(), 0, ids.data()) == 2);
    CHECK(ids == std::array<int64_t, 2>{5, 14});
    row = {};
    code.write(std::array<int64_t, 1>{14}, row.data(), 0);
    CHECK(row == std::array<uint8_t, 2>{0b01001000, 0b0});  // 0, 0, 0, 1; then 10b
  }

  TEST_CASE("sorted ids: of all patterns those are read that some list leaves, each list by one") {
    const SortedIdCode code(2, 16);
    int lists = 0;
    for (unsigned pattern = 0; pattern < 512; ++pattern) {
      const std::array<uint8_t, 2> row = {static_cast<uint8_t>(pattern), static_cast<uint8_t>(pattern >> 8)};
      std::array<int64_t, 2> ids{};
      const auto count = code.read(row.data(), 0, ids.data());
      if (!count) continue;
      ++lists;
      std::array<uint8_t, 2> again{};
      code.write({ids.data(), *count}, again.data(), 0);
      CHECK(again == row);
    }
    CHECK(lists == 1 + 16 + 16 * 17 / 2);
  }

  TEST_CASE("sorted ids: how many bits, beside log2 of the number of sets") {
    for (const auto& [vocab, most, bits] : {std::tuple<uint64_t, uint64_t, uint64_t>{4096, 4, 47},
                                            {4096, 16, 159},
                                            {4096, 64, 511},
                                            {49'152, 4, 61},
                                            {49'152, 16, 215},
                                            {49'152, 64, 735},
                                            {65'535, 4, 63},
                                            {65'535, 16, 223},
                                            {65'535, 64, 767},
                                            {151'936, 16, 242}}) {
      CAPTURE(vocab);
      CAPTURE(most);
      CHECK(SortedIdCode(most, vocab).bits() == bits);
      const double least = log2_sets(static_cast<double>(vocab), static_cast<double>(most));
      CHECK(static_cast<double>(bits) >= least);
      CHECK(static_cast<double>(bits) <= least + 0.65 * static_cast<double>(most) + 3);
    }
  }

  TEST_CASE(
      "sorted ids: back again, fewer than there may be and equal ones too, at any bit, beside what else is there") {
    std::mt19937_64 random(1);
    for (const uint64_t vocab : {1, 2, 3, 300, 4096, 49'152, 65'535, 151'936})
      for (const uint64_t most : {1, 4, 16, 64}) {
        CAPTURE(vocab);
        CAPTURE(most);
        const SortedIdCode code(most, vocab);
        for (uint64_t round = 0; round < 20; ++round) {
          std::vector<int64_t> ids(round == 0 ? 0 : round == 1 ? most : random() % (most + 1));
          for (int64_t& id : ids) id = static_cast<int64_t>(random() % vocab);
          if (round == 1) std::fill(ids.begin(), ids.end(), static_cast<int64_t>(vocab - 1));
          std::ranges::sort(ids);
          const uint64_t bit = round % 11;
          std::vector<uint8_t> row((bit + code.bits()) / 8 + 2, 0);
          for (uint64_t i = 0; i < bit; ++i) row[i / 8] = static_cast<uint8_t>(row[i / 8] | 1U << i % 8);
          const uint64_t end = bit + code.bits();
          row[end / 8] = static_cast<uint8_t>(row[end / 8] | 1U << end % 8);
          code.write(ids, row.data(), bit);
          std::vector<int64_t> read(most, -7);
          REQUIRE(code.read(row.data(), bit, read.data()) == ids.size());
          read.resize(ids.size());
          REQUIRE(read == ids);
        }
      }
  }

  TEST_CASE("sorted ids: what is out of order, too many or too large is not written") {
    std::array<uint8_t, 2> row{};
    const SortedIdCode code(2, 16);
    CHECK_THROWS_AS(code.write(std::array<int64_t, 2>{14, 5}, row.data(), 0), InternalError);
    CHECK_THROWS_AS(code.write(std::array<int64_t, 3>{1, 2, 3}, row.data(), 0), InternalError);
    CHECK_THROWS_AS(code.write(std::array<int64_t, 1>{16}, row.data(), 0), InternalError);
    CHECK_THROWS_AS(code.write(std::array<int64_t, 1>{-1}, row.data(), 0), InternalError);
  }
}
