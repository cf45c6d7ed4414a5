#include "src/base/random.h"

#include <doctest/doctest.h>

#include <cmath>
#include <set>
#include <vector>

#include "tests/caught.h"

using namespace coppice;

TEST_SUITE("golden") {
  // kat_vectors of Random123 (Salmon et al.), rows "philox4x32 10".
  TEST_CASE("philox4x32: known answers") {
    using Words = std::array<uint32_t, 4>;
    CHECK(philox4x32({0, 0, 0, 0}, {0, 0}) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
    const uint32_t ones = 0xffffffff;
    CHECK(philox4x32({ones, ones, ones, ones}, {ones, ones}) == Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
    CHECK(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
          Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
  }
}

TEST_SUITE("unit") {
  TEST_CASE("random_bits: the counter is index, step, purpose; the key is the seed") {
    const uint64_t seed = 0x299f31d0a4093822, index = 0x85a308d3243f6a88, step = 0x00707344'13198a2eull;
    const auto words = philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x05707344}, {0xa4093822, 0x299f31d0});
    CHECK(random_bits(seed, Purpose::sampling, step, index) == ((uint64_t{words[1]} << 32) | words[0]));
    CHECK(caught([] { random_bits(1, Purpose::test, uint64_t{1} << 56, 0); }).code == 1);
  }

  TEST_CASE("random streams: seeds, purposes, steps and indices all matter") {
    std::set<uint64_t> seen;
    for (uint64_t seed : {1, 2})
      for (Purpose purpose : {Purpose::init, Purpose::data_order, Purpose::test})
        for (uint64_t step = 0; step < 5; ++step)
          for (uint64_t index = 0; index < 50; ++index) seen.insert(random_bits(seed, purpose, step, index));
    CHECK(seen.size() == 2 * 3 * 5 * 50);
  }

  TEST_CASE("random_uniform: in [0, 1), moments of the uniform distribution") {
    const int n = 20000;
    double sum = 0, squares = 0;
    for (int i = 0; i < n; ++i) {
      const double u = random_uniform(7, Purpose::test, 3, static_cast<uint64_t>(i));
      REQUIRE(u >= 0);
      REQUIRE(u < 1);
      sum += u;
      squares += u * u;
    }
    CHECK(sum / n == doctest::Approx(0.5).epsilon(0.02));  // standard error 0.002
    CHECK(squares / n == doctest::Approx(1.0 / 3).epsilon(0.02));
  }

  TEST_CASE("fill_normal: element i does not depend on how many there are; moments of N(0, std^2)") {
    std::vector<float> many(20001), few(7);
    fill_normal(many, 0.5, 11, Purpose::init, 4);
    fill_normal(few, 0.5, 11, Purpose::init, 4);
    for (size_t i = 0; i < few.size(); ++i) CHECK(few[i] == many[i]);
    double mean = 0, variance = 0, fourth = 0;
    for (const float x : many) mean += x / static_cast<double>(many.size());
    for (const float x : many) {
      variance += (x - mean) * (x - mean) / static_cast<double>(many.size());
      fourth += std::pow(x / 0.5, 4) / static_cast<double>(many.size());
    }
    CHECK(std::abs(mean) < 0.015);
    CHECK(std::sqrt(variance) == doctest::Approx(0.5).epsilon(0.02));
    CHECK(fourth == doctest::Approx(3).epsilon(0.1));
    double neighbours = 0;
    for (size_t i = 0; i + 1 < many.size(); ++i)
      neighbours += many[i] * many[i + 1] / (0.25 * static_cast<double>(many.size()));
    CHECK(std::abs(neighbours) < 0.03);
    fill_normal(std::span<float>(), 1, 1, Purpose::init, 0);  // nothing to do
    for (const size_t first : {1, 2, 999, 20000}) {
      for (const size_t count : {1, 2, 7, 8}) {
        std::vector<float> part(std::min(count, many.size() - first));
        fill_normal(part, 0.5, 11, Purpose::init, 4, first);
        for (size_t i = 0; i < part.size(); ++i) CHECK(part[i] == many[first + i]);
      }
    }
  }

  TEST_CASE("permute: a bijection for every size, another one for another key") {
    for (const uint64_t size : {1, 2, 3, 5, 16, 17, 1000, 4096, 4097}) {
      CAPTURE(size);
      std::vector<bool> hit(size, false);
      for (uint64_t i = 0; i < size; ++i) {
        const uint64_t image = permute(i, size, 42, Purpose::data_order, 1);
        REQUIRE(image < size);
        REQUIRE_FALSE(hit[image]);
        hit[image] = true;
      }
    }
    int same_place = 0, equal_epochs = 0;
    for (uint64_t i = 0; i < 4097; ++i) {
      const uint64_t image = permute(i, 4097, 42, Purpose::data_order, 1);
      same_place += image == i;
      equal_epochs += image == permute(i, 4097, 42, Purpose::data_order, 2);
    }
    CHECK(same_place < 10);  // one is expected of a random permutation
    CHECK(equal_epochs < 10);
    const uint64_t huge = (uint64_t{1} << 40) + 1;
    CHECK(permute(huge - 1, huge, 1, Purpose::test, 0) < huge);
    CHECK(caught([] { permute(5, 5, 1, Purpose::test, 0); }).code == 1);
  }

  TEST_CASE("permute: every element of a small set goes everywhere about equally often") {
    int counts[3][3] = {};
    for (uint64_t seed = 0; seed < 3000; ++seed)
      for (uint64_t i = 0; i < 3; ++i) ++counts[i][permute(i, 3, seed, Purpose::test, 0)];
    for (const auto& row : counts)
      for (const int count : row) CHECK(std::abs(count - 1000) < 150);  // standard deviation 26
  }
}
