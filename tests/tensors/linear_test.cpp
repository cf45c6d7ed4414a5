#include "src/base/errors.h"
#include "src/tensors/ops.h"
#include "tests/tensors/compare.h"

using namespace coppice;

namespace {

void check_output_and_gradients(const OpPlacement& on) {
  for (const auto& [tokens, inputs, outputs] : std::vector<std::array<int64_t, 3>>{
           {1, 1, 1}, {1, 33, 31}, {5, 32, 257}, {31, 257, 33}, {130, 96, 200}, {300, 128, 64}}) {
    CAPTURE(tokens);
    CAPTURE(inputs);
    CAPTURE(outputs);
    check_against_composition(
        on, [](const std::vector<at::Tensor>& in) { return coppice::linear(in[0], in[1], {}); },
        [](const std::vector<at::Tensor>& in) { return in[0].mm(in[1].t()); },
        {randn({tokens, inputs}, 1), randn({outputs, inputs}, 2)}, randn({tokens, outputs}, 3));
    check_against_composition(
        on, [](const std::vector<at::Tensor>& in) { return coppice::linear(in[0], in[1], {}, in[2]); },
        [&](const std::vector<at::Tensor>& in) { return in[0].mm(in[1].t()) + stored(in[2], on); },
        {randn({tokens, inputs}, 1), randn({outputs, inputs}, 2), randn({outputs}, 4)}, randn({tokens, outputs}, 3));
  }
}

}  // namespace

TEST_SUITE("grad") {
  TEST_CASE("linear: output and gradients at ragged sizes") { on_each(host_placements(), check_output_and_gradients); }

  TEST_CASE("linear: the weight's gradient is added to the arena's view, and autograd gets none") {
    on_each(host_placements(), [](const OpPlacement& on) {
      const at::Tensor x = randn({70, 40}, 1).to(on.compute).requires_grad_(),
                       weight = randn({50, 40}, 2).to(on.compute).requires_grad_(),
                       y_grad = randn({70, 50}, 3).to(on.compute);
      const at::Tensor buffer = at::full({50, 40}, 3.0f);
      coppice::linear(x, weight, buffer).backward(y_grad);
      coppice::linear(x, weight, buffer).backward(y_grad);
      CHECK_FALSE(weight.grad().defined());
      // In bfloat16 too: what is added up is not rounded to it.
      CHECK(max_error(buffer, 3.0 + 2.0 * y_grad.t().to(at::kDouble).mm(x.detach().to(at::kDouble))) < 1e-4);
    });
  }

  TEST_CASE("linear: the bias's gradient is added to the arena's view, and autograd gets none") {
    on_each(host_placements(), [](const OpPlacement& on) {
      const at::Tensor x = randn({70, 40}, 1).to(on.compute), weight = randn({50, 40}, 2).to(on.compute),
                       y_grad = randn({70, 50}, 3).to(on.compute), bias = randn({50}, 4).requires_grad_(),
                       buffer = at::full({50}, 3.0f);
      coppice::linear(x, weight, {}, bias, buffer).backward(y_grad);
      coppice::linear(x, weight, {}, bias, buffer).backward(y_grad);
      CHECK_FALSE(bias.grad().defined());
      CHECK(max_error(buffer, 3.0 + 2.0 * y_grad.to(at::kDouble).sum(0)) < 1e-4);
    });
  }

  TEST_CASE("linear: a frozen weight gets nothing, rows may be strided or expanded") {
    const at::Tensor x = strided_copy(randn({20, 33}, 1), 5, 1).detach().requires_grad_(), weight = randn({31, 33}, 2);
    const at::Tensor buffer = at::zeros({31, 33});
    coppice::linear(x, weight, buffer).sum().backward();  // the gradient arrives expanded, strides (0, 0)
    CHECK(buffer.abs().max().item<float>() == 0.0f);
    CHECK(max_error(x.grad(), weight.to(at::kDouble).sum(0, true).expand({20, 33})) < 1e-5);
  }
}

TEST_SUITE("unit") {
  TEST_CASE("linear: values by hand, no rows, wrong shapes refused by name") {
    const at::Tensor x = at::tensor({1.0f, 2.0f}).view({1, 2}),
                     weight = at::tensor({3.0f, 4.0f, 5.0f, 6.0f, 0.0f, -1.0f}).view({3, 2});
    CHECK(at::equal(coppice::linear(x, weight, {}), at::tensor({11.0f, 17.0f, -2.0f}).view({1, 3})));
    CHECK(coppice::linear(at::empty({0, 2}), weight, {}).sizes() == at::IntArrayRef({0, 3}));
    CHECK_THROWS_WITH_AS(coppice::linear(at::empty({4, 3}), weight, {}),
                         doctest::Contains("weight_OI: got (3, 2), expected (-1, 3)"), InternalError);
    CHECK_THROWS_AS(coppice::linear(x.to(at::kDouble), weight, {}), InternalError);
    CHECK_THROWS_AS(coppice::linear(x, weight, at::zeros({2, 3})), InternalError);
    CHECK_THROWS_WITH_AS(coppice::linear(x.to(at::kBFloat16), weight, {}),
                         doctest::Contains("weight_OI: got float32, expected bfloat16"), InternalError);
    CHECK(at::equal(coppice::linear(x, weight, {}, at::tensor({0.5f, 0.0f, 1.0f})),
                    at::tensor({11.5f, 17.0f, -1.0f}).view({1, 3})));
    CHECK_THROWS_WITH_AS(coppice::linear(x, weight, {}, at::zeros({2})),
                         doctest::Contains("bias_O: got (2), expected (3)"), InternalError);
  }

  TEST_CASE("linear: products of a device add up in float32") {
    CHECK(
        (at::globalContext().allowBF16ReductionCuBLAS() != at::CuBLASReductionOption::AllowReducedPrecisionWithSplitK));
    CHECK_FALSE(at::globalContext().allowTF32CuBLAS());
  }
}

TEST_SUITE("gpu") {
  TEST_CASE("linear: output and gradients at ragged sizes: on a device") {
    on_each(device_placements(), check_output_and_gradients);
  }
}
