// The table of steps.
#include <doctest/doctest.h>

#include <set>
#include <string>

#include "src/corpus/step.h"

using namespace coppice;

TEST_SUITE("unit") {
  TEST_CASE("steps: a rule keeps what equals a limit, and what was not measured") {
    const Rule rule{.name = "words", .least = 50, .most = 100000};
    CHECK(rule.drops(49));
    CHECK_FALSE(rule.drops(50));
    CHECK_FALSE(rule.drops(100000));
    CHECK(rule.drops(100001));
    CHECK_FALSE(rule.drops(std::numeric_limits<double>::quiet_NaN()));
  }

  TEST_CASE("steps: every row says what it does, by a name of its own") {
    std::set<std::string> kinds;
    for (const StepKind* kind : step_kinds()) {
      CHECK_MESSAGE(kinds.insert(kind->kind).second, kind->kind);
      CHECK_MESSAGE(!std::string(kind->about).empty(), kind->kind);
      CHECK_MESSAGE(std::string(kind->example).starts_with(std::string("coppice data ") + kind->kind), kind->kind);
    }
    CHECK(kinds.size() == step_kinds().size());
  }

  TEST_CASE("steps: no option is called as what every [[data.step]] has") {
    size_t options = 0;
    for (const StepKind* kind : step_kinds())
      for (const StepOption& option : kind->options()) {
        ++options;
        for (const char* taken : {"kind", "name", "only"})
          CHECK_MESSAGE(option.key != taken, kind->kind << "." << option.key);
      }
    CHECK(options > 50);
  }
}
