// The decoder as a walk over its layers: every line is one fused operation of src/tensors/ops.h. q, k and v are one
// GEMM, gate and up another, because their rows lie side by side in the arena; the residual add waits for the norm that
// follows it. What is computed again in the backward pass is cut into stretches (compute_again.h), each from a norm
// through a product: to the projection, to gate and up or through the FFN, or the whole layer.
#include "src/model/decoder.h"

#include <c10/core/ScalarType.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <span>
#include <utility>

#include "src/base/errors.h"
#include "src/model/compute_again.h"
#include "src/model/decoder_halves.h"
#include "src/model/parameters.h"
#include "src/tensors/ops.h"
#include "src/tensors/shape.h"

namespace coppice {
namespace {

void check_input(const Model& model, const DecoderInput& input, const DecoderMasks& masks) {
  check_shape(input.token_BT, {-1, -1}, "token_BT");
  const int64_t batch = input.token_BT.size(0), seq_len = input.token_BT.size(1);
  check_shape(input.position_BT, {batch, seq_len}, "position_BT");
  COPPICE_CHECK(input.token_BT.scalar_type() == at::kLong && input.position_BT.scalar_type() == at::kLong,
                "tokens and positions are int64");
  if (input.document_BT.defined()) check_shape(input.document_BT, {batch, seq_len}, "document_BT");
  for (const size_t count : {masks.multiplier_F.size(), masks.multiplier_G.size()})
    COPPICE_CHECK(count == 0 || static_cast<int64_t>(count) == model.config.num_hidden_layers,
                  fmt::format("{} masks for {} layers", count, model.config.num_hidden_layers));
  for (size_t layer = 0; layer < masks.multiplier_F.size(); ++layer)
    check_shape(masks.multiplier_F[layer], {model.config.intermediate_size[layer]}, "ffn_mask_F");
  for (const at::Tensor& head_mask_G : masks.multiplier_G)
    check_shape(head_mask_G, {model.config.num_key_value_heads}, "head_mask_G");
  if (masks.multiplier_D.defined()) check_shape(masks.multiplier_D, {model.config.hidden_size}, "stream_mask_D");
}

/// Times a multiplier, which is float32 whatever the value's type: the product is rounded, not the multiplier.
at::Tensor scaled(const at::Tensor& value, const at::Tensor& multiplier) {
  return (value * multiplier.to(at::kFloat)).to(value.scalar_type());
}

/// Every group of heads times its multiplier, [N, H K].
at::Tensor scale_groups(const at::Tensor& hidden_NQ, const at::Tensor& head_mask_G) {
  return scaled(hidden_NQ.unflatten(1, {head_mask_G.size(0), -1}), head_mask_G.unsqueeze(1)).flatten(1);
}

/// What is written to the residual stream.
at::Tensor written(const at::Tensor& value_ND, const at::Tensor& stream_mask_D) {
  return stream_mask_D.defined() ? scaled(value_ND, stream_mask_D) : value_ND;
}

LayerMasks masks_of_layer(const DecoderMasks& masks, int64_t layer) {
  const auto of_layer = [&](const std::vector<at::Tensor>& multiplier) {
    return multiplier.empty() ? at::Tensor() : multiplier[static_cast<size_t>(layer)];
  };
  return {of_layer(masks.multiplier_F), of_layer(masks.multiplier_G), masks.multiplier_D};
}

at::Tensor projection(const LayerWeights& w, const at::Tensor& normed_ND) {
  return linear(normed_ND, w.qkv.value, w.qkv.grad, w.qkv_bias.value, w.qkv_bias.grad);
}

/// What the heads give, from the packed projection, whose memory attention may need.
at::Tensor heads_of_projection(const ModelConfig& config, const LayerWeights& w, at::Tensor qkv_NP,
                               const DecoderInput& input, const at::Tensor& frequencies) {
  // the heads whose weights are held here, be they all of them or a part
  const int64_t heads = w.o.value.size(1) / config.head_dim;
  const int64_t kv_heads = (w.qkv.value.size(0) / config.head_dim - heads) / 2;
  const AttentionInput qkv = qk_norm_rope(qkv_NP, w.q_norm.value, w.q_norm.grad, w.k_norm.value, w.k_norm.grad,
                                          input.position_BT.reshape({-1}), heads, kv_heads, config.rms_norm_eps,
                                          frequencies, input.largest_position);
  qkv_NP.reset();
  return causal_attention(qkv, input.token_BT.size(0), heads, kv_heads, input.document_BT, input.bounds);
}

/// One layer of a forward pass, with all that it reads: copies of it run the layer again in the backward pass.
struct LayerPass {
  int layer;
  const ModelConfig* config;  // the model's, which outlives the pass
  LayerWeights weights;
  DecoderInput input;
  at::Tensor frequencies;
  DecoderTaps taps;

  /// What the heads give, as it enters o_proj, from the packed projection.
  at::Tensor attention_hidden(at::Tensor qkv_NP, const LayerMasks& masks) const {
    at::Tensor heads_NQ = heads_of_projection(*config, weights, std::move(qkv_NP), input, frequencies);
    if (masks.heads_G.defined()) heads_NQ = scale_groups(heads_NQ, masks.heads_G);
    if (taps.attention_hidden) taps.attention_hidden(layer, heads_NQ);
    return heads_NQ;
  }

  /// From the packed projection to the norm in front of the FFN. What the heads give goes before the FFN needs its
  /// memory.
  ResidualNorm behind_attention(const at::Tensor& residual_ND, at::Tensor qkv_NP, const LayerMasks& masks) const {
    const at::Tensor heads_NQ = attention_hidden(std::move(qkv_NP), masks);
    const at::Tensor delta_ND = written(linear(heads_NQ, weights.o.value, weights.o.grad), masks.stream_D);
    return residual_rms_norm(residual_ND, delta_ND, weights.ffn_norm.value, weights.ffn_norm.grad,
                             config->rms_norm_eps);
  }

  at::Tensor ffn_hidden(const at::Tensor& normed_ND, const LayerMasks& masks) const {
    at::Tensor hidden_NF = swiglu(linear(normed_ND, weights.gate_up.value, weights.gate_up.grad), masks.ffn_F);
    if (taps.ffn_hidden) taps.ffn_hidden(layer, hidden_NF);
    return hidden_NF;
  }
};

/// A norm and the product behind it.
Stretch to_linear(const LayerPass& pass, const Weight& norm, bool norm_adds, const Weight& linear, const Weight& bias) {
  return {.run = [](const ResidualNorm& begin, const LayerMasks&) -> StretchOutput {
            return {begin.normed_ND, {}};
          },
          .linear = linear,
          .bias = bias,
          .norm_weight_D = norm.value,
          .eps = pass.config->rms_norm_eps,
          .norm_adds = norm_adds};
}

Stretch to_projection(const LayerPass& pass) {
  const LayerWeights& w = pass.weights;
  return to_linear(pass, w.attention_norm, /*norm_adds=*/pass.layer > 0, w.qkv, w.qkv_bias);
}

Stretch to_gate_up(const LayerPass& pass) {
  return to_linear(pass, pass.weights.ffn_norm, /*norm_adds=*/true, pass.weights.gate_up, /*bias=*/{});
}

Stretch through_ffn(const LayerPass& pass) {
  return {.run = [pass](const ResidualNorm& begin, const LayerMasks& masks) -> StretchOutput {
            return {pass.ffn_hidden(begin.normed_ND, masks), {}};
          },
          .linear = pass.weights.down,
          .bias = {},
          .norm_weight_D = pass.weights.ffn_norm.value,
          .eps = pass.config->rms_norm_eps};
}

Stretch through_layer(const LayerPass& pass) {
  return {.run = [pass](const ResidualNorm& begin, const LayerMasks& masks) -> StretchOutput {
            const ResidualNorm middle =
                pass.behind_attention(begin.residual_ND, projection(pass.weights, begin.normed_ND), masks);
            return {pass.ffn_hidden(middle.normed_ND, masks), middle.residual_ND};
          },
          .linear = pass.weights.down,
          .bias = {},
          .norm_weight_D = pass.weights.attention_norm.value,
          .eps = pass.config->rms_norm_eps,
          .norm_adds = pass.layer > 0};
}

}  // namespace

Model make_model(const ModelConfig& config, const Placement& placement) {
  check_config(config, "model", /*from_file=*/false);
  return {.config = config, .arena = std::make_unique<ParameterArena>(arena_layout(config), placement)};
}

Weight weight_of(const Model& model, const std::string& name) {
  return {model.arena->parameter(name), model.arena->has_gradient() ? model.arena->gradient_of(name) : at::Tensor()};
}

LayerWeights layer_weights(const Model& model, int64_t layer) {
  const std::string at = fmt::format("layers.{}.", layer);
  const auto one = [&](const char* name) { return weight_of(model, at + name + ".weight"); };
  const auto fused = [&](const char* first, const char* last, const char* kind = ".weight") {
    const std::string a = at + first + kind, b = at + last + kind;
    return Weight{model.arena->fused_parameter(a, b),
                  model.arena->has_gradient() ? model.arena->fused_gradient(a, b) : at::Tensor()};
  };
  return {.attention_norm = one("input_layernorm"),
          .qkv = fused("self_attn.q_proj", "self_attn.v_proj"),
          .qkv_bias = model.config.qkv_bias ? fused("self_attn.q_proj", "self_attn.v_proj", ".bias") : Weight{},
          .q_norm = model.config.qk_norm ? one("self_attn.q_norm") : Weight{},
          .k_norm = model.config.qk_norm ? one("self_attn.k_norm") : Weight{},
          .o = one("self_attn.o_proj"),
          .ffn_norm = one("post_attention_layernorm"),
          .gate_up = fused("mlp.gate_proj", "mlp.up_proj"),
          .down = one("mlp.down_proj")};
}

at::Tensor rope_frequencies(const ModelConfig& config) {
  at::Tensor frequencies = rope_frequencies(config.rope_theta, config.head_dim);
  if (!config.rope_scaling) return frequencies;
  const RopeScaling& scaling = *config.rope_scaling;
  for (double& frequency :
       std::span(frequencies.mutable_data_ptr<double>(), static_cast<size_t>(frequencies.numel()))) {
    // Turns within the length of the first training: at most low_freq_factor, and the frequency is divided by factor;
    // at least high_freq_factor, and it stays; a straight line between the two.
    const double turns =
        frequency / (2 * std::numbers::pi) * static_cast<double>(scaling.original_max_position_embeddings);
    const double kept = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
    frequency *= std::lerp(1 / scaling.factor, 1.0, std::clamp(kept, 0.0, 1.0));
  }
  return frequencies;
}

DecoderHalves::DecoderHalves(const Model& model, DecoderMasks masks)
    : model_(&model), masks_(std::move(masks)), frequencies_(rope_frequencies(model.config)) {
  COPPICE_CHECK(!masks_.multiplier_D.defined(), "halves under a mask of the residual stream");
}

at::Tensor DecoderHalves::embedded(const DecoderInput& input) const {
  return embedding(input.token_BT.reshape({-1}), weight_of(*model_, "embed_tokens.weight").value, at::Tensor(),
                   input.ids_below);
}

at::Tensor DecoderHalves::hidden(int64_t half, const at::Tensor& stream_ND, const DecoderInput& input) const {
  const LayerPass pass{.layer = static_cast<int>(half / 2),
                       .config = &model_->config,
                       .weights = layer_weights(*model_, half / 2),
                       .input = input,
                       .frequencies = frequencies_,
                       .taps = {}};
  const bool is_ffn = half % 2 != 0;
  const at::Tensor& norm_D = (is_ffn ? pass.weights.ffn_norm : pass.weights.attention_norm).value;
  const at::Tensor normed_ND =
      residual_rms_norm(stream_ND, at::Tensor(), norm_D, at::Tensor(), model_->config.rms_norm_eps).normed_ND;
  const LayerMasks masks = masks_of_layer(masks_, half / 2);
  return is_ffn ? pass.ffn_hidden(normed_ND, masks) : pass.attention_hidden(projection(pass.weights, normed_ND), masks);
}

at::Tensor DecoderHalves::added(int64_t half, const at::Tensor& hidden_NI) const {
  return linear(hidden_NI, weight_of(*model_, parameter_of_half(half)).value, at::Tensor());
}

const char* writer_of_half(int64_t half) { return half % 2 != 0 ? "down_proj" : "o_proj"; }

std::string parameter_of_half(int64_t half) {
  return fmt::format("layers.{}.{}.{}.weight", half / 2, half % 2 != 0 ? "mlp" : "self_attn", writer_of_half(half));
}

at::Tensor decoder_hidden(const Model& model, const DecoderInput& input, const DecoderMasks& masks,
                          const DecoderTaps& taps, Recompute recompute) {
  check_input(model, input, masks);
  COPPICE_CHECK(recompute == Recompute::none || !(taps.ffn_hidden || taps.attention_hidden || taps.normed),
                fmt::format("taps inside layers that are run again ({})", recompute_name(recompute)));
  const ModelConfig& config = model.config;
  const at::Tensor frequencies = rope_frequencies(config);
  const double eps = config.rms_norm_eps;
  const auto run = recompute == Recompute::none ? run_and_keep : run_to_run_again;

  const Weight table = weight_of(model, "embed_tokens.weight");
  at::Tensor x_ND =
      written(embedding(input.token_BT.reshape({-1}), table.value, table.grad, input.ids_below, input.token_order),
              masks.multiplier_D);
  at::Tensor delta_ND;  // not yet added to x: the next norm does that in its own pass
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    const LayerPass pass{.layer = static_cast<int>(layer),
                         .config = &config,
                         .weights = layer_weights(model, layer),
                         .input = input,
                         .frequencies = frequencies,
                         .taps = taps};
    const LayerWeights& w = pass.weights;
    const LayerMasks own = masks_of_layer(masks, layer);
    ResidualNorm norm = residual_rms_norm(x_ND, delta_ND, w.attention_norm.value, w.attention_norm.grad, eps);
    if (taps.layer_output && layer > 0) taps.layer_output(static_cast<int>(layer) - 1, norm.residual_ND);
    if (taps.normed) taps.normed(static_cast<int>(layer), norm.normed_ND);
    StretchEnd end;
    if (recompute == Recompute::layer) {
      end = run(through_layer(pass), norm, own);
    } else {
      norm = pass.behind_attention(norm.residual_ND, run(to_projection(pass), norm, {}).out_NO, own);
      if (taps.normed) taps.normed(static_cast<int>(layer), norm.normed_ND);
      if (recompute == Recompute::elementwise)
        end = {swiglu_linear(run(to_gate_up(pass), norm, {}).out_NO, own.ffn_F, w.down.value, w.down.grad),
               norm.residual_ND};
      else
        end = run(through_ffn(pass), norm, own);
    }
    delta_ND = written(end.out_NO, own.stream_D);
    x_ND = end.residual_ND;
  }
  const Weight final_norm = weight_of(model, "norm.weight");
  const ResidualNorm last = residual_rms_norm(x_ND, delta_ND, final_norm.value, final_norm.grad, eps);
  if (taps.layer_output) taps.layer_output(static_cast<int>(config.num_hidden_layers) - 1, last.residual_ND);
  return last.normed_ND;
}

at::Tensor output_head(const Model& model) {
  return model.arena->parameter(model.config.tie_word_embeddings ? "embed_tokens.weight" : "lm_head.weight");
}

at::Tensor output_head_gradient(const Model& model) {
  return model.arena->gradient_of(model.config.tie_word_embeddings ? "embed_tokens.weight" : "lm_head.weight");
}

at::Tensor decoder_logits(const Model& model, const DecoderInput& input, const DecoderMasks& masks) {
  const Weight head = weight_of(model, model.config.tie_word_embeddings ? "embed_tokens.weight" : "lm_head.weight");
  return linear(decoder_hidden(model, input, masks).to(at::kFloat), head.value.to(at::kFloat), head.grad);
}

}  // namespace coppice
