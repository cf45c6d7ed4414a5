#include "src/base/nearest.h"

#include <doctest/doctest.h>

using coppice::nearest;

TEST_SUITE("unit") {
  TEST_CASE("nearest: edit distance, swapped neighbours are one edit") {
    CHECK(nearest("kd_wieght", {"teacher_weight", "kd_temperature"}) == "teacher_weight");
    CHECK(nearest("tokne", {"tokens", "token"}) == "token");
    CHECK(nearest("lr", {"seed", "lr", "l"}) == "lr");
    CHECK(nearest("", {"abc", "a"}) == "a");
    CHECK(nearest("x", {}) == "");
  }
}
