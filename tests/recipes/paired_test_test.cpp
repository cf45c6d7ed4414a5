// Mean, spread and the paired t-test against tables of Student's distribution and a case worked by hand.
#include "recipes/report/paired_test.h"

#include <doctest/doctest.h>

#include <cmath>

using namespace coppice;

TEST_SUITE("unit") {
  TEST_CASE("spread: mean and sample standard deviation; what is not finite does not count") {
    const Spread spread = spread_of({1, NAN, 2, 6, INFINITY});
    CHECK(spread.n == 3);
    CHECK(spread.mean == 3.0);
    CHECK(spread.sd == doctest::Approx(std::sqrt(7.0)));  // (4 + 1 + 9) / 2
    CHECK(std::isnan(spread_of({5}).sd));
    CHECK(std::isnan(spread_of({}).mean));
  }

  TEST_CASE("t distribution: the critical values of its tables, odd and even degrees") {
    const struct {
      int degrees;
      double t, p;
    } rows[] = {{1, 12.7062, 0.05}, {2, 4.30265, 0.05},  {3, 3.18245, 0.05},  {4, 2.77645, 0.05},
                {5, 4.03214, 0.01}, {10, 2.22814, 0.05}, {30, 2.04227, 0.05}, {9, 4.78091, 0.001}};
    for (const auto& row : rows) {
      CHECK(t_test_p(row.t, row.degrees) == doctest::Approx(row.p).epsilon(1e-4));
      CHECK(t_test_p(-row.t, row.degrees) == t_test_p(row.t, row.degrees));
    }
    CHECK(t_test_p(0, 7) == 1.0);
    CHECK(t_test_p(1, 1) == doctest::Approx(0.5));                     // Cauchy: half lies beyond +-1
    CHECK(t_test_p(1, 2) == doctest::Approx(1 - 1 / std::sqrt(3.0)));  // 1 - t / sqrt(2 + t^2)
    CHECK(t_test_p(1e9, 5) < 1e-12);
  }

  TEST_CASE("paired test: differences 1, 2, 3 have t = 2 sqrt(3) with 2 degrees of freedom") {
    const PairedTest test = paired_t_test({11, 22, 33, 7}, {10, 20, 30, NAN});
    CHECK(test.n == 3);
    CHECK(test.mean == 2.0);
    CHECK(test.sd == 1.0);
    CHECK(test.t == doctest::Approx(3.4641016));
    CHECK(test.p == doctest::Approx(0.0741799));         // 1 - t / sqrt(2 + t^2) = 1 - sqrt(12 / 14)
    CHECK(std::isnan(paired_t_test({1}, {2}).p));        // one seed says nothing about chance
    CHECK(std::isnan(paired_t_test({1, 2}, {0, 1}).p));  // no spread, no test
    CHECK(paired_t_test({1, 2}, {0, 1}).mean == 1.0);
  }

  TEST_CASE("Holm: the smallest of four p counts four times, the next three; what is no test does not count") {
    const std::vector<double> corrected = holm_corrected({0.01, NAN, 0.04, 0.03, 0.005});
    REQUIRE(corrected.size() == 5);
    CHECK(corrected[4] == doctest::Approx(0.02));
    CHECK(corrected[0] == doctest::Approx(0.03));
    CHECK(corrected[3] == doctest::Approx(0.06));
    CHECK(corrected[2] == doctest::Approx(0.06));  // 0.04 once, but no smaller than the one before
    CHECK(std::isnan(corrected[1]));
    CHECK(holm_corrected({0.6, 0.7}) == std::vector<double>{1, 1});
    CHECK(holm_corrected({}).empty());
  }
}
