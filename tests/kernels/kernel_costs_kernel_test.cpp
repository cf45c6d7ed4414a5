// The table of costs against figures derived by hand. Tests of each kernel hold its bytes against what it really moves.
#include "src/tensors/kernels/kernel_costs.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <set>
#include <string>
#include <vector>

using namespace coppice;

namespace {

struct Printed {
  double value;
  double unit;  // of the last digit
};

bool rounds_to(double value, const Printed& printed) {
  return std::fabs(value - printed.value) <= printed.unit / 2 + 2e-3 * printed.value;
}

/// What the model says by hand.
struct ByHand {
  Kernel first;  // of the row's kernels
  Printed gigabytes, h200_us, h100_us;
};

/// Rows of the table that are held to figures by hand, in its order; the others are Soft-Top-K's.
constexpr ByHand kByHand[] = {
    {Kernel::residual_rms_norm, {.403, .001}, {102, 1}, {146, 1}},
    {Kernel::residual_rms_norm_backward, {.409, .001}, {103, 1}, {148, 1}},
    {Kernel::qk_norm_rope, {.268, .001}, {73, 1}, {97, 1}},
    {Kernel::qk_norm_rope_backward, {.470, .001}, {119, 1}, {170, 1}},
    {Kernel::swiglu, {.79, .01}, {200, 1}, {287, 1}},
    {Kernel::swiglu_backward, {1.34, .01}, {338, 1}, {485, 1}},
    {Kernel::swiglu_backward_with_hidden, {1.60, .01}, {405, 1}, {580, 1}},
    {Kernel::swiglu, {2.29, .01}, {579, 1}, {830, 1}},
    {Kernel::swiglu_backward_with_hidden, {4.63, .01}, {1170, 1}, {1677, 1}},
    {Kernel::label_mix_rows, {1.61, .01}, {441, 1}, {584, 1}},
    {Kernel::label_mix_rows, {4.20, .01}, {1150, 1}, {1523, 1}},
    {Kernel::top_k_rows, {1.61, .01}, {441, 1}, {584, 1}},
    {Kernel::kl_rows, {2.42, .01}, {661, 1}, {875, 1}},
    {Kernel::jsd_rows, {2.42, .01}, {1048, 1}, {1048, 1}},
    {Kernel::kl_rows, {6.30, .01}, {1725, 1}, {2284, 1}},
    {Kernel::jsd_rows, {6.30, .01}, {2735, 1}, {2735, 1}},
    {Kernel::hidden_state_mse, {.101, .001}, {25.5, .1}, {36.5, .1}},
    {Kernel::hidden_state_cosine, {.101, .001}, {25.5, .1}, {36.5, .1}},
    {Kernel::hidden_state_backward, {.151, .001}, {38.2, .1}, {54.7, .1}},
    {Kernel::top_1_rows, {1.61, .01}, {407, 1}, {584, 1}},
    {Kernel::draw_rows, {1.61, .01}, {674, 1}, {674, 1}},
    {Kernel::weighted_draw_rows, {1.61, .01}, {1021, 1}, {1021, 1}},
    {Kernel::calibrated_rows, {1.61, .01}, {1476, 1}, {1476, 1}},
    {Kernel::embedding, {.10, .01}, {25, 1}, {37, 1}},
    {Kernel::embedding_backward, {.12, .01}, {31, 1}, {45, 1}},
    {Kernel::optimizer_square_sums, {126, 1}, {31'800, 100}, {45'600, 100}},
    {Kernel::optimizer_square_sums, {294, 1}, {74'300, 100}, {106'000, 1000}},
    {Kernel::optimizer_square_sums, {281, 1}, {71'060, 10}, {101'800, 100}},
    {Kernel::optimizer_square_sums, {104, 1}, {26'300, 100}, {37'700, 100}},
};

/// The shape of the first row of this kernel.
KernelShape shape_of(Kernel kernel) {
  return std::ranges::find_if(predicted_rows(), [&](const PredictedRow& row) { return row.kernels.front() == kernel; })
      ->shape;
}
KernelShape logits(int64_t vocab_size) {
  KernelShape shape = shape_of(Kernel::label_mix_rows);
  shape.vocab_size = vocab_size;
  return shape;
}

/// What a kernel takes longest for.
std::string limit_of(const KernelCost& cost, const KernelShape& shape, const DeviceRates& device) {
  if (predicted_seconds(cost, shape, device) == cost.latency_s) return "reductions";
  const auto elements = static_cast<double>(cost.elements(shape));
  const double bytes = static_cast<double>(cost.bytes(shape).of_memory()) / device.bytes,
               instructions = elements * cost.instructions / device.instructions,
               specials = elements * cost.specials / device.specials;
  return bytes >= std::max(instructions, specials) ? "bytes"
         : instructions >= specials                ? "instructions"
                                                   : "special functions";
}

std::string number(const char* format, double value) {
  char text[32];
  std::snprintf(text, sizeof text, format, value);
  return text;
}
std::string microseconds(double seconds) { return number(seconds < 1e-4 ? "%.1f" : "%.0f", 1e6 * seconds); }

/// Its row of docs/performance.md but for what is measured.
std::string text_of(const PredictedRow& row) {
  std::string names;
  std::set<std::string> limits;
  for (const Kernel kernel : row.kernels) {
    names += (names.empty() ? "`" : ", `") + std::string(cost_of(kernel).name) + "`";
    limits.insert(limit_of(cost_of(kernel), row.shape, kH200Rates));
  }
  CHECK(limits.size() == 1);
  return "| " + names + " | " + row.in_words + " | " + number("%.3g", row.bytes() / 1e9) + " | " + *limits.begin() +
         " | " + microseconds(row.seconds(kH200Rates)) + " | " + microseconds(row.seconds(kH100Rates)) + " |";
}

}  // namespace

TEST_SUITE("kernel") {
  TEST_CASE("kernel_costs: bytes and times of the table of predictions") {
    REQUIRE(predicted_rows().size() == std::size(kByHand) + 2);
    for (size_t i = 0; i < std::size(kByHand); ++i) {
      const ByHand& by_hand = kByHand[i];
      const PredictedRow& row = predicted_rows()[i];
      CAPTURE(std::string(cost_of(by_hand.first).name));
      CAPTURE(by_hand.gigabytes.value);
      CHECK((row.kernels.front() == by_hand.first));
      CHECK(rounds_to(row.bytes() / 1e9, by_hand.gigabytes));
      const double h200_us = 1e6 * row.seconds(kH200Rates), h100_us = 1e6 * row.seconds(kH100Rates);
      CAPTURE(h200_us);
      CAPTURE(h100_us);
      CHECK(rounds_to(h200_us, by_hand.h200_us));
      CHECK(rounds_to(h100_us, by_hand.h100_us));
    }
  }

  TEST_CASE("kernel_costs: the table of docs/performance.md is this one") {
    std::ifstream file(std::string(COPPICE_SOURCE_DIR) + "/docs/performance.md");
    std::vector<std::string> rows;
    for (std::string line; std::getline(file, line);)
      if (line.starts_with("| `")) rows.push_back(line);
    REQUIRE(rows.size() == predicted_rows().size());
    for (size_t i = 0; i < rows.size(); ++i) {
      const std::string expected = text_of(predicted_rows()[i]);
      CHECK_MESSAGE(rows[i].starts_with(expected), rows[i] << "\nexpected\n" << expected);
    }
  }

  TEST_CASE("kernel_costs: Soft-Top-K takes its reductions' time, not its bytes'") {
    struct Bounds {
      Kernel kernel;
      double least_us, most_us;
    };
    for (const auto& [kernel, least_us, most_us] :
         {Bounds{Kernel::soft_top_k, 15, 20}, Bounds{Kernel::soft_top_k_backward, 6, 8}}) {
      const KernelShape scores = shape_of(kernel);
      CHECK(cost_of(kernel).bytes(scores).of_memory() == (12 * 23'296 + (kernel == Kernel::soft_top_k ? 4 : 0)) * 26);
      for (const DeviceRates& device : {kH200Rates, kH100Rates}) {
        const double us = 1e6 * predicted_seconds(cost_of(kernel), scores, device);
        CHECK(us >= least_us);
        CHECK(us <= most_us);
      }
    }
  }

  TEST_CASE("kernel_costs: instructions that a kernel's bytes leave room for") {
    struct Budget {
      Kernel kernel;
      KernelShape shape;
      double instructions;  // an element, rounded
    };
    const KernelShape optimizer = shape_of(Kernel::optimizer_square_sums);
    for (const Budget& budget : std::initializer_list<Budget>{
             {Kernel::residual_rms_norm_backward, shape_of(Kernel::residual_rms_norm_backward), 28},
             {Kernel::swiglu_backward, shape_of(Kernel::swiglu_backward), 34},
             {Kernel::qk_norm_rope_backward, shape_of(Kernel::qk_norm_rope_backward), 24},
             {Kernel::label_mix_rows, logits(49'152), 14},
             {Kernel::optimizer_square_sums, optimizer, 14},
             {Kernel::adastar_square_sums, optimizer, 27},
             {Kernel::adastar_move, optimizer, 116},
             {Kernel::adastar_move_split, optimizer, 109}}) {
      const KernelCost& cost = cost_of(budget.kernel);
      CAPTURE(std::string(cost.name));
      CHECK(std::round(instruction_budget(cost, budget.shape)) == budget.instructions);
    }
  }

  TEST_CASE("kernel_costs: rows that do not fit into shared memory are read again, from the cache") {
    const Kernel kernel = Kernel::label_mix_rows;
    CHECK(cost_of(kernel).bytes(logits(114'688)).cached == 0);  // 224 KiB
    const KernelBytes wide = cost_of(kernel).bytes(logits(114'696));
    CHECK(wide.cached == 2 * 8192 * int64_t{114'696});
    CHECK(wide.loaded == 2 * wide.cached + 2 * 2 * 8192);
    CHECK(cost_of(kernel).bytes(logits(50'257)).cached == 2 * 8192 * int64_t{50'257});  // rows start between packs
    CHECK(cost_of(Kernel::top_k_rows).bytes(logits(114'560)).cached == 0);              // 256 bytes less
    CHECK(cost_of(Kernel::top_k_rows).bytes(logits(114'568)).cached > 0);
    CHECK(cost_of(Kernel::kl_rows).bytes(logits(57'344)).cached == 0);
    CHECK(cost_of(Kernel::jsd_rows).bytes(logits(57'352)).cached == 8 * 8192 * int64_t{57'352});
  }

  TEST_CASE("kernel_costs: every kernel has its row") {
    for (const KernelCost& cost : kKernelCosts) {
      REQUIRE(cost.name != nullptr);
      CHECK(cost.instructions > cost.specials);
    }
  }
}
