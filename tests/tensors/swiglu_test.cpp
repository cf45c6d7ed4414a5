#include "src/tensors/kernels/swiglu.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "src/base/errors.h"
#include "src/tensors/ops.h"
#include "tests/tensors/compare.h"

using namespace coppice;

namespace {

at::Tensor composition(const std::vector<at::Tensor>& inputs) {
  const std::vector<at::Tensor> halves = inputs[0].chunk(2, 1);
  return at::silu(halves[0]) * (inputs.size() > 1 ? inputs[1] * halves[1] : halves[1]);
}
at::Tensor ours(const std::vector<at::Tensor>& inputs) {
  return swiglu(inputs[0], inputs.size() > 1 ? inputs[1] : at::Tensor());
}

void check_output_and_gradients(const OpPlacement& on) {
  for (const int64_t num_channels : {1, 31, 32, 33, 257, 1024})
    for (const int64_t num_tokens : {1, 3, 130}) {
      CAPTURE(num_channels);
      CAPTURE(num_tokens);
      const at::Tensor gate_up = 3 * randn({num_tokens, 2 * num_channels}, 1),
                       mask = at::sigmoid(randn({num_channels}, 2));
      const at::Tensor h_grad = randn({num_tokens, num_channels}, 3);
      check_against_composition(on, ours, composition, {gate_up}, h_grad);
      check_against_composition(on, ours, composition, {gate_up, mask}, h_grad);
    }
}

/// What swiglu_linear leaves, or the two operations one after the other; the weight's gradient is added to.
struct Left {
  at::Tensor out_NO, gate_up_grad_N2F, mask_grad_F, weight_grad_OF;
};
Left left_by(const OpPlacement& on, int64_t num_channels, bool masked, bool at_once) {
  const int64_t num_tokens = 70, width = 24;
  const at::Tensor gate_up = (3 * randn({num_tokens, 2 * num_channels}, 1)).to(on.device, on.compute).requires_grad_(),
                   mask = masked ? at::sigmoid(randn({num_channels}, 2)).to(on.device).requires_grad_() : at::Tensor(),
                   weight = randn({width, num_channels}, 3).to(on.device, on.compute).requires_grad_();
  Left left{.weight_grad_OF = randn({width, num_channels}, 4).to(on.device)};
  left.out_NO = at_once ? swiglu_linear(gate_up, mask, weight, left.weight_grad_OF)
                        : coppice::linear(swiglu(gate_up, mask), weight, left.weight_grad_OF);
  left.out_NO.backward(randn({num_tokens, width}, 5).to(on.device, on.compute));
  left.gate_up_grad_N2F = gate_up.grad();
  left.mask_grad_F = masked ? mask.grad() : at::zeros({1});
  return left;
}

void check_product_behind(const OpPlacement& on) {
  for (const int64_t num_channels : {1, 33, 64, 264})
    for (const bool masked : {false, true}) {
      CAPTURE(num_channels);
      CAPTURE(masked);
      const Left one = left_by(on, num_channels, masked, true), two = left_by(on, num_channels, masked, false);
      CHECK(one.out_NO.equal(two.out_NO));
      CHECK(one.gate_up_grad_N2F.equal(two.gate_up_grad_N2F));
      CHECK(one.mask_grad_F.equal(two.mask_grad_F));
      CHECK(one.weight_grad_OF.equal(two.weight_grad_OF));
      CHECK(one.weight_grad_OF.ne(randn(one.weight_grad_OF.sizes(), 4).to(on.device)).all().item<bool>());
    }
}

}  // namespace

TEST_SUITE("grad") {
  TEST_CASE("swiglu: output and gradients at sizes around the vector width, with and without mask") {
    on_each(host_placements(), check_output_and_gradients);
  }

  TEST_CASE("swiglu: central differences of the reference agree with its backward") {
    const int64_t num_channels = 5, num_tokens = 3;
    const at::Tensor gate_up = randn({num_tokens, 2 * num_channels}, 1), mask = at::sigmoid(randn({num_channels}, 2)),
                     h_grad = randn({num_tokens, num_channels}, 3);
    const auto value = [&](const at::Tensor& gate_up64, const at::Tensor& mask64) {
      return (composition({gate_up64, mask64}) * h_grad.to(at::kDouble)).sum().item<double>();
    };
    at::Tensor gate_up_grad = at::empty_like(gate_up), mask_grad = at::empty_like(mask);
    swiglu_backward_reference({.gate_up = gate_up.const_data_ptr<float>(),
                               .ffn_mask = mask.const_data_ptr<float>(),
                               .h_grad = h_grad.const_data_ptr<float>(),
                               .gate_up_grad = gate_up_grad.mutable_data_ptr<float>(),
                               .ffn_mask_grad = mask_grad.mutable_data_ptr<float>(),
                               .num_tokens = num_tokens,
                               .num_channels = num_channels,
                               .gate_up_row_stride = 2 * num_channels,
                               .h_grad_row_stride = num_channels});
    const double step = 1e-5;
    for (int64_t i = 0; i < gate_up.numel(); ++i) {
      at::Tensor up = gate_up.to(at::kDouble), down = gate_up.to(at::kDouble);
      up.view(-1)[i] += step;
      down.view(-1)[i] -= step;
      const double slope = (value(up, mask.to(at::kDouble)) - value(down, mask.to(at::kDouble))) / (2 * step);
      CHECK(gate_up_grad.view(-1)[i].item<double>() == doctest::Approx(slope).epsilon(1e-6));
    }
    for (int64_t f = 0; f < num_channels; ++f) {
      at::Tensor up = mask.to(at::kDouble), down = mask.to(at::kDouble);
      up[f] += step;
      down[f] -= step;
      const double slope = (value(gate_up.to(at::kDouble), up) - value(gate_up.to(at::kDouble), down)) / (2 * step);
      CHECK(mask_grad[f].item<double>() == doctest::Approx(slope).epsilon(1e-6));
    }
  }
}

TEST_SUITE("parity") {
  TEST_CASE(
      "swiglu: the quick path agrees with the reference on strided, misaligned rows and writes nothing around its "
      "outputs") {
    for (const int64_t num_channels : {1, 31, 33, 257}) {
      CAPTURE(num_channels);
      const int64_t num_tokens = 70;
      const at::Tensor gate_up = strided_copy(2 * randn({num_tokens, 2 * num_channels}, 4), 3, 1),
                       mask = at::sigmoid(randn({num_channels}, 5));
      const at::Tensor h_grad = strided_copy(randn({num_tokens, num_channels}, 6), 5, 1);
      Guarded h(num_tokens * num_channels), h_reference(num_tokens * num_channels);
      SwigluParams<float> forward{.gate_up = gate_up.const_data_ptr<float>(),
                                  .ffn_mask = mask.const_data_ptr<float>(),
                                  .h = h.data(),
                                  .num_tokens = num_tokens,
                                  .num_channels = num_channels,
                                  .gate_up_row_stride = gate_up.stride(0)};
      swiglu_cpu(forward);
      forward.h = h_reference.data();
      swiglu_reference(forward);
      CHECK(h.intact());
      CHECK(max_error(h.tensor({num_tokens, num_channels}), h_reference.tensor({num_tokens, num_channels})) < 1e-5);

      Guarded gate_up_grad(2 * num_tokens * num_channels), mask_grad(num_channels),
          gate_up_grad_reference(2 * num_tokens * num_channels), mask_grad_reference(num_channels);
      SwigluBackwardParams<float> backward{.gate_up = gate_up.const_data_ptr<float>(),
                                           .ffn_mask = mask.const_data_ptr<float>(),
                                           .h_grad = h_grad.const_data_ptr<float>(),
                                           .gate_up_grad = gate_up_grad.data(),
                                           .ffn_mask_grad = mask_grad.data(),
                                           .num_tokens = num_tokens,
                                           .num_channels = num_channels,
                                           .gate_up_row_stride = gate_up.stride(0),
                                           .h_grad_row_stride = h_grad.stride(0)};
      swiglu_backward_cpu(backward);
      Guarded h_again(num_tokens * num_channels);
      backward.h = h_again.data();
      swiglu_backward_cpu(backward);
      CHECK(h_again.intact());
      CHECK(h_again.tensor({num_tokens, num_channels}).equal(h.tensor({num_tokens, num_channels})));
      backward.h = nullptr;
      backward.gate_up_grad = gate_up_grad_reference.data();
      backward.ffn_mask_grad = mask_grad_reference.data();
      swiglu_backward_reference(backward);
      CHECK(gate_up_grad.intact());
      CHECK(mask_grad.intact());
      CHECK(max_error(gate_up_grad.tensor({num_tokens, 2 * num_channels}),
                      gate_up_grad_reference.tensor({num_tokens, 2 * num_channels})) < 1e-5);
      CHECK(max_error(mask_grad.tensor({num_channels}), mask_grad_reference.tensor({num_channels})) < 5e-5);
    }
  }
}

TEST_SUITE("unit") {
  TEST_CASE("swiglu_linear: the bits of both operations, whose hidden values are not kept") {
    on_each(host_placements(), check_product_behind);
    const at::Tensor gate_up = randn({6, 16}, 1).requires_grad_(), weight = randn({3, 8}, 2).requires_grad_();
    swiglu_linear(gate_up, {}, weight, {}).sum().backward();  // no arena: autograd gets the weight's gradient
    const at::Tensor returned = weight.grad().clone();
    weight.mutable_grad() = at::Tensor();
    coppice::linear(swiglu(gate_up, {}), weight, {}).sum().backward();
    CHECK(returned.equal(weight.grad()));
    CHECK_THROWS_AS(swiglu_linear(gate_up, {}, randn({3, 7}, 2), {}), InternalError);
  }

  TEST_CASE("swiglu: a mask of ones changes nothing, bit for bit") {
    on_each(host_placements(), [](const OpPlacement& on) {
      const at::Tensor gate_up = (2 * randn({50, 2 * 77}, 7)).to(on.compute).requires_grad_(),
                       masked_gate_up = gate_up.detach().clone().requires_grad_();
      const at::Tensor mask = at::ones({77}).requires_grad_(), h_grad = randn({50, 77}, 8).to(on.compute);
      const at::Tensor plain = swiglu(gate_up, {}), masked = swiglu(masked_gate_up, mask);
      plain.backward(h_grad);
      masked.backward(h_grad);
      CHECK(at::equal(plain, masked));
      CHECK(at::equal(gate_up.grad(), masked_gate_up.grad()));
      CHECK((mask.grad().scalar_type() == at::kFloat));
    });
  }

  TEST_CASE("swiglu: far gates neither overflow nor lose their limit") {
    const at::Tensor gate_up =
        at::tensor({-1e4f, -100.0f, 0.0f, 100.0f, 1e4f, 2.0f, 2.0f, 2.0f, 2.0f, 2.0f}).view({1, 10}).requires_grad_();
    const at::Tensor h = swiglu(gate_up, {});
    CHECK(max_error(h, at::tensor({0.0f, 0.0f, 0.0f, 200.0f, 2e4f}).view({1, 5})) == 0.0);
    h.backward(at::ones_like(h));
    CHECK(at::isfinite(gate_up.grad()).all().item<bool>());
    CHECK(gate_up.grad()[0][0].item<float>() == 0.0f);
    CHECK(gate_up.grad()[0][4].item<float>() == 2.0f);
  }

  TEST_CASE("swiglu: no row, and the mask's gradient is the same on every run") {
    on_each(host_placements(), [](const OpPlacement& on) {
      const at::Tensor none = at::empty({0, 8}).to(on.compute), mask = at::full({4}, 0.5f).requires_grad_();
      const at::Tensor h = swiglu(none, mask);
      CHECK(h.sizes() == at::IntArrayRef({0, 4}));
      h.backward(h.detach());
      CHECK(mask.grad().eq(0).all().item<bool>());
    });
    const at::Tensor gate_up = randn({3000, 2 * 64}, 9), h_grad = randn({3000, 64}, 10);
    at::Tensor first;
    for (int run = 0; run < 5; ++run) {
      const at::Tensor mask = at::full({64}, 0.5f).requires_grad_();
      swiglu(gate_up, mask).backward(h_grad);
      if (run == 0) first = mask.grad();
      CHECK(at::equal(first, mask.grad()));
    }
  }
}

TEST_SUITE("golden") {
  TEST_CASE("swiglu: the FFN of ffn_scores.json, soft mask, hard mask and pruned weights") {
    const auto golden = nlohmann::json::parse(std::ifstream(COPPICE_SOURCE_DIR "/tests/golden/ffn_scores.json"));
    const auto matrix = [&](const char* key) {
      const auto rows = golden.at(key).get<std::vector<std::vector<double>>>();
      at::Tensor out = at::empty({static_cast<int64_t>(rows.size()), static_cast<int64_t>(rows[0].size())});
      for (size_t r = 0; r < rows.size(); ++r)
        for (size_t c = 0; c < rows[r].size(); ++c) out[static_cast<int64_t>(r)][static_cast<int64_t>(c)] = rows[r][c];
      return out;
    };
    const auto vector = [&](const char* key) {
      return at::tensor(golden.at(key).get<std::vector<double>>()).to(at::kFloat);
    };
    const double tolerance = golden.at("tolerance").at("float32").get<double>();
    const at::Tensor gate = matrix("gate"), up = matrix("up"), down = matrix("down"), x = vector("x").view({1, -1}),
                     soft_mask = vector("lambda");
    const at::Tensor gate_up = coppice::linear(x, at::cat({gate, up}), {});
    const auto ffn = [&](const at::Tensor& mask) { return coppice::linear(swiglu(gate_up, mask), down, {}).view(-1); };
    CHECK(max_error(ffn(soft_mask), vector("out_soft")) <= tolerance);
    const at::Tensor kept = at::tensor(golden.at("kept").get<std::vector<int64_t>>());
    const at::Tensor hard_mask = at::zeros_like(soft_mask).index_copy_(0, kept, soft_mask.index_select(0, kept));
    CHECK(max_error(ffn(hard_mask), vector("out_cut")) <= tolerance);
    const at::Tensor pruned_gate_up =
        coppice::linear(x, at::cat({gate.index_select(0, kept), matrix("merged_up")}), {});
    CHECK(max_error(coppice::linear(swiglu(pruned_gate_up, {}), down.index_select(1, kept).contiguous(), {}).view(-1),
                    vector("out_pruned")) <= tolerance);
  }
}

TEST_SUITE("gpu") {
  TEST_CASE("swiglu: output and gradients at sizes around the vector width, with and without mask: on a device") {
    on_each(device_placements(), check_output_and_gradients);
  }

  TEST_CASE("swiglu_linear: the bits of both operations on a device") {
    on_each(device_placements(), check_product_behind);
  }
}
