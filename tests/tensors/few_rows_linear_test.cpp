#include "src/tensors/kernels/few_rows_linear.h"

#include "tests/tensors/compare.h"

using namespace coppice;

TEST_SUITE("unit") {
  TEST_CASE("few_rows_linear: ragged sizes, with and without bias, inside its output") {
    for (const auto& [rows, inputs, outputs] : std::vector<std::array<int64_t, 3>>{
             {1, 1, 1}, {1, 33, 7}, {1, 576, 301}, {2, 64, 4}, {3, 100, 999}, {5, 257, 66}}) {
      CAPTURE(rows);
      CAPTURE(outputs);
      const at::Tensor x = randn({rows, inputs}, 1), weight = randn({outputs, inputs}, 2), bias = randn({outputs}, 3);
      for (const bool biased : {false, true}) {
        Guarded y(rows * outputs);
        few_rows_linear_cpu({.x = x.const_data_ptr<float>(),
                             .weight = weight.const_data_ptr<float>(),
                             .bias = biased ? bias.const_data_ptr<float>() : nullptr,
                             .y = y.data(),
                             .num_rows = rows,
                             .num_inputs = inputs,
                             .num_outputs = outputs});
        CHECK(y.intact());
        const auto expected = [&](at::ScalarType type) {
          const at::Tensor product = x.to(type).mm(weight.to(type).t());
          return biased ? product + bias.to(type) : product;
        };
        check_close(y.tensor({rows, outputs}), expected(at::kFloat), expected(at::kDouble));
      }
    }
  }
}
