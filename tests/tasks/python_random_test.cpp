#include "src/tasks/python_random.h"

#include <doctest/doctest.h>

using namespace coppice;

TEST_SUITE("unit") {
  TEST_CASE("python_random: what CPython 3.11 draws, from small and large pools") {
    PythonRandom random(1234);
    CHECK(random.sample(30, 3) == std::vector<size_t>{24, 14, 3});
    CHECK(random.sample(30, 3) == std::vector<size_t>{0, 2, 29});
    CHECK(random.sample(30, 3) == std::vector<size_t>{25, 18, 1});
    CHECK(random.sample(100, 12) == std::vector<size_t>{85, 88, 10, 12, 98, 45, 30, 2, 3, 44, 82, 79});
    CHECK(random.sample(8, 8) == std::vector<size_t>{7, 4, 3, 1, 0, 5, 2, 6});
    CHECK(random.sample(5, 0).empty());
    PythonRandom another(0);
    CHECK(another.uniform() == 0.8444218515250481);
    CHECK(another.uniform() == 0.7579544029403025);
  }
}
