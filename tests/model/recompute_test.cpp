// What is computed again in the backward pass changes no bit: a step's hidden states and all its gradients under each
// policy, in float32 by the CPU's loops and in bfloat16 by the kernels.
#include "src/model/recompute.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <string>
#include <vector>

#include "src/base/errors.h"
#include "src/model/decoder.h"
#include "src/model/parameters.h"
#include "tests/model/noise.h"
#include "tests/tensors/compare.h"
#include "tests/tensors/whole_arena.h"

using namespace coppice;

namespace {

constexpr int64_t kBatch = 2, kSeqLen = 20;

struct Variant {
  std::string name;
  bool qkv_bias = false;  // instead of QK-norm
  bool masked = false, packed = false, tapped = false;
};

const std::vector<Variant> kVariants = {
    {.name = "plain"},
    {.name = "biases", .qkv_bias = true},
    {.name = "masks", .masked = true},
    {.name = "documents", .packed = true},
    {.name = "taps", .tapped = true},
    {.name = "all", .qkv_bias = true, .masked = true, .packed = true, .tapped = true}};

Model random_model(const Variant& variant, const Placement& on) {
  ModelConfig config = preset("test", "t");
  config.num_attention_heads = 4, config.num_key_value_heads = 2, config.head_dim = 16;
  config.num_hidden_layers = 3, config.intermediate_size = {96, 40, 64};
  config.qkv_bias = variant.qkv_bias, config.qk_norm = !variant.qkv_bias;
  Model model = make_model(config, on);
  fill_with_noise(*model.arena);
  model.arena->enable_gradient();
  return model;
}

DecoderInput random_input(bool packed, at::Device device) {
  const at::Tensor column = at::arange(kSeqLen).to(device);
  DecoderInput input{.token_BT = ((randn({kBatch, kSeqLen}, 1).abs() * 1e4).to(at::kLong) % 300).to(device),
                     .position_BT = column.repeat({kBatch, 1})};
  if (!packed) return input;
  const at::Tensor second = column.ge(7);
  input.document_BT = second.to(at::kInt).repeat({kBatch, 1});
  input.position_BT = (column - second.to(at::kLong) * 7).repeat({kBatch, 1});
  return input;
}

/// Two micro-batches, so that gradients are added to: hidden states of the last, all gradients.
struct Step {
  at::Tensor hidden_ND, gradient, mask_gradient;
};

Step step_of(const Variant& variant, const Placement& on, Recompute recompute) {
  const Model model = random_model(variant, on);
  const auto multiplier = [&](double first, double last, int64_t size) {
    return at::linspace(first, last, size).to(on.device).requires_grad_();
  };
  DecoderMasks masks;
  if (variant.masked)
    masks = {.multiplier_F = {multiplier(0.2, 1, 96), multiplier(1, 0.3, 40), multiplier(0.5, 0.9, 64)},
             .multiplier_G = {multiplier(0.4, 1, 2), multiplier(0.9, 0.3, 2), multiplier(1, 0.7, 2)},
             .multiplier_D = multiplier(0.5, 1, 32)};
  Step step;
  for (uint64_t micro_batch = 0; micro_batch < 2; ++micro_batch) {
    at::Tensor tapped;  // some of what two layers put out, one of them used twice
    DecoderTaps taps;
    if (variant.tapped)
      taps.layer_output = [&](int layer, const at::Tensor& output_ND) {
        if (layer == 1) return;
        const at::Tensor wide_ND = output_ND.to(at::kFloat), term = wide_ND.square().mean() + wide_ND.sin().mean();
        tapped = tapped.defined() ? tapped + term : term;
      };
    const at::Tensor hidden_ND = decoder_hidden(model, random_input(variant.packed, on.device), masks, taps, recompute);
    const at::Tensor weight_ND = randn(hidden_ND.sizes(), 7 + micro_batch).to(on.device),
                     sum = (hidden_ND.to(at::kFloat) * weight_ND).sum();
    (variant.tapped ? sum + tapped : sum).backward();
    step.hidden_ND = hidden_ND.detach();
  }
  step.gradient = whole_gradient(*model.arena);
  std::vector<at::Tensor> of_masks;
  for (const auto member : {&DecoderMasks::multiplier_F, &DecoderMasks::multiplier_G})
    for (const at::Tensor& mask : masks.*member) of_masks.push_back(mask.grad());
  if (masks.multiplier_D.defined()) of_masks.push_back(masks.multiplier_D.grad());
  step.mask_gradient = of_masks.empty() ? at::zeros({1}) : at::cat(of_masks);
  return step;
}

void check_bits(const OpPlacement& on) {
  for (const Variant& variant : kVariants) {
    const Step kept = step_of(variant, on, Recompute::none);
    REQUIRE(kept.gradient.isfinite().all().item<bool>());
    REQUIRE(kept.gradient.ne(0).to(at::kFloat).mean().item<double>() > 0.3);  // all but tokens that do not occur
    for (const Recompute recompute : {Recompute::elementwise, Recompute::gate_up, Recompute::layer}) {
      INFO(variant.name << ", again: " << recompute_name(recompute));
      const Step again = step_of(variant, on, recompute);
      CHECK(again.hidden_ND.equal(kept.hidden_ND));
      CHECK(again.gradient.equal(kept.gradient));
      CHECK(again.mask_gradient.equal(kept.mask_gradient));
    }
  }
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("recompute: names as recipes spell them") {
    CHECK(recompute_names() == std::vector<std::string>{"none", "elementwise", "gate_up", "layer"});
    for (const std::string& name : recompute_names()) CHECK(recompute_name(find_recompute(name).value()) == name);
    CHECK_FALSE(find_recompute("auto").has_value());
  }

  TEST_CASE("recompute: nothing looks into a layer that is run again, and without a gradient nothing is") {
    const Model model = random_model({}, {});
    const DecoderInput input = random_input(false, at::kCPU);
    const auto look = [](int, const at::Tensor&) {};
    for (const DecoderTaps& taps :
         {DecoderTaps{.ffn_hidden = look}, DecoderTaps{.attention_hidden = look}, DecoderTaps{.normed = look}})
      CHECK_THROWS_AS(decoder_hidden(model, input, {}, taps, Recompute::gate_up), InternalError);
    const c10::NoGradGuard no_grad;
    CHECK_FALSE(decoder_hidden(model, input, {}, {}, Recompute::layer).requires_grad());
  }
}

TEST_SUITE("parity") {
  TEST_CASE("recompute: a step's gradients have the same bits whatever is computed again") {
    on_each(host_placements(), check_bits);
  }
}

TEST_SUITE("gpu") {
  TEST_CASE("recompute: a step's gradients have the same bits on a device") {
    on_each(device_placements(), check_bits);
  }
}
