#include "src/base/threads.h"

#include <doctest/doctest.h>

#include <cstdlib>
#include <limits>
#include <optional>

using namespace coppice;

namespace {

constexpr double kNone = std::numeric_limits<double>::infinity();

/// OMP_NUM_THREADS for as long as it lives.
struct Variable {
  std::optional<std::string> before;
  explicit Variable(const char* value) {
    if (const char* old = std::getenv("OMP_NUM_THREADS")) before = old;
    value != nullptr ? setenv("OMP_NUM_THREADS", value, 1) : unsetenv("OMP_NUM_THREADS");
  }
  ~Variable() { before ? setenv("OMP_NUM_THREADS", before->c_str(), 1) : unsetenv("OMP_NUM_THREADS"); }
};

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("usable processors: the cores, or a smaller quota rounded down, at least 1") {
    const struct {
      int cores;
      double quota;
      int usable;
    } rows[] = {{4, kNone, 4}, {4, 2, 2},     {4, 2.0 - 1e-12, 2}, {4, 1.5, 1},   {4, 0.01, 1}, {2, 2, 2},
                {2, 8, 2},     {1, kNone, 1}, {64, 63.9, 63},      {4, 3.999, 3}, {4, 1e300, 4}};
    for (const auto& row : rows) {
      CAPTURE(row.cores);
      CAPTURE(row.quota);
      CHECK(Processors{row.cores, row.quota}.usable() == row.usable);
    }
  }

  TEST_CASE("threads asked for: the recipe, then OMP_NUM_THREADS") {
    const struct {
      int recipe;
      const char* variable;
      int asked;
    } rows[] = {{0, nullptr, 0}, {3, nullptr, 3}, {3, "7", 3},     {0, "7", 7},
                {0, "4,2", 4},   {0, "", 0},      {0, "0", 0},     {0, "-2", 0},
                {0, "x", 0},     {0, "4x", 0},    {0, "99999", 0}, {0, "99999999999999999999", 0}};
    for (const auto& row : rows) {
      CAPTURE(row.recipe);
      CAPTURE(row.variable);
      const Variable variable(row.variable);
      CHECK(asked_threads(row.recipe) == row.asked);
      CHECK(choose_threads(row.recipe) == (row.asked > 0 ? row.asked : find_processors().usable()));
    }
  }

  TEST_CASE("threads in words") {
    {
      const Variable variable(nullptr);
      CHECK(threads_text(0, 2, 1, {4, 2}) == "2 threads (4 cores, CPU quota 2.0)");
      CHECK(threads_text(0, 1, 1, {1, kNone}) == "1 thread (1 core)");
      CHECK(threads_text(1, 1, 4, {4, kNone}) == "4 x 1 thread (the recipe's threads; 4 cores)");
    }
    const Variable variable("3");
    CHECK(threads_text(0, 3, 1, {4, kNone}) == "3 threads (OMP_NUM_THREADS; 4 cores)");
    CHECK(threads_text(2, 2, 1, {4, 1.5}) == "2 threads (the recipe's threads; 4 cores, CPU quota 1.5)");
  }

  TEST_CASE("more threads than processors is worth a warning") {
    CHECK(threads_warning(4, 1, {4, kNone}).empty());
    CHECK(threads_warning(2, 2, {4, kNone}).empty());
    CHECK(threads_warning(2, 1, {4, 2}).empty());
    CHECK(threads_warning(3, 1, {4, 2}) ==
          "3 threads are more than the CPU quota of 2.0, and every step waits for the thread that comes last: 2 in all "
          "would be quicker");
    CHECK(threads_warning(1, 4, {2, kNone}).starts_with("4 x 1 thread are more than the 2 cores,"));
    CHECK(threads_warning(2, 1, {2, 1.5}).ends_with(": 1 in all would be quicker"));
  }
}
