// The decoder as a walk over its layers: every line is one fused operation of src/tensors/ops.h. q, k and v are one
// GEMM, gate and up another, because their rows lie side by side in the arena; the residual add waits for the norm that
// follows it.
#include "src/model/decoder.h"

#include <c10/core/ScalarType.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <span>

#include "src/base/errors.h"
#include "src/model/decoder_layer.h"
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

at::Tensor attention_hidden(const ModelConfig& config, const LayerWeights& w, const at::Tensor& normed_ND,
                            const DecoderInput& input, const at::Tensor& frequencies) {
  // the heads whose weights are held here, be they all of them or a part
  const int64_t heads = w.o.value.size(1) / config.head_dim;
  const int64_t kv_heads = (w.qkv.value.size(0) / config.head_dim - heads) / 2;
  const AttentionInput qkv =
      qk_norm_rope(linear(normed_ND, w.qkv.value, w.qkv.grad, w.qkv_bias.value, w.qkv_bias.grad), w.q_norm.value,
                   w.q_norm.grad, w.k_norm.value, w.k_norm.grad, input.position_BT.reshape({-1}), heads, kv_heads,
                   config.rms_norm_eps, frequencies, input.largest_position);
  return causal_attention(qkv, input.token_BT.size(0), heads, kv_heads, input.document_BT, input.bounds);
}

at::Tensor decoder_hidden(const Model& model, const DecoderInput& input, const DecoderMasks& masks,
                          const DecoderTaps& taps) {
  check_input(model, input, masks);
  const ModelConfig& config = model.config;
  const at::Tensor frequencies = rope_frequencies(config);
  const double eps = config.rms_norm_eps;
  const auto written = [&](const at::Tensor& value_ND) {
    return masks.multiplier_D.defined() ? scaled(value_ND, masks.multiplier_D) : value_ND;
  };

  const Weight table = weight_of(model, "embed_tokens.weight");
  at::Tensor x_ND =
      written(embedding(input.token_BT.reshape({-1}), table.value, table.grad, input.ids_below, input.token_order));
  at::Tensor delta_ND;  // not yet added to x: the next norm does that in its own pass
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    const LayerWeights w = layer_weights(model, layer);
    ResidualNorm norm = residual_rms_norm(x_ND, delta_ND, w.attention_norm.value, w.attention_norm.grad, eps);
    if (taps.layer_output && layer > 0) taps.layer_output(static_cast<int>(layer) - 1, norm.residual_ND);
    if (taps.normed) taps.normed(static_cast<int>(layer), norm.normed_ND);
    {  // what the heads give goes before the FFN needs its memory
      at::Tensor heads_NQ = attention_hidden(config, w, norm.normed_ND, input, frequencies);
      if (!masks.multiplier_G.empty())
        heads_NQ = scale_groups(heads_NQ, masks.multiplier_G[static_cast<size_t>(layer)]);
      if (taps.attention_hidden) taps.attention_hidden(static_cast<int>(layer), heads_NQ);
      delta_ND = written(linear(heads_NQ, w.o.value, w.o.grad));
    }

    norm = residual_rms_norm(norm.residual_ND, delta_ND, w.ffn_norm.value, w.ffn_norm.grad, eps);
    if (taps.normed) taps.normed(static_cast<int>(layer), norm.normed_ND);
    const at::Tensor ffn_mask_F =
        masks.multiplier_F.empty() ? at::Tensor() : masks.multiplier_F[static_cast<size_t>(layer)];
    const at::Tensor ffn_hidden_NF = swiglu(linear(norm.normed_ND, w.gate_up.value, w.gate_up.grad), ffn_mask_F);
    if (taps.ffn_hidden) taps.ffn_hidden(static_cast<int>(layer), ffn_hidden_NF);
    delta_ND = written(linear(ffn_hidden_NF, w.down.value, w.down.grad));
    x_ND = norm.residual_ND;
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
