// Two steps by hand.
#include "src/corpus/classify/ftrl.h"

#include <doctest/doctest.h>

#include <cmath>

using namespace coppice;

TEST_SUITE("unit") {
  TEST_CASE("ftrl: two steps of one weight are those of the formula") {
    FtrlProximal model(2, {.alpha = 0.5F, .beta = 1, .l1 = 0.25F, .l2 = 2});
    // g = 3: sigma = 3 / 0.5 = 6, z = 3 - 6 * 0 = 3, n = 9, w = -(3 - 0.25) / ((1 + 3) / 0.5 + 2) = -2.75 / 10
    model.step(0, 3);
    CHECK(model.weights()[0] == doctest::Approx(-0.275));
    // g = -4: sigma = (5 - 3) / 0.5 = 4, z = 3 - 4 - 4 * -0.275 = 0.1, n = 25: below l1
    model.step(0, -4);
    CHECK(model.weights()[0] == 0);
    // g = -12: sigma = (13 - 5) / 0.5 = 16, z = 0.1 - 12 - 16 * 0 = -11.9, n = 169, w = (11.9 - 0.25) / (14 / 0.5 + 2)
    model.step(0, -12);
    CHECK(model.weights()[0] == doctest::Approx(11.65 / 30));
    CHECK(model.weights()[1] == 0);
  }
}
