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

struct Prediction {
  std::vector<Kernel> kernels;  // one after the other
  KernelShape shape;
  const char* in_words;  // the shape
  Printed gigabytes, h200_us, h100_us;
};

constexpr KernelShape kActivations{
    .rows = 16'384, .hidden_size = 3072, .query_size = 3072, .key_value_size = 1024, .head_size = 128};

KernelShape with_ffn(int64_t ffn_size) {
  KernelShape shape = kActivations;
  shape.ffn_size = ffn_size;
  return shape;
}
KernelShape logits(int64_t vocab_size) { return {.rows = 8192, .vocab_size = vocab_size, .ids = 64}; }
/// One piece per 4096 parameters, which is a cell of models between 2.1e9 and 4.3e9.
KernelShape optimizer(int64_t parameters) {
  return {.parameters = parameters, .pieces = parameters / 4096, .blocks = 200};
}
constexpr KernelShape kTokens{.rows = 8192, .hidden_size = 3072, .distinct_tokens = 3000};
constexpr KernelShape kScores{.rows = 26, .ffn_size = 23'296};
const std::vector<Kernel> kAdastar = {Kernel::optimizer_square_sums, Kernel::adastar_square_sums, Kernel::adastar_move};

/// The model by hand: 16,384 rows of activations of D 3072, 8192 of logits and of tokens.
const std::vector<Prediction> kPredictions = {
    {{Kernel::residual_rms_norm}, kActivations, "N 16,384, D 3072", {.403, .001}, {102, 1}, {146, 1}},
    {{Kernel::residual_rms_norm_backward}, kActivations, "N 16,384, D 3072", {.409, .001}, {103, 1}, {148, 1}},
    {{Kernel::qk_norm_rope}, kActivations, "N 16,384, Dq 3072, Dkv 1024, K 128", {.268, .001}, {73, 1}, {97, 1}},
    {{Kernel::qk_norm_rope_backward},
     kActivations,
     "N 16,384, Dq 3072, Dkv 1024, K 128",
     {.470, .001},
     {119, 1},
     {170, 1}},
    {{Kernel::swiglu}, with_ffn(8064), "N 16,384, F 8064", {.79, .01}, {200, 1}, {287, 1}},
    {{Kernel::swiglu_backward}, with_ffn(8064), "N 16,384, F 8064", {1.34, .01}, {338, 1}, {485, 1}},
    {{Kernel::swiglu_backward_with_hidden}, with_ffn(8064), "N 16,384, F 8064", {1.60, .01}, {405, 1}, {580, 1}},
    {{Kernel::swiglu}, with_ffn(23'296), "N 16,384, F 23,296", {2.29, .01}, {579, 1}, {830, 1}},
    {{Kernel::swiglu_backward_with_hidden}, with_ffn(23'296), "N 16,384, F 23,296", {4.63, .01}, {1170, 1}, {1677, 1}},
    {{Kernel::label_mix_rows}, logits(49'152), "N 8192, V 49,152", {1.61, .01}, {441, 1}, {584, 1}},
    {{Kernel::label_mix_rows}, logits(128'256), "N 8192, V 128,256", {4.20, .01}, {1150, 1}, {1523, 1}},
    {{Kernel::top_k_rows}, logits(49'152), "N 8192, V 49,152, 64 ids", {1.61, .01}, {441, 1}, {584, 1}},
    {{Kernel::kl_rows}, logits(49'152), "N 8192, V 49,152", {2.42, .01}, {661, 1}, {875, 1}},
    {{Kernel::jsd_rows}, logits(49'152), "N 8192, V 49,152", {2.42, .01}, {1048, 1}, {1048, 1}},
    {{Kernel::kl_rows}, logits(128'256), "N 8192, V 128,256", {6.30, .01}, {1725, 1}, {2284, 1}},
    {{Kernel::jsd_rows}, logits(128'256), "N 8192, V 128,256", {6.30, .01}, {2735, 1}, {2735, 1}},
    {{Kernel::embedding}, kTokens, "N 8192, D 3072, 3000 distinct", {.10, .01}, {25, 1}, {37, 1}},
    {{Kernel::embedding_backward}, kTokens, "N 8192, D 3072, 3000 distinct", {.12, .01}, {31, 1}, {45, 1}},
    {kAdastar, optimizer(2'738'000'000), "2.738e9 parameters", {126, 1}, {31'800, 100}, {45'600, 100}},
    {kAdastar, optimizer(6'388'000'000), "6.388e9 parameters", {294, 1}, {74'300, 100}, {106'000, 1000}},
};

double seconds(const Prediction& prediction, const DeviceRates& device) {
  double sum = 0.0;
  for (const Kernel kernel : prediction.kernels) sum += predicted_seconds(cost_of(kernel), prediction.shape, device);
  return sum;
}
double bytes(const Prediction& prediction) {
  double sum = 0.0;
  for (const Kernel kernel : prediction.kernels)
    sum += static_cast<double>(cost_of(kernel).bytes(prediction.shape).of_memory());
  return sum;
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
std::string row_of(const Prediction& prediction) {
  std::string names;
  std::set<std::string> limits;
  for (const Kernel kernel : prediction.kernels) {
    names += (names.empty() ? "`" : ", `") + std::string(cost_of(kernel).name) + "`";
    limits.insert(limit_of(cost_of(kernel), prediction.shape, kH200Rates));
  }
  CHECK(limits.size() == 1);
  return "| " + names + " | " + prediction.in_words + " | " + number("%.3g", bytes(prediction) / 1e9) + " | " +
         *limits.begin() + " | " + microseconds(seconds(prediction, kH200Rates)) + " | " +
         microseconds(seconds(prediction, kH100Rates)) + " |";
}

}  // namespace

TEST_SUITE("kernel") {
  TEST_CASE("kernel_costs: bytes and times of the table of predictions") {
    for (const Prediction& prediction : kPredictions) {
      CAPTURE(std::string(cost_of(prediction.kernels.front()).name));
      CAPTURE(prediction.gigabytes.value);
      CHECK(rounds_to(bytes(prediction) / 1e9, prediction.gigabytes));
      const double h200_us = 1e6 * seconds(prediction, kH200Rates), h100_us = 1e6 * seconds(prediction, kH100Rates);
      CAPTURE(h200_us);
      CAPTURE(h100_us);
      CHECK(rounds_to(h200_us, prediction.h200_us));
      CHECK(rounds_to(h100_us, prediction.h100_us));
    }
  }

  TEST_CASE("kernel_costs: the table of docs/performance.md is this one") {
    std::ifstream file(std::string(COPPICE_SOURCE_DIR) + "/docs/performance.md");
    std::vector<std::string> rows;
    for (std::string line; std::getline(file, line);)
      if (line.starts_with("| `")) rows.push_back(line);
    std::vector<std::string> expected;
    for (const Prediction& prediction : kPredictions) expected.push_back(row_of(prediction));
    for (const Kernel kernel : {Kernel::soft_top_k, Kernel::soft_top_k_backward})
      expected.push_back(row_of({.kernels = {kernel},
                                 .shape = kScores,
                                 .in_words = "26 x 23,296",
                                 .gigabytes = {},
                                 .h200_us = {},
                                 .h100_us = {}}));
    REQUIRE(rows.size() == expected.size());
    for (size_t i = 0; i < rows.size(); ++i)
      CHECK_MESSAGE(rows[i].starts_with(expected[i]), rows[i] << "\nexpected\n" << expected[i]);
  }

  TEST_CASE("kernel_costs: Soft-Top-K takes its reductions' time, not its bytes'") {
    struct Bounds {
      Kernel kernel;
      double least_us, most_us;
    };
    for (const auto& [kernel, least_us, most_us] :
         {Bounds{Kernel::soft_top_k, 15, 20}, Bounds{Kernel::soft_top_k_backward, 6, 8}}) {
      CHECK(cost_of(kernel).bytes(kScores).of_memory() == (12 * 23'296 + (kernel == Kernel::soft_top_k ? 4 : 0)) * 26);
      for (const DeviceRates& device : {kH200Rates, kH100Rates}) {
        const double us = 1e6 * predicted_seconds(cost_of(kernel), kScores, device);
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
    for (const Budget& budget :
         std::initializer_list<Budget>{{Kernel::residual_rms_norm_backward, kActivations, 28},
                                       {Kernel::swiglu_backward, with_ffn(8064), 34},
                                       {Kernel::qk_norm_rope_backward, kActivations, 24},
                                       {Kernel::label_mix_rows, logits(49'152), 14},
                                       {Kernel::optimizer_square_sums, optimizer(2'738'000'000), 14},
                                       {Kernel::adastar_square_sums, optimizer(2'738'000'000), 27},
                                       {Kernel::adastar_move, optimizer(2'738'000'000), 116},
                                       {Kernel::adastar_move_split, optimizer(2'738'000'000), 109}}) {
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
