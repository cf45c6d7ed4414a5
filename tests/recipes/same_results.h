// Two runs, file by file.
#pragma once

#include <doctest/doctest.h>

#include <map>
#include <string>

#include "tests/recipes/program.h"

namespace coppice::test {

/// Path -> bytes, as results_of() gives them.
inline void check_same(const std::map<std::string, std::string>& got,
                       const std::map<std::string, std::string>& expected) {
  CHECK(got.size() == expected.size());
  for (const auto& [name, bytes] : expected) {
    INFO(name);
    REQUIRE(got.contains(name));
    CHECK((got.at(name) == bytes));
  }
}
inline void check_same_runs(const fs::path& run, const fs::path& other) {
  check_same(results_of(run), results_of(other));
}

}  // namespace coppice::test
