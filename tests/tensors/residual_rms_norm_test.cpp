#include "src/tensors/kernels/residual_rms_norm.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "src/base/errors.h"
#include "src/tensors/ops.h"
#include "tests/tensors/compare.h"

using namespace coppice;

namespace {

constexpr double kEps = 1e-5;

at::Tensor norm(const at::Tensor& x, const at::Tensor& weight) {
  return x * (x.square().mean(-1, true) + kEps).rsqrt() * weight;
}

// Both outputs side by side, so that one output gradient reaches both.
at::Tensor composition(const Placement& on, const std::vector<at::Tensor>& in) {
  const at::Tensor residual = stored(in[0] + in[1], on);
  return at::cat({residual, norm(residual, in[2])}, 1);
}
at::Tensor ours(const std::vector<at::Tensor>& in) {
  const ResidualNorm out = residual_rms_norm(in[0], in[1], in[2], {}, kEps);
  return at::cat({out.residual_ND, out.normed_ND}, 1);
}

void check_outputs_and_gradients(const OpPlacement& on) {
  for (const int64_t hidden_size : {1, 31, 32, 33, 257, 768})
    for (const int64_t num_tokens : {1, 5, 131}) {
      CAPTURE(hidden_size);
      CAPTURE(num_tokens);
      const at::Tensor x = randn({num_tokens, hidden_size}, 1), delta = randn({num_tokens, hidden_size}, 2),
                       weight = 1 + 0.3 * randn({hidden_size}, 3);
      check_against_composition(
          on, ours, [&](const std::vector<at::Tensor>& in) { return composition(on, in); }, {x, delta, weight},
          randn({num_tokens, 2 * hidden_size}, 4));
      check_against_composition(
          on, [](const std::vector<at::Tensor>& in) { return residual_rms_norm(in[0], {}, in[1], {}, kEps).normed_ND; },
          [](const std::vector<at::Tensor>& in) { return norm(in[0], in[1]); }, {x, weight},
          randn({num_tokens, hidden_size}, 5));
    }
}

}  // namespace

TEST_SUITE("grad") {
  TEST_CASE("residual_rms_norm: outputs and gradients, with and without delta") {
    on_each(host_placements(), check_outputs_and_gradients);
  }

  TEST_CASE("residual_rms_norm: only one of the outputs used") {
    const at::Tensor x = randn({7, 33}, 1), delta = randn({7, 33}, 2), weight = randn({33}, 3),
                     grad = randn({7, 33}, 4);
    const auto leaf = [](const at::Tensor& tensor) { return tensor.clone().requires_grad_(); };
    at::Tensor x1 = leaf(x), delta1 = leaf(delta), weight1 = leaf(weight);
    residual_rms_norm(x1, delta1, weight1, {}, kEps).residual_ND.backward(grad);
    CHECK(at::equal(x1.grad(), grad));
    CHECK(at::equal(delta1.grad(), grad));
    at::Tensor x2 = leaf(x), delta2 = leaf(delta), weight2 = leaf(weight);
    residual_rms_norm(x2, delta2, weight2, {}, kEps).normed_ND.backward(grad);
    at::Tensor x3 = x.to(at::kDouble).requires_grad_();
    norm(x3 + delta.to(at::kDouble), weight.to(at::kDouble)).backward(grad.to(at::kDouble));
    CHECK(max_error(x2.grad(), x3.grad()) < 1e-5);
    CHECK(at::equal(x2.grad(), delta2.grad()));
  }

  TEST_CASE("residual_rms_norm: the weight's gradient is added to the arena's view, and autograd gets none") {
    on_each(host_placements(), [](const OpPlacement& on) {
      const at::Tensor x = randn({200, 48}, 1).to(on.compute).requires_grad_(),
                       weight = randn({48}, 3).requires_grad_(), grad = randn({200, 48}, 4).to(on.compute);
      at::Tensor buffer = at::full({48}, 2.0f);
      residual_rms_norm(x, {}, weight, buffer, kEps).normed_ND.backward(grad);
      CHECK_FALSE(weight.grad().defined());
      const at::Tensor weight2 = weight.detach().clone().requires_grad_();
      residual_rms_norm(x, {}, weight2, {}, kEps).normed_ND.backward(grad);
      CHECK(max_error(buffer, weight2.grad() + 2.0) < 1e-5);
    });
  }
}

TEST_SUITE("parity") {
  TEST_CASE(
      "residual_rms_norm: the quick path agrees with the reference on strided rows and keeps inside its outputs") {
    for (const int64_t hidden_size : {1, 31, 33, 257}) {
      CAPTURE(hidden_size);
      const int64_t num_tokens = 150;
      const at::Tensor x = strided_copy(randn({num_tokens, hidden_size}, 4), 3, 1),
                       delta = strided_copy(randn({num_tokens, hidden_size}, 5), 7, 1);
      const at::Tensor weight = randn({hidden_size}, 6),
                       normed_grad = strided_copy(randn({num_tokens, hidden_size}, 7), 1, 1);
      const at::Tensor residual_grad = strided_copy(randn({num_tokens, hidden_size}, 8), 2, 1);
      const int64_t size = num_tokens * hidden_size;
      Guarded residual(size), normed(size), rstd(num_tokens), residual2(size), normed2(size), rstd2(num_tokens);
      ResidualRmsNormParams<float> forward{.x = x.const_data_ptr<float>(),
                                           .delta = delta.const_data_ptr<float>(),
                                           .weight = weight.const_data_ptr<float>(),
                                           .residual = residual.data(),
                                           .normed = normed.data(),
                                           .rstd = rstd.data(),
                                           .num_tokens = num_tokens,
                                           .hidden_size = hidden_size,
                                           .x_row_stride = x.stride(0),
                                           .delta_row_stride = delta.stride(0),
                                           .eps = 1e-5f};
      residual_rms_norm_cpu(forward);
      forward.residual = residual2.data();
      forward.normed = normed2.data();
      forward.rstd = rstd2.data();
      residual_rms_norm_reference(forward);
      CHECK((residual.intact() && normed.intact() && rstd.intact()));
      CHECK(at::equal(residual.tensor({size}), residual2.tensor({size})));
      CHECK(max_error(normed.tensor({size}), normed2.tensor({size})) < 1e-5);

      Guarded x_grad(size), weight_grad(hidden_size), x_grad2(size), weight_grad2(hidden_size);
      ResidualRmsNormBackwardParams<float> backward{.residual = residual.data(),
                                                    .weight = weight.const_data_ptr<float>(),
                                                    .rstd = rstd.data(),
                                                    .normed_grad = normed_grad.const_data_ptr<float>(),
                                                    .residual_grad = residual_grad.const_data_ptr<float>(),
                                                    .x_grad = x_grad.data(),
                                                    .weight_grad = weight_grad.data(),
                                                    .accumulate_weight_grad = false,
                                                    .num_tokens = num_tokens,
                                                    .hidden_size = hidden_size,
                                                    .residual_row_stride = hidden_size,
                                                    .normed_grad_row_stride = normed_grad.stride(0),
                                                    .residual_grad_row_stride = residual_grad.stride(0)};
      residual_rms_norm_backward_cpu(backward);
      backward.x_grad = x_grad2.data();
      backward.weight_grad = weight_grad2.data();
      residual_rms_norm_backward_reference(backward);
      CHECK((x_grad.intact() && weight_grad.intact()));
      // Two terms of the size of `term` cancel where the row is (nearly) one number: each is good to an ulp or two of
      // its own.
      const double term = (rstd2.tensor({num_tokens, 1}) * normed_grad * weight).abs().max().item<double>();
      CHECK(max_error(x_grad.tensor({size}), x_grad2.tensor({size})) < 2e-5 + term * 0x1p-22);
      CHECK(max_error(weight_grad.tensor({hidden_size}), weight_grad2.tensor({hidden_size})) < 5e-5);
    }
  }
}

TEST_SUITE("unit") {
  TEST_CASE("residual_rms_norm: a row of zeros stays zero and keeps a finite gradient; values by hand") {
    const at::Tensor x = at::tensor({0.0f, 0.0f, 3.0f, 4.0f}).view({2, 2}).requires_grad_(),
                     weight = at::tensor({1.0f, 2.0f});
    const at::Tensor normed = residual_rms_norm(x, {}, weight, {}, 0.0 + 1e-12).normed_ND;
    CHECK(normed[0].abs().max().item<float>() == 0.0f);
    CHECK(normed[1][0].item<double>() == doctest::Approx(3.0 / std::sqrt(12.5)));
    CHECK(normed[1][1].item<double>() == doctest::Approx(8.0 / std::sqrt(12.5)));
    normed.backward(at::ones_like(normed));
    CHECK(at::isfinite(x.grad()).all().item<bool>());
  }

  TEST_CASE("residual_rms_norm: no delta returns x itself; no rows") {
    on_each(host_placements(), [](const OpPlacement& on) {
      const at::Tensor x = randn({4, 8}, 1).to(on.compute), weight = at::ones({8}).requires_grad_(),
                       none = at::empty({0, 8}).to(on.compute);
      CHECK(residual_rms_norm(x, {}, weight, {}, kEps).residual_ND.is_same(x));
      const at::Tensor normed = residual_rms_norm(none, none, weight, {}, kEps).normed_ND;
      CHECK(normed.size(0) == 0);
      normed.backward(none);
      CHECK(weight.grad().eq(0).all().item<bool>());
    });
  }

  TEST_CASE("residual_rms_norm: element types that do not go together are refused by name") {
    const at::Tensor x = randn({4, 8}, 1), weight = at::ones({8}), narrow = x.to(at::kBFloat16);
    CHECK_THROWS_WITH_AS(residual_rms_norm(narrow, x, weight, {}, kEps),
                         doctest::Contains("delta_ND: got float32, expected bfloat16"), InternalError);
    CHECK_THROWS_WITH_AS(residual_rms_norm(narrow, narrow, weight.to(at::kBFloat16), {}, kEps),
                         doctest::Contains("weight_D: got bfloat16, expected float32"), InternalError);
    CHECK_THROWS_AS(residual_rms_norm(x.to(at::kDouble), {}, weight, {}, kEps), InternalError);
    const at::Tensor wide = at::zeros({1, kResidualRmsNormMostColumns + 8});
    CHECK_NOTHROW(residual_rms_norm(wide, {}, wide[0], {}, kEps));
    CHECK_THROWS_WITH_AS(residual_rms_norm(wide.to(at::kBFloat16), {}, wide[0], {}, kEps),
                         doctest::Contains("8200, kernels go up to 8192"), InternalError);
  }
}

TEST_SUITE("golden") {
  TEST_CASE("residual_rms_norm: RMSNorm of rope_base.json with gradients") {
    const auto golden = nlohmann::json::parse(std::ifstream(COPPICE_SOURCE_DIR "/tests/golden/rope_base.json"));
    const auto& row = golden.at("rms_norm");
    const auto vector = [&](const char* key) {
      return at::tensor(row.at(key).get<std::vector<double>>()).to(at::kFloat);
    };
    const double tolerance = golden.at("tolerance").at("float32").get<double>();
    const at::Tensor x = vector("x").view({1, -1}).requires_grad_(), weight = vector("weight").requires_grad_();
    const at::Tensor out = residual_rms_norm(x, {}, weight, {}, row.at("eps").get<double>()).normed_ND;
    out.backward(vector("g").view({1, -1}));
    CHECK(max_error(out.view(-1), vector("out")) <= tolerance);
    CHECK(max_error(x.grad().view(-1), vector("dx")) <= tolerance);
    CHECK(max_error(weight.grad(), vector("dw")) <= tolerance);
  }
}

TEST_SUITE("gpu") {
  TEST_CASE("residual_rms_norm: outputs and gradients, with and without delta: on a device") {
    on_each(device_placements(), check_outputs_and_gradients);
  }
}
