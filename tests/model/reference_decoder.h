// The decoder written again with plain ATen in double, weights by name, one line per formula: what the fused decoder is
// compared with. Slow and obvious.
#pragma once

#include <ATen/ATen.h>

#include <cmath>
#include <map>
#include <string>

#include "src/model/decoder.h"

namespace coppice::testing {

using NamedWeights = std::map<std::string, at::Tensor>;

/// Double copies of all parameters that require grad.
inline NamedWeights reference_weights(const Model& model) {
  NamedWeights weights;
  for (const ArenaEntry& entry : model.arena->layout().entries)
    weights[entry.name] = model.arena->parameter(entry.name).detach().to(at::kDouble).clone().requires_grad_(true);
  return weights;
}

inline at::Tensor reference_rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return x * (x.square().mean(-1, true) + eps).rsqrt() * weight;
}

/// base^(-2i/K); Llama 3.1's scaling as its paper's code has it, by wavelength in three cases.
inline at::Tensor reference_frequencies(const ModelConfig& config) {
  const int64_t half = config.head_dim / 2;
  const at::Tensor plain =
      at::exp(at::arange(half, at::kDouble) * (-std::log(config.rope_theta) / static_cast<double>(half)));
  if (!config.rope_scaling) return plain;
  const auto& [factor, low, high, length] = *config.rope_scaling;
  const at::Tensor wavelength = 2 * M_PI / plain;
  const at::Tensor smooth = (static_cast<double>(length) / wavelength - low) / (high - low);
  return at::where(wavelength < static_cast<double>(length) / high, plain,
                   at::where(wavelength > static_cast<double>(length) / low, plain / factor,
                             (1 - smooth) * plain / factor + smooth * plain));
}

/// x: [B, T, heads, K]; half-split pairs (i, i + K/2), angle = position * frequency.
inline at::Tensor reference_rope(const at::Tensor& x, const at::Tensor& position_BT, const at::Tensor& frequency) {
  const int64_t half = x.size(-1) / 2;
  const at::Tensor angle = (position_BT.to(at::kDouble).unsqueeze(-1) * frequency).unsqueeze(2);  // [B, T, 1, K/2]
  const at::Tensor left = x.narrow(-1, 0, half), right = x.narrow(-1, half, half);
  const at::Tensor cos = angle.cos().to(x.scalar_type()), sin = angle.sin().to(x.scalar_type());
  return at::cat({left * cos - right * sin, right * cos + left * sin}, -1);
}

/// Logits [N, V] in the dtype of the weights. `masks` may be empty; document_BT may be undefined.
inline at::Tensor reference_logits(const ModelConfig& config, const NamedWeights& weights, const DecoderInput& input,
                                   const DecoderMasks& masks = {}, std::vector<at::Tensor>* layer_ND = nullptr) {
  const int64_t batch = input.token_BT.size(0), seq_len = input.token_BT.size(1), head_dim = config.head_dim,
                heads = config.num_attention_heads, kv_heads = config.num_key_value_heads;
  const double eps = config.rms_norm_eps;
  at::Tensor visible = at::ones({seq_len, seq_len}, at::kBool).tril().unsqueeze(0);
  if (input.document_BT.defined())
    visible = visible.logical_and(input.document_BT.unsqueeze(2).eq(input.document_BT.unsqueeze(1)));

  const auto written = [&](const at::Tensor& value) {
    return masks.multiplier_D.defined() ? value * masks.multiplier_D.to(value.scalar_type()) : value;
  };
  at::Tensor x = written(weights.at("embed_tokens.weight")
                             .index_select(0, input.token_BT.reshape({-1}))
                             .view({batch, seq_len, config.hidden_size}));
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    const auto weight = [&](const std::string& name) {
      return weights.at("layers." + std::to_string(layer) + "." + name + ".weight");
    };
    const auto project = [&](const at::Tensor& value, const std::string& name) {
      const auto bias = weights.find("layers." + std::to_string(layer) + "." + name + ".bias");
      const at::Tensor product = at::matmul(value, weight(name).t());
      return bias == weights.end() ? product : product + bias->second;
    };
    const at::Tensor normed = reference_rms_norm(x, weight("input_layernorm"), eps);
    at::Tensor q = project(normed, "self_attn.q_proj").view({batch, seq_len, heads, head_dim});
    at::Tensor k = project(normed, "self_attn.k_proj").view({batch, seq_len, kv_heads, head_dim});
    at::Tensor v = project(normed, "self_attn.v_proj").view({batch, seq_len, kv_heads, head_dim});
    if (config.qk_norm) {
      q = reference_rms_norm(q, weight("self_attn.q_norm"), eps);
      k = reference_rms_norm(k, weight("self_attn.k_norm"), eps);
    }
    q = reference_rope(q, input.position_BT, reference_frequencies(config));
    k = reference_rope(k, input.position_BT, reference_frequencies(config)).repeat_interleave(heads / kv_heads, 2);
    v = v.repeat_interleave(heads / kv_heads, 2);
    at::Tensor scores = at::einsum("bthk,bshk->bhts", {q, k}) / std::sqrt(static_cast<double>(head_dim));
    scores = scores.masked_fill(visible.logical_not().unsqueeze(1), -INFINITY);
    at::Tensor mixed =
        at::einsum("bhts,bshk->bthk", {at::softmax(scores, -1), v}).reshape({batch, seq_len, heads * head_dim});
    if (!masks.multiplier_G.empty()) {  // query head h belongs to group h / (H / G)
      const at::Tensor mask_G = masks.multiplier_G[static_cast<size_t>(layer)].to(mixed.scalar_type());
      mixed = mixed * mask_G.repeat_interleave(heads / kv_heads * head_dim);
    }
    x = x + written(project(mixed, "self_attn.o_proj"));

    const at::Tensor ffn_in = reference_rms_norm(x, weight("post_attention_layernorm"), eps);
    at::Tensor hidden = at::silu(project(ffn_in, "mlp.gate_proj")) * project(ffn_in, "mlp.up_proj");
    if (!masks.multiplier_F.empty())
      hidden = hidden * masks.multiplier_F[static_cast<size_t>(layer)].to(hidden.scalar_type());
    x = x + written(project(hidden, "mlp.down_proj"));
    if (layer_ND != nullptr) layer_ND->push_back(x.reshape({-1, config.hidden_size}));
  }
  x = reference_rms_norm(x, weights.at("norm.weight"), eps);
  const at::Tensor head = weights.at(config.tie_word_embeddings ? "embed_tokens.weight" : "lm_head.weight");
  return at::matmul(x, head.t()).view({batch * seq_len, config.vocab_size});
}

}  // namespace coppice::testing
