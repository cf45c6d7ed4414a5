#include "recipes/stages/score_tasks.h"

#include <doctest/doctest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>


using namespace coppice;
using nlohmann::json;

namespace {

TaskItem item(std::vector<std::string> choices, size_t answer) {
  return {.context = "c", .choices = std::move(choices), .answer = answer, .where = "t:1"};
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("score_items: the highest sum wins, the first of equals; code points for acc_norm; the spread by hand") {
    const std::vector<TaskItem> items = {
        item({"aa", "bbbb"}, 0),             // -4 > -6: right; a code point -2 < -1.5: wrong
        item({"a", "b"}, 1),                 // equal: the first, wrong both times
        item({"a", "b", "c"}, 0),            // equal: the first, right both times
        item({"\u00e4\u00f6", "abcd"}, 1)};  // -2 > -3: wrong; two code points -1, four -0.75: right
    const TaskScore score = score_items(items, {-4, -6, -1, -1, -2, -2, -2, -2, -3});
    CHECK(score.items == 4);
    CHECK(score.acc == 0.5);
    CHECK(score.acc_norm == 0.5);
    CHECK(score.stderr_of_acc == doctest::Approx(std::sqrt(4 * 0.25 / 3) / 2));  // four deviations of 0.5
    CHECK(score_items({items[0]}, {-4, -6}).acc == 1);
    CHECK(score_items({items[0]}, {-4, -6}).acc_norm == 0);
    CHECK(std::isnan(score_items({items[0]}, {-4, -6}).stderr_of_acc));
    CHECK(score_items({items[0], items[2]}, {-4, -6, -2, -2, -2}).stderr_of_acc == 0);
  }
}
