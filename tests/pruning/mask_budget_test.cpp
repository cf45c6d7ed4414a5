#include "pruning/mask_budget.h"

#include "tests/pruning/tiny.h"  // before any CHECK

#include <cmath>

#include "src/base/errors.h"

using namespace coppice;

namespace {

std::string refusal(const MaskBudget& budget, int64_t num_layers, int64_t num_channels) {
  try {
    check_budget(budget, num_layers, num_channels, "a.toml:9");
  } catch (const UserError& error) {
    CHECK(error.code() == ExitCode::recipe);
    return error.what();
  }
  return "";
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("check_budget: what no cut can meet is refused with the numbers") {
    const auto says = [](const std::string& text, const char* part) { return text.find(part) != std::string::npos; };
    CHECK(refusal({.num_kept = 32}, 2, 96).empty());
    CHECK(refusal({.num_kept = 96}, 2, 96).empty());
    CHECK(says(refusal({.num_kept = 97}, 2, 96), "a.toml:9: intermediate_size: got 97, expected 1 to 96"));
    CHECK(says(refusal({.num_kept = 0}, 2, 96), "got 0, expected 1 to 96"));
    CHECK(says(refusal({.num_kept = 100, .round_to = 64}, 2, 256),
               "intermediate_size 100 is no multiple of round_to = 64; 64 and 128 are the nearest"));
    CHECK(refusal({.num_kept = 128, .round_to = 64}, 2, 256).empty());
    CHECK(refusal({.num_kept = 96, .global = true, .round_to = 64}, 2, 256).empty());  // 192 = 3 x 64 over two layers
    CHECK(says(refusal({.num_kept = 90, .global = true, .round_to = 64}, 2, 256),
               "2 layers x 90 = 180 channels, no multiple of round_to = 64"));
    CHECK(
        says(refusal({.num_kept = 32, .global = true, .round_to = 64}, 2, 256),
             "keeps 64 channels over 2 layers; with round_to = 64 and 256 channels a layer, 128 to 512 are possible"));
    CHECK(says(refusal({.num_kept = 96, .global = true, .round_to = 64}, 2, 100), "128 to 128 are possible"));
  }

  TEST_CASE("hard_top_k: equal scores go to the lower index, a number a row") {
    const at::Tensor scores_LF = at::tensor({1.f, 3.f, 3.f, 3.f, 0.f, 2.f, 2.f, 2.f, 2.f, -1.f}).view({2, 5});
    CHECK(at::equal(hard_top_k(scores_LF, std::vector<int64_t>{2, 4}),
                    at::tensor({0.f, 1.f, 1.f, 0.f, 0.f, 1.f, 1.f, 1.f, 1.f, 0.f}).view({2, 5})));
    CHECK(at::equal(hard_top_k(scores_LF, 2), hard_top_k(scores_LF, std::vector<int64_t>{2, 2})));
    CHECK_THROWS_AS(hard_top_k(scores_LF, std::vector<int64_t>{2, 6}), InternalError);
    // what a stable descending sort puts first, NaN before everything
    at::manual_seed(4);
    for (const int64_t kept : {1, 2, 31, 32, 33, 63, 64}) {
      at::Tensor ties_LF = at::randint(0, 5, {3, 64}).to(at::kFloat);
      ties_LF[1][40] = ties_LF[1][7] = std::nanf("");
      const at::Tensor order_LF = std::get<1>(ties_LF.sort(/*stable=*/true, /*dim=*/1, /*descending=*/true));
      CHECK(at::equal(hard_top_k(ties_LF, kept), at::zeros({3, 64}).scatter(1, order_LF.narrow(1, 0, kept), 1.0)));
    }
  }

  TEST_CASE("kept_widths: a global budget goes where the scores are, to the exact sum") {
    // Layer 0 holds 5 of the 6 best, layer 1 one.
    const at::Tensor scores_LF = at::tensor({9.f, 8.f, 7.f, 6.f, 5.f, 0.f, 5.5f, 1.f, 1.f, 1.f, 1.f, 1.f}).view({2, 6});
    CHECK(kept_widths(scores_LF, {.num_kept = 3, .global = true}) == std::vector<int64_t>{5, 1});
    CHECK(kept_widths(scores_LF, {.num_kept = 3}) == std::vector<int64_t>{3, 3});
    CHECK(kept_widths(scores_LF, {.num_kept = 3, .global = true, .round_to = 3}) == std::vector<int64_t>{3, 3});
    CHECK(kept_widths(scores_LF, {.num_kept = 3, .global = true, .round_to = 2}) ==
          std::vector<int64_t>{4, 2});  // 2.5 and 0.5 multiples, at least one each
    CHECK(at::equal(hard_choice(scores_LF, {.num_kept = 3, .global = true}).sum(1), at::tensor({5.f, 1.f})));
    // No layer is left without a channel, none gets more than it has.
    const at::Tensor lopsided_LF = at::cat({at::full({1, 4}, 10.f), at::zeros({1, 4})});
    CHECK(kept_widths(lopsided_LF, {.num_kept = 2, .global = true}) == std::vector<int64_t>{3, 1});
    CHECK(kept_widths(lopsided_LF, {.num_kept = 4, .global = true}) == std::vector<int64_t>{4, 4});
    // Ties: the lower layer first.
    CHECK(kept_widths(at::zeros({2, 4}), {.num_kept = 2, .global = true}) == std::vector<int64_t>{3, 1});
  }
}
