// The fused decoder against the plain one in double (reference_decoder.h): logits, all gradients, document mask, masks
// of FFN channels and heads.
#include "src/model/decoder.h"

#include <ATen/core/grad_mode.h>

#include <cmath>

#include "src/base/errors.h"
#include "src/model/parameters.h"
#include "tests/model/reference_decoder.h"

#include <doctest/doctest.h>  // after ATen, whose CHECK would replace doctest's

using namespace coppice;
using namespace coppice::testing;

namespace {

ModelConfig tiny_config() {
  ModelConfig config = preset("test", "t");
  config.intermediate_size = {96, 33};  // layers may differ, and 33 divides by nothing
  config.num_attention_heads = 4, config.num_key_value_heads = 2;
  return config;
}

/// Biases of q, k and v (Qwen2), frequencies of which some are divided, some kept and one is between (Llama 3.1).
ModelConfig biased_config() {
  ModelConfig config = tiny_config();
  config.qk_norm = false, config.qkv_bias = true;
  config.rope_theta = 10000.0;
  config.rope_scaling = {
      .factor = 8, .low_freq_factor = 1, .high_freq_factor = 4, .original_max_position_embeddings = 64};
  return config;
}

/// Fresh weights with norm weights away from 1 and biases away from 0, so that a forgotten one shows.
Model tiny_model(const ModelConfig& config, bool gradient = false) {
  Model model = make_model(config);
  initialise_parameters(config, *model.arena, 3);
  for (const Parameter& row : parameter_table(config))
    if (row.shape.size() == 1)
      model.arena->parameter(row.name).copy_(at::linspace(0.5, 1.5, row.shape[0]) -
                                             (row.kind == ParameterKind::bias ? 1.2 : 0.0));
  if (gradient) model.arena->enable_gradient();
  return model;
}

/// Random tokens; with `packed`, three documents of lengths 5, 1 and the rest, positions restarting.
DecoderInput random_input(const ModelConfig& config, int64_t batch, int64_t seq_len, bool packed = false) {
  at::manual_seed(17);
  DecoderInput input{.token_BT = at::randint(config.vocab_size, {batch, seq_len}, at::kLong),
                     .position_BT = at::arange(seq_len).repeat({batch, 1}),
                     .document_BT = {}};
  if (packed) {
    const at::Tensor index = at::arange(seq_len);
    const at::Tensor document = index.ge(5).to(at::kInt) + index.ge(6).to(at::kInt);
    input.document_BT = document.repeat({batch, 1});
    input.position_BT = (index - at::where(document.eq(0), at::zeros_like(index),
                                           at::where(document.eq(1), at::full_like(index, 5), at::full_like(index, 6))))
                            .repeat({batch, 1});
  }
  return input;
}

double largest_difference(const at::Tensor& got, const at::Tensor& expected) {
  return (got.to(at::kDouble) - expected.to(at::kDouble)).abs().max().item<double>();
}

/// How far plain float32 arithmetic takes the logits of this input from those in double: the yardstick of bounds below.
double float32_error(const ModelConfig& config, const Model& model, const DecoderInput& input) {
  const NamedWeights weights = reference_weights(model);
  NamedWeights weights32;
  for (const auto& [name, weight] : weights) weights32[name] = weight.to(at::kFloat);
  return largest_difference(reference_logits(config, weights32, input), reference_logits(config, weights, input));
}

}  // namespace

TEST_SUITE("parity") {
  TEST_CASE("decoder: logits equal the plain decoder's in double") {
    for (const bool qk_norm : {true, false})
      for (const bool tied : {true, false})
        for (const bool packed : {false, true}) {
          CAPTURE(qk_norm);
          CAPTURE(tied);
          CAPTURE(packed);
          ModelConfig config = tiny_config();
          config.qk_norm = qk_norm, config.tie_word_embeddings = tied;
          const Model model = tiny_model(config);
          const DecoderInput input = random_input(config, 2, 19, packed);
          const at::Tensor expected = reference_logits(config, reference_weights(model), input);
          const at::Tensor got = decoder_logits(model, input);
          CHECK(got.sizes() == expected.sizes());
          CHECK(largest_difference(got, expected) <= 5e-6 * expected.abs().max().item<double>());
        }
  }

  TEST_CASE("decoder: biases of q, k and v, and scaled frequencies") {
    const ModelConfig config = biased_config();
    const Model model = tiny_model(config);
    const DecoderInput input = random_input(config, 2, 130);
    const at::Tensor expected = reference_logits(config, reference_weights(model), input);
    const double largest = expected.abs().max().item<double>();
    CHECK(largest_difference(decoder_logits(model, input), expected) <= 5e-6 * largest);
    NamedWeights unbiased = reference_weights(model);
    std::erase_if(unbiased, [](const auto& one) { return one.first.ends_with(".bias"); });
    CHECK(largest_difference(reference_logits(config, unbiased, input), expected) > 1e-2 * largest);
    ModelConfig unscaled = config;
    unscaled.rope_scaling.reset();
    CHECK(largest_difference(reference_logits(unscaled, reference_weights(model), input), expected) > 1e-2 * largest);
  }

  TEST_CASE("decoder: Llama 3.1's frequencies") {
    ModelConfig config = preset("test", "t");
    config.rope_theta = 500000.0, config.head_dim = 128, config.max_position_embeddings = 131072;
    const at::Tensor plain = rope_frequencies(config);
    CHECK(plain[0].item<double>() == 1.0);
    CHECK(plain[32].item<double>() == doctest::Approx(1 / std::sqrt(500000.0)).epsilon(1e-12));
    config.rope_scaling = RopeScaling{};  // by 8, of 8192 tokens
    const at::Tensor scaled = rope_frequencies(config);
    // 8192 f / (2 pi) turns: 4.19 at pair 28, 3.41 at pair 29; 1.22 at pair 34, 0.996 at pair 35.
    CHECK(scaled.narrow(0, 0, 29).equal(plain.narrow(0, 0, 29)));
    CHECK((scaled * 8 / plain).narrow(0, 35, 29).sub(1).abs().max().item<double>() < 1e-14);
    for (int64_t pair = 29; pair < 35; ++pair) {
      const double turns = 8192 * plain[pair].item<double>() / (2 * M_PI), smooth = (turns - 1) / 3;
      CHECK(scaled[pair].item<double>() ==
            doctest::Approx(plain[pair].item<double>() * ((1 - smooth) / 8 + smooth)).epsilon(1e-12));
    }
  }

  TEST_CASE("decoder: a sequence of one token and a sequence longer than a tile") {
    const ModelConfig config = tiny_config();
    const Model model = tiny_model(config);
    for (const int64_t seq_len : {1, 130}) {
      const DecoderInput input = random_input(config, 1, seq_len);
      const at::Tensor expected = reference_logits(config, reference_weights(model), input);
      CHECK(largest_difference(decoder_logits(model, input), expected) <= 5e-6 * expected.abs().max().item<double>());
    }
  }

  TEST_CASE("decoder: a packed document sees itself alone") {
    const ModelConfig config = tiny_config();
    const Model model = tiny_model(config);
    const DecoderInput packed = random_input(config, 1, 19, true);
    const at::Tensor logits = decoder_logits(model, packed);
    const double bound = 2 * float32_error(config, model, packed);  // both sides are rounded
    for (const auto& [begin, end] : {std::pair{0, 5}, std::pair{5, 6}, std::pair{6, 19}}) {
      const DecoderInput alone{.token_BT = packed.token_BT.narrow(1, begin, end - begin).contiguous(),
                               .position_BT = at::arange(end - begin).unsqueeze(0),
                               .document_BT = {}};
      CHECK(largest_difference(logits.narrow(0, begin, end - begin), decoder_logits(model, alone)) <= bound);
    }
    DecoderInput unmasked = packed;
    unmasked.document_BT = at::Tensor();
    CHECK(largest_difference(decoder_logits(model, unmasked).narrow(0, 6, 13), logits.narrow(0, 6, 13)) > 1e-3);
  }

  TEST_CASE("decoder: later tokens never reach earlier logits") {
    const ModelConfig config = tiny_config();
    const Model model = tiny_model(config);
    DecoderInput input = random_input(config, 1, 19);
    const at::Tensor before = decoder_logits(model, input);
    input.token_BT = input.token_BT.clone();
    input.token_BT.select(1, 12).add_(1).remainder_(config.vocab_size);
    const at::Tensor after = decoder_logits(model, input);
    CHECK(after.narrow(0, 0, 12).equal(before.narrow(0, 0, 12)));
    CHECK(largest_difference(after.select(0, 12), before.select(0, 12)) > 1e-4);
  }

  TEST_CASE("ffn_mask: all ones changes nothing, bit for bit") {
    const ModelConfig config = tiny_config();
    const Model model = tiny_model(config);
    const DecoderInput input = random_input(config, 2, 19);
    const DecoderMasks ones{{at::ones({96}), at::ones({33})}};
    CHECK(decoder_logits(model, input, ones).equal(decoder_logits(model, input)));
  }

  TEST_CASE("ffn_mask: a multiplier is a scale on the rows of up_proj") {
    const ModelConfig config = tiny_config();
    const Model model = tiny_model(config);
    const DecoderInput input = random_input(config, 2, 19);
    const DecoderMasks masks{{at::linspace(0, 1, 96), at::linspace(1, 0, 33)}};
    const at::Tensor masked = decoder_logits(model, input, masks);
    const Model merged = tiny_model(config);
    for (int layer = 0; layer < 2; ++layer)
      merged.arena->parameter("layers." + std::to_string(layer) + ".mlp.up_proj.weight")
          .mul_(masks.multiplier_F[static_cast<size_t>(layer)].unsqueeze(1));
    CHECK(largest_difference(masked, decoder_logits(merged, input)) <= 1e-6 * masked.abs().max().item<double>());
    CHECK(largest_difference(masked, decoder_logits(model, input)) > 1e-3);
  }

  TEST_CASE("head masks: all ones change nothing, bit for bit; a multiplier is a scale on the rows of v_proj") {
    for (const ModelConfig& config : {tiny_config(), biased_config()}) {
      const Model model = tiny_model(config);
      const DecoderInput input = random_input(config, 2, 19, true);
      const at::Tensor dense = decoder_logits(model, input);
      DecoderMasks masks{.multiplier_F = {}, .multiplier_G = {at::ones({2}), at::ones({2})}};
      CHECK(decoder_logits(model, input, masks).equal(dense));
      masks.multiplier_G = {at::tensor({0.f, 0.7f}), at::tensor({1.3f, 1.f})};
      const at::Tensor masked = decoder_logits(model, input, masks);
      CHECK(largest_difference(masked, dense) > 1e-3);
      CHECK(largest_difference(masked, reference_logits(config, reference_weights(model), input, masks)) <=
            5e-6 * masked.abs().max().item<double>());
      const Model merged = tiny_model(config);
      for (int layer = 0; layer < 2; ++layer) {
        const at::Tensor factor_P = masks.multiplier_G[static_cast<size_t>(layer)].repeat_interleave(config.head_dim);
        const std::string v_proj = "layers." + std::to_string(layer) + ".self_attn.v_proj.";
        merged.arena->parameter(v_proj + "weight").mul_(factor_P.unsqueeze(1));
        if (config.qkv_bias) merged.arena->parameter(v_proj + "bias").mul_(factor_P);
      }
      CHECK(largest_difference(masked, decoder_logits(merged, input)) <= 1e-6 * masked.abs().max().item<double>());
    }
    const ModelConfig config = tiny_config();
    const Model model = tiny_model(config);
    const DecoderInput input = random_input(config, 1, 4);
    CHECK_THROWS_AS(decoder_logits(model, input, {.multiplier_F = {}, .multiplier_G = {at::ones({2})}}), InternalError);
    CHECK_THROWS_AS(decoder_logits(model, input, {.multiplier_F = {}, .multiplier_G = {at::ones({2}), at::ones({4})}}),
                    InternalError);
  }

  TEST_CASE("stream mask: all ones change nothing, bit for bit; zeros keep a dimension at 0 from end to end") {
    const ModelConfig config = tiny_config();
    const Model model = tiny_model(config);
    const DecoderInput input = random_input(config, 2, 19, true);
    const at::Tensor dense = decoder_logits(model, input);
    CHECK(decoder_logits(model, input, {.multiplier_F = {}, .multiplier_D = at::ones({32})}).equal(dense));
    const DecoderMasks masks{.multiplier_F = {}, .multiplier_D = at::linspace(0, 1.5, 32)};
    const at::Tensor masked = decoder_logits(model, input, masks);
    CHECK(largest_difference(masked, dense) > 1e-3);
    CHECK(largest_difference(masked, reference_logits(config, reference_weights(model), input, masks)) <=
          5e-6 * masked.abs().max().item<double>());
    size_t looks = 0;
    const DecoderTap is_zero = [&](int, const at::Tensor& stream_ND) {
      CHECK(stream_ND.select(1, 0).abs().max().item<double>() == 0);
      CHECK(stream_ND.select(1, 1).abs().max().item<double>() > 0);
      ++looks;
    };
    decoder_hidden(model, input, masks, {.layer_output = is_zero, .normed = is_zero});
    CHECK(looks == 6);  // behind two layers, and behind two norms in each
    CHECK_THROWS_AS(decoder_logits(model, input, {.multiplier_F = {}, .multiplier_D = at::ones({31})}), InternalError);
  }

  TEST_CASE("decoder: the tap sees what enters o_proj, masked") {
    const ModelConfig config = tiny_config();
    const Model model = tiny_model(config);
    const DecoderInput input = random_input(config, 1, 1);  // one token: attention gives its own value
    std::vector<at::Tensor> plain, masked;
    std::vector<at::Tensor>* seen = &plain;
    const DecoderTaps taps{.attention_hidden = [&](int layer, const at::Tensor& hidden_NC) {
      CHECK(layer == static_cast<int>(seen->size()));
      seen->push_back(hidden_NC.clone());
    }};
    decoder_hidden(model, input, {}, taps);
    seen = &masked;
    decoder_hidden(model, input, {.multiplier_F = {}, .multiplier_G = {at::tensor({0.f, 2.f}), at::ones({2})}}, taps);
    const at::Tensor weight_D = model.arena->parameter("layers.0.input_layernorm.weight"),
                     x_D = model.arena->parameter("embed_tokens.weight")[input.token_BT[0][0].item<int64_t>()],
                     normed_D = x_D * (x_D.square().mean() + config.rms_norm_eps).rsqrt() * weight_D,
                     v_GK = at::mv(model.arena->parameter("layers.0.self_attn.v_proj.weight"), normed_D).view({2, -1});
    REQUIRE(plain.size() == 2);
    CHECK(largest_difference(plain[0][0], v_GK.repeat_interleave(2, 0).flatten()) < 1e-5);
    const int64_t half = plain[0].size(1) / 2;
    CHECK(masked[0].narrow(1, 0, half).abs().max().item<double>() == 0);
    CHECK(masked[0].narrow(1, half, half).equal(plain[0].narrow(1, half, half) * 2));
  }

  TEST_CASE("decoder: what the heads give is gone when the FFN runs, where no gradient asks for it") {
    const ModelConfig config = tiny_config();
    const Model model = tiny_model(config);
    const at::NoGradGuard no_grad;
    using Held = c10::weak_intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>;
    std::vector<Held> heads;
    int looks = 0;
    const DecoderTap ffn = [&](int, const at::Tensor&) {
      CHECK(heads.back().expired());
      ++looks;
    };
    const DecoderTap attention = [&](int, const at::Tensor& hidden_NC) {
      heads.emplace_back(hidden_NC.getIntrusivePtr());
      CHECK_FALSE(heads.back().expired());
    };
    decoder_hidden(model, random_input(config, 1, 4), {}, {.ffn_hidden = ffn, .attention_hidden = attention});
    CHECK(looks == 2);
  }

  TEST_CASE("decoder: the tap sees what enters down_proj") {
    const ModelConfig config = tiny_config();
    const Model model = tiny_model(config);
    const DecoderInput input = random_input(config, 1, 4);
    std::vector<at::Tensor> seen;
    decoder_hidden(model, input, {}, {.ffn_hidden = [&](int layer, const at::Tensor& hidden_NF) {
                     CHECK(layer == static_cast<int>(seen.size()));
                     seen.push_back(hidden_NF.clone());
                   }});
    REQUIRE(seen.size() == 2);
    CHECK(seen[1].sizes() == at::IntArrayRef({4, 33}));
    // Channels that never fire can be cut: zero them by mask, and the tap shows zeros.
    std::vector<at::Tensor> masked;
    decoder_hidden(model, input, {{at::zeros({96}), at::ones({33})}},
                   {.ffn_hidden = [&](int, const at::Tensor& hidden_NF) { masked.push_back(hidden_NF.clone()); }});
    CHECK(masked[0].abs().max().item<double>() == 0);
    CHECK(seen[0].abs().max().item<double>() > 0);
  }

  TEST_CASE(
      "decoder: the tap behind each layer sees the residual stream, the last of which the final norm turns into the "
      "hidden states") {
    const ModelConfig config = tiny_config();
    const Model model = tiny_model(config);
    std::vector<at::Tensor> outputs;
    const at::Tensor hidden_ND = decoder_hidden(model, random_input(config, 2, 4), {},
                                                {.layer_output = [&](int layer, const at::Tensor& output_ND) {
                                                  CHECK(layer == static_cast<int>(outputs.size()));
                                                  outputs.push_back(output_ND.clone());
                                                }});
    REQUIRE(outputs.size() == 2);
    CHECK(outputs[0].sizes() == hidden_ND.sizes());
    CHECK(largest_difference(outputs[0], outputs[1]) > 1e-3);
    const at::Tensor weight_D = model.arena->parameter("norm.weight"),
                     mean_square_N1 = outputs[1].square().mean(1, true);
    CHECK(largest_difference(outputs[1] / (mean_square_N1 + config.rms_norm_eps).sqrt() * weight_D, hidden_ND) < 1e-5);
  }
}

TEST_SUITE("grad") {
  TEST_CASE("decoder: gradients of all parameters and masks equal the plain decoder's in double") {
    for (const bool tied : {true, false})
      for (const bool packed : {false, true}) {
        CAPTURE(tied);
        CAPTURE(packed);
        ModelConfig config = tiny_config();
        config.tie_word_embeddings = tied;
        const Model model = tiny_model(config, /*gradient=*/true);
        const DecoderInput input = random_input(config, 2, 19, packed);
        const DecoderMasks masks{.multiplier_F = {at::linspace(0.2, 1, 96).requires_grad_(true),
                                                  at::linspace(1, 0.2, 33).requires_grad_(true)},
                                 .multiplier_G = {at::tensor({0.4f, 1.f}).requires_grad_(true),
                                                  at::tensor({0.9f, 0.3f}).requires_grad_(true)}};
        const at::Tensor direction = at::randn({2 * 19, config.vocab_size});
        for (int repeat = 0; repeat < 2; ++repeat)
          (decoder_logits(model, input, masks) * direction).sum().backward();  // gradients accumulate

        const NamedWeights weights = reference_weights(model);
        DecoderMasks plain;
        for (const auto member : {&DecoderMasks::multiplier_F, &DecoderMasks::multiplier_G})
          for (const at::Tensor& mask : masks.*member)
            (plain.*member).push_back(mask.detach().to(at::kDouble).requires_grad_(true));
        (2 * reference_logits(config, weights, input, plain) * direction).sum().backward();
        for (const auto& [name, weight] : weights) {
          CAPTURE(name);
          const double size = weight.grad().abs().max().item<double>();
          CHECK(size > 0);
          CHECK(largest_difference(model.arena->gradient_of(name), weight.grad()) <= 2e-5 * size);
        }
        for (const auto member : {&DecoderMasks::multiplier_F, &DecoderMasks::multiplier_G})
          for (size_t layer = 0; layer < 2; ++layer) {
            const at::Tensor expected = (plain.*member)[layer].grad();
            CHECK(largest_difference((masks.*member)[layer].grad(), expected) <=
                  2e-5 * expected.abs().max().item<double>());
          }
      }
  }

  TEST_CASE("decoder: gradients with biases and scaled frequencies") {
    const ModelConfig config = biased_config();
    const Model model = tiny_model(config, /*gradient=*/true);
    const DecoderInput input = random_input(config, 2, 19);
    const at::Tensor direction = at::randn({2 * 19, config.vocab_size});
    (decoder_logits(model, input) * direction).sum().backward();
    const NamedWeights weights = reference_weights(model);
    (reference_logits(config, weights, input) * direction).sum().backward();
    for (const auto& [name, weight] : weights) {
      CAPTURE(name);
      const double size = weight.grad().abs().max().item<double>();
      CHECK(size > 0);
      CHECK(largest_difference(model.arena->gradient_of(name), weight.grad()) <= 2e-5 * size);
    }
  }

  TEST_CASE("decoder: the plain decoder's own gradients agree with central differences") {
    const ModelConfig config = tiny_config();
    const Model model = tiny_model(config);
    const DecoderInput input = random_input(config, 1, 9, true);
    const NamedWeights weights = reference_weights(model);
    const at::Tensor direction = at::randn({9, config.vocab_size}, at::kDouble);
    const auto value = [&] { return (reference_logits(config, weights, input) * direction).sum(); };
    value().backward();
    for (const auto& [name, weight] : weights) {
      CAPTURE(name);
      const at::Tensor step = at::randn_like(weight.detach());
      constexpr double kStep = 1e-5;
      const double slope = (weight.grad() * step).sum().item<double>();
      at::Tensor flat = weight.detach();  // shares memory with the leaf
      flat.add_(step, kStep);
      const double above = value().item<double>();
      flat.add_(step, -2 * kStep);
      const double below = value().item<double>();
      flat.add_(step, kStep);
      CHECK((above - below) / (2 * kStep) == doctest::Approx(slope).epsilon(1e-5));
    }
  }

  TEST_CASE("decoder: no graph is kept without a gradient arena") {
    const ModelConfig config = tiny_config();
    const Model model = tiny_model(config);
    CHECK_FALSE(decoder_hidden(model, random_input(config, 1, 4)).requires_grad());
    model.arena->enable_gradient();
    CHECK(decoder_hidden(model, random_input(config, 1, 4)).requires_grad());
    const at::NoGradGuard no_grad;
    CHECK_FALSE(decoder_hidden(model, random_input(config, 1, 4)).requires_grad());
  }
}
