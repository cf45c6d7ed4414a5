// The AFM decoder (arXiv 2407.21075): tied embeddings, pre-norm RMSNorm, QK-norm, grouped-query attention, SwiGLU,
// RoPE; and its relatives Llama (no QK-norm), Qwen2 (q, k and v with a bias) and Qwen3.
//   x = embed(tokens);  per layer: x += o(attention(norm(x)));  x += down(silu(gate(norm(x))) * mask * up(norm(x)));
//   hidden = norm(x)
// Plain structs and free functions; nothing here knows of pruning or distillation beyond DecoderMasks. G groups of
// query heads that share a key/value head.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "src/model/config.h"
#include "src/model/recompute.h"
#include "src/tensors/arena.h"
#include "src/tensors/decoder_input.h"

namespace coppice {

/// Vectors of multipliers; empty or undefined = dense. The only thing the model knows of pruning.
struct DecoderMasks {
  std::vector<at::Tensor> multiplier_F;       // of the FFN channels, one per layer
  std::vector<at::Tensor> multiplier_G = {};  // of the attention's groups of heads, one per layer
  at::Tensor multiplier_D = {};               // of the residual stream: of all that is written to it
};

struct Model {
  ModelConfig config;
  std::unique_ptr<ParameterArena> arena;
};

/// A model with zeroed parameters.
Model make_model(const ModelConfig& config, const Placement& placement = {});

/// A parameter and the arena's view of its gradient (undefined in a model that only runs forward).
struct Weight {
  at::Tensor value, grad;
};
/// What one layer computes with: views into the arena, [out, in]; q, k, v are one matrix and their biases one vector,
/// gate and up another matrix. qkv_bias is undefined without biases, q_norm and k_norm without QK-norm.
struct LayerWeights {
  Weight attention_norm, qkv, qkv_bias, q_norm, k_norm, o, ffn_norm, gate_up, down;
};
Weight weight_of(const Model& model, const std::string& name);
LayerWeights layer_weights(const Model& model, int64_t layer);

/// Frequencies of the model's RoPE, radians a position, float64 [head_dim / 2]: those of rope_theta, and where
/// rope_scaling is set the slow ones divided by its factor (Llama 3.1: _compute_llama3_parameters of transformers).
at::Tensor rope_frequencies(const ModelConfig& config);

/// Called with (layer, value) while the model runs; empty = not called.
using DecoderTap = std::function<void(int, const at::Tensor&)>;
struct DecoderTaps {
  DecoderTap ffn_hidden = {};        // [N, F] as it enters down_proj: importance scores
  DecoderTap layer_output = {};      // [N, D] residual stream behind the layer: hidden-state losses
  DecoderTap attention_hidden = {};  // [N, H K] as it enters o_proj: importance scores
  DecoderTap normed = {};            // [N, D] as it enters the attention, and again the FFN: importance scores
};

/// Final normed hidden states [N, D], N = B*T. Differentiable when the arena has a gradient and grad mode is on; where
/// something is to be computed again, the model must outlive the backward pass, and layer_output is the only tap.
at::Tensor decoder_hidden(const Model& model, const DecoderInput& input, const DecoderMasks& masks = {},
                          const DecoderTaps& taps = {}, Recompute recompute = Recompute::none);
/// The output table [V, D] and its gradient view (the embedding's when tied).
at::Tensor output_head(const Model& model);
at::Tensor output_head_gradient(const Model& model);
/// Logits [N, V] in fp32, all at once: tests, generation, small checks.
at::Tensor decoder_logits(const Model& model, const DecoderInput& input, const DecoderMasks& masks = {});

}  // namespace coppice
