// Area under the curve, Platt's parameters and the tables, by hand.
#include "src/corpus/classify/held_out.h"

#include <doctest/doctest.h>

#include <cmath>

using namespace coppice;

TEST_SUITE("unit") {
  TEST_CASE("held_out: the area is the share of pairs in the right order, a tie being half a pair") {
    CHECK(area_under_curve(std::vector<HeldOutScore>{{0, false}, {1, true}}) == 1);
    CHECK(area_under_curve(std::vector<HeldOutScore>{{1, false}, {0, true}}) == 0);
    CHECK(area_under_curve(std::vector<HeldOutScore>{{1, false}, {1, true}}) == 0.5);
    // positives 3, 2, 2; negatives 2, 1: pairs 3>2, 3>1, 2=2, 2>1, 2=2, 2>1 = 4 + 2 halves of 6
    CHECK(area_under_curve(std::vector<HeldOutScore>{{2, true}, {1, false}, {3, true}, {2, false}, {2, true}}) ==
          5.0 / 6);
  }

  TEST_CASE("held_out: Platt's parameters of two scores are those that meet the targets") {
    // Three positives at 1, one negative at -1: targets (3 + 1) / (3 + 2) = 0.8 and 1 / (1 + 2), which slope + offset =
    // logit(0.8) = ln 4 and -slope + offset = logit(1/3) = -ln 2 meet exactly.
    const std::vector<HeldOutScore> scores = {{1, true}, {-1, false}, {1, true}, {1, true}};
    const Platt platt = fit_platt(scores);
    CHECK(platt.slope == doctest::Approx((std::log(4) + std::log(2)) / 2).epsilon(1e-6));
    CHECK(platt.offset == doctest::Approx((std::log(4) - std::log(2)) / 2).epsilon(1e-6));
    CHECK(platt(1) == doctest::Approx(0.8).epsilon(1e-6));
    CHECK(platt(-1) == doctest::Approx(1.0 / 3).epsilon(1e-6));
  }

  TEST_CASE("held_out: scores that say nothing give the share of positives") {
    const std::vector<HeldOutScore> scores = {{0.5, true}, {0.5, false}, {0.5, false}, {0.5, false}};
    // targets 2/3 and 1/5 three times: their mean
    CHECK(fit_platt(scores)(0.5) == doctest::Approx((2.0 / 3 + 3 * 0.2) / 4).epsilon(1e-6));
  }

  TEST_CASE("held_out: reliability and precision by hand") {
    const Platt identity{1, 0};  // probability 1 / (1 + exp(-score))
    const auto logit = [](double p) { return std::log(p / (1 - p)); };
    const std::vector<HeldOutScore> scores = {
        {logit(0.02), false}, {logit(0.04), false}, {logit(0.52), true}, {logit(0.58), false}, {logit(0.97), true}};
    const HeldOutReport report = held_out_report(scores, identity);
    CHECK(report.positives == 2);
    CHECK(report.negatives == 3);
    CHECK(report.auc == doctest::Approx(5.0F / 6));
    CHECK(report.reliability[0].documents == 2);
    CHECK(report.reliability[0].mean_probability == doctest::Approx(0.03));
    CHECK(report.reliability[0].positive_share == 0);
    CHECK(report.reliability[1].documents == 0);
    CHECK(report.reliability[1].mean_probability == 0);
    CHECK(report.reliability[5].documents == 2);
    CHECK(report.reliability[5].mean_probability == doctest::Approx(0.55));
    CHECK(report.reliability[5].positive_share == 0.5F);
    CHECK(report.reliability[9].documents == 1);
    CHECK(report.precision[0].threshold == 0);
    CHECK(report.precision[0].kept_share == 1);
    CHECK(report.precision[0].precision == 0.4F);
    CHECK(report.precision[0].recall == 1);
    CHECK(report.precision[11].threshold == 0.55F);  // 0.58 and 0.97
    CHECK(report.precision[11].kept_share == 0.4F);
    CHECK(report.precision[11].precision == 0.5F);
    CHECK(report.precision[11].recall == 0.5F);
    CHECK(report.precision[19].kept_share == 0.2F);
    CHECK(report.precision[19].precision == 1);
  }

  TEST_CASE("held_out: a probability of 1 lies in the last bin") {
    const std::vector<HeldOutScore> scores = {{1000, true}, {-1000, false}};
    const HeldOutReport report = held_out_report(scores, {1, 0});
    CHECK(report.reliability[9].documents == 1);
    CHECK(report.reliability[0].documents == 1);
    CHECK(report.precision[19].recall == 1);
  }
}
