// rope_freqs.weight both ways: Llama 3.1's and 3.2's numbers, other parameters fitted, and what no parameters give.
#include "src/checkpoint/rope_factors.h"

#include <doctest/doctest.h>

#include <cmath>
#include <numbers>

using namespace coppice;

namespace {

constexpr RopeScaling kLlama31{}, kLlama32{.factor = 32.0};

/// As the converter of llama.cpp computes them, frequencies in float32 and by wavelengths.
std::vector<float> converted(const RopeScaling& scaling, float theta, int64_t head_dim) {
  std::vector<float> factors;
  const double length = static_cast<double>(scaling.original_max_position_embeddings);
  for (int64_t i = 0; i < head_dim; i += 2) {
    const float frequency = 1.0F / std::pow(theta, static_cast<float>(i) / static_cast<float>(head_dim));
    const double wavelength = 2 * std::numbers::pi / double{frequency};
    if (wavelength < length / scaling.high_freq_factor) {
      factors.push_back(1.0F);
    } else if (wavelength > length / scaling.low_freq_factor) {
      factors.push_back(static_cast<float>(scaling.factor));
    } else {
      const double smooth =
          (length / wavelength - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
      factors.push_back(static_cast<float>(1 / ((1 - smooth) / scaling.factor + smooth)));
    }
  }
  return factors;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("rope_factors: as the converter writes them") {
    for (const RopeScaling& scaling : {kLlama31, kLlama32})
      for (const int64_t head_dim : {64, 128}) {
        const std::vector<float> ours = rope_factors(scaling, 500000.0, head_dim),
                                 theirs = converted(scaling, 500000.0F, head_dim);
        REQUIRE(ours.size() == theirs.size());
        for (size_t i = 0; i < ours.size(); ++i) CHECK(ours[i] == doctest::Approx(theirs[i]).epsilon(1e-4));
        CHECK(ours.front() == 1.0F);
        CHECK(ours.back() == static_cast<float>(scaling.factor));
      }
  }

  TEST_CASE("rope_factors: parameters of published models come back as they are") {
    for (const RopeScaling& scaling : {kLlama31, kLlama32})
      for (const int64_t head_dim : {16, 64, 128})
        CHECK(find_rope_scaling(converted(scaling, 500000.0F, head_dim), 500000.0, head_dim, 131072) == scaling);
    const RopeScaling small{.factor = 4.0, .original_max_position_embeddings = 64};
    CHECK(find_rope_scaling(rope_factors(small, 10000.0, 16), 10000.0, 16, 256) == small);
  }

  TEST_CASE("rope_factors: others are fitted, and give the same factors") {
    for (const RopeScaling& scaling :
         {RopeScaling{
              .factor = 5.0, .low_freq_factor = 1.5, .high_freq_factor = 7.0, .original_max_position_embeddings = 3000},
          RopeScaling{
              .factor = 3.0, .low_freq_factor = 3.0, .high_freq_factor = 5.0, .original_max_position_embeddings = 8192},
          RopeScaling{.factor = 20.0,
          .low_freq_factor = 1.0,
          .high_freq_factor = 32.0,
          .original_max_position_embeddings = 4096}}) {
      const std::vector<float> factors = rope_factors(scaling, 500000.0, 128);
      const auto found = find_rope_scaling(factors, 500000.0, 128, 131072);
      REQUIRE(found.has_value());
      const std::vector<float> again = rope_factors(*found, 500000.0, 128);
      for (size_t i = 0; i < factors.size(); ++i) CHECK(again[i] == doctest::Approx(factors[i]).epsilon(1e-4));
    }
  }

  TEST_CASE("rope_factors: what is no scaling of Llama 3 has no parameters") {
    const auto none = [](std::vector<float> factors) {
      return !find_rope_scaling(factors, 500000.0, static_cast<int64_t>(2 * factors.size()), 131072).has_value();
    };
    std::vector<float> bent = rope_factors(kLlama31, 500000.0, 128);
    CHECK_FALSE(none(bent));
    bent[35] *= 1.01F;
    CHECK(none(bent));
    CHECK(none(std::vector<float>(64, 2.0F)));  // all frequencies alike
    std::vector<float> rising(64);
    for (size_t i = 0; i < rising.size(); ++i) rising[i] = 1.0F + 0.1F * static_cast<float>(i);
    CHECK(none(rising));
    rising[3] = NAN;
    CHECK(none(rising));
    CHECK(none(std::vector<float>(64, 0.5F)));
    // The right shape, but trained longer than the model has positions.
    CHECK_FALSE(find_rope_scaling(rope_factors(kLlama31, 500000.0, 128), 500000.0, 128, 4096).has_value());
  }
}
