// SPDX expressions against a list of what is allowed.
#include "src/corpus/licences/spdx.h"

#include <doctest/doctest.h>

#include <string>

using namespace coppice;

namespace {

std::optional<bool> allows(std::string_view expression) {
  return spdx_allows(expression, [](std::string_view id) { return matches_licence({"MIT", "Apache-2.0"}, id); });
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("spdx: OR needs one side, AND both, WITH is kept") {
    CHECK(allows("MIT") == true);
    CHECK(allows(" mit ") == true);
    CHECK(allows("GPL-2.0-only") == false);
    CHECK(allows("GPL-2.0-only OR MIT") == true);
    CHECK(allows("MIT AND GPL-2.0-only") == false);
    CHECK(allows("MIT and Apache-2.0") == true);
    CHECK(allows("Apache-2.0 WITH LLVM-exception") == true);
    CHECK(allows("GPL-2.0-only WITH Classpath-exception-2.0") == false);
    CHECK(allows("Apache-2.0+") == true);
    CHECK(allows("MIT/Apache-2.0") == true);
    CHECK(allows("GPL-3.0-only OR MIT AND Apache-2.0") == true);  // AND binds closer
    CHECK(allows("(GPL-3.0-only OR MIT) AND GPL-3.0-only") == false);
    CHECK(allows("LicenseRef-ours OR (MIT)") == true);
  }

  TEST_CASE("spdx: what is no expression says so, at any depth") {
    for (const char* text :
         {"", "MIT OR", "OR MIT", "MIT MIT", "(MIT", "MIT)", "MIT WITH", "MIT, Apache-2.0", "()", "@"})
      CHECK_MESSAGE(!allows(text), text);
    CHECK(allows(std::string(32, '(') + "MIT" + std::string(32, ')')) == true);
    CHECK_FALSE(allows(std::string(33, '(') + "MIT" + std::string(33, ')')));
    CHECK_FALSE(allows(std::string(1 << 20, '(')));
  }
}
