#include "src/tensors/kernels/vector_math.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

using namespace coppice;

namespace {

COPPICE_INLINE void exp_all_loop(const float* x, float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = vector_exp(x[i]);
}
constexpr auto exp_all = per_instruction_set<exp_all_loop>;
COPPICE_INLINE void sigmoid_all_loop(const float* x, float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = vector_sigmoid(x[i]);
}
constexpr auto sigmoid_all = per_instruction_set<sigmoid_all_loop>;

COPPICE_INLINE void log_all_loop(const float* x, float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = vector_log(x[i]);
}
constexpr auto log_all = per_instruction_set<log_all_loop>;

double ulps(float got, double exact) {
  const float nearest = static_cast<float>(exact);
  return std::abs(got - exact) / (std::nextafter(nearest, std::numeric_limits<float>::infinity()) - nearest);
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("vector_log: ulps from the smallest normal number up") {
    std::vector<float> x, y;
    for (float value = 1.2e-38f; value < 1e38f; value *= 1.00037f) x.push_back(value);
    for (float value = 0.5f; value < 2.0f; value += 0.00011f) x.push_back(value);
    y.resize(x.size());
    log_all(x.data(), y.data(), static_cast<int64_t>(x.size()));
    double worst = 0.0;
    for (size_t i = 0; i < x.size(); ++i)
      worst =
          std::max(worst, std::abs(y[i] - std::log(double{x[i]})) / std::max(1e-7, std::abs(std::log(double{x[i]}))));
    CHECK(worst <= 2e-7);
    float one = 1.0f, zero = 1.0f;
    log_all(&one, &zero, 1);
    CHECK(zero == 0.0f);
  }

  TEST_CASE("vector_exp and vector_sigmoid: ulps over the whole range") {
    std::vector<float> x, e, s;
    for (float value = -87.0f; value < 88.7f; value += 0.00037f) x.push_back(value);
    e.resize(x.size());
    s.resize(x.size());
    exp_all(x.data(), e.data(), static_cast<int64_t>(x.size()));
    sigmoid_all(x.data(), s.data(), static_cast<int64_t>(x.size()));
    double worst_exp = 0.0, worst_sigmoid = 0.0;
    for (size_t i = 0; i < x.size(); ++i) {
      worst_exp = std::max(worst_exp, ulps(e[i], std::exp(double{x[i]})));
      worst_sigmoid = std::max(worst_sigmoid, ulps(s[i], 1.0 / (1.0 + std::exp(-double{x[i]}))));
    }
    CHECK(worst_exp < 1.0 + 0.5);  // without fused multiply-add the polynomial loses half an ulp more
    CHECK(worst_sigmoid < 3.0);
  }

  TEST_CASE("vector_exp: ends of the range") {
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    const std::vector<float> x{0.0f,
                               -0.0f,
                               kInfinity,
                               -kInfinity,
                               88.72f,
                               88.8f,
                               1e30f,
                               -1e30f,
                               -104.5f,
                               -90.0f,
                               std::numeric_limits<float>::quiet_NaN()};
    std::vector<float> y(x.size());
    exp_all(x.data(), y.data(), static_cast<int64_t>(x.size()));
    CHECK(y[0] == 1.0f);
    CHECK(y[1] == 1.0f);
    CHECK(y[2] == kInfinity);
    CHECK(y[3] == 0.0f);
    CHECK(y[4] == doctest::Approx(std::exp(88.72)).epsilon(1e-5));
    CHECK(y[5] == kInfinity);
    CHECK(y[6] == kInfinity);
    CHECK(y[7] == 0.0f);
    CHECK(y[8] == 0.0f);
    CHECK(y[9] == doctest::Approx(std::exp(-90.0)).epsilon(1e-4));  // subnormal
    CHECK(std::isnan(y[10]));
  }
}
