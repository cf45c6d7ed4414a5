#include "src/tensors/kernels/loss_terms.h"

#include <doctest/doctest.h>

#include <array>

#include "tests/kernels/every_schedule.h"
#include "tests/kernels/table_bytes.h"

using namespace coppice;

namespace {

using Sums = std::array<double, kNumLossTermSums>;
constexpr Sums kBefore = {1, 2, 3, 4, 5, 6};

std::vector<LossTerms> terms_of(int64_t num_rows) {
  std::vector<LossTerms> terms;
  for (int64_t n = 0; n < num_rows; ++n)
    terms.push_back({10.0f * number(n, 1), 3.0f * number(n, 2), 0.01f * number(n, 3), static_cast<int32_t>(n * 5 % 8)});
  return terms;
}

Sums add_up(const std::vector<LossTerms>& terms) {
  Sums sum = kBefore;
  REQUIRE(emulated::add_loss_terms(
              {.terms = terms.data(), .sum = sum.data(), .num_rows = static_cast<int64_t>(terms.size())}, nullptr) ==
          0);
  return sum;
}

}  // namespace

TEST_SUITE("kernel") {
  TEST_CASE("loss_terms: sums of rows, with equal bits under every schedule") {
    for (const int64_t num_rows : {0, 1, 31, 1024, 5003}) {
      if (kUnderRaceCheck && num_rows > 1024) continue;
      CAPTURE(num_rows);
      const std::vector<LossTerms> terms = terms_of(num_rows);
      Sums expected = kBefore;
      for (const LossTerms& row : terms) {
        expected[0] += row.ce;
        expected[1] += row.kd;
        expected[2] += row.z;
        for (int mark = 0; mark < 3; ++mark) expected[static_cast<size_t>(3 + mark)] += row.marks >> mark & 1;
      }
      executor::set_schedule({});
      const Sums sums = add_up(terms);
      for (size_t i = 0; i < 3; ++i) CHECK(std::fabs(sums[i] - expected[i]) <= 1e-11);
      for (size_t i = 3; i < sums.size(); ++i) CHECK(sums[i] == expected[i]);
      if (kUnderRaceCheck) continue;
      for (const executor::Schedule& schedule : kSchedules) {
        executor::set_schedule(schedule);
        CHECK(add_up(terms) == sums);
      }
      executor::set_schedule({});
    }
  }

  TEST_CASE("loss_terms: bytes of a row") {
    check_table_bytes(Kernel::add_loss_terms, {.rows = 100}, [] { add_up(terms_of(100)); });
  }
}
