// The first tokens go through the operations of the decoder, all at once. A token alone goes, in float32 on the CPU,
// through the kernels themselves, from buffer to buffer: nothing is allocated, and its time is that of reading every
// weight from memory. Elsewhere it goes the way of the first ones.
// Letters as in ops.h; P = (H + 2G) K.
#include "src/model/decode_session.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "src/base/errors.h"
#include "src/tensors/execution.h"
#include "src/tensors/kernels/decode_attention.h"
#include "src/tensors/kernels/few_rows_linear.h"
#include "src/tensors/kernels/qk_norm_rope.h"
#include "src/tensors/kernels/residual_rms_norm.h"
#include "src/tensors/kernels/swiglu.h"
#include "src/tensors/ops.h"

namespace coppice {
namespace {

const float* floats(const at::Tensor& tensor) { return tensor.defined() ? tensor.const_data_ptr<float>() : nullptr; }

/// y = x w^T + b of one token.
void multiply(const std::vector<float>& x_I, const at::Tensor& weight_OI, const at::Tensor& bias_O,
              std::vector<float>& y_O) {
  few_rows_linear_cpu({.x = x_I.data(),
                       .weight = floats(weight_OI),
                       .bias = floats(bias_O),
                       .y = y_O.data(),
                       .num_rows = 1,
                       .num_inputs = weight_OI.size(1),
                       .num_outputs = weight_OI.size(0)});
}

}  // namespace

DecodeSession::DecodeSession(const Model& model, int64_t capacity)
    : model_(model),
      capacity_(capacity),
      frequencies_(rope_frequencies(model.config)),
      table_VD_(weight_of(model, "embed_tokens.weight").value),
      norm_D_(weight_of(model, "norm.weight").value),
      head_VD_(output_head(model).detach().to(at::kFloat)),
      steps_(execution_of(table_VD_) == Execution::cpu) {
  const ModelConfig& config = model.config;
  COPPICE_CHECK(capacity > 0 && capacity <= config.max_position_embeddings,
                fmt::format("room for {} tokens in a model of {} positions", capacity, config.max_position_embeddings));
  const int64_t H = config.num_attention_heads, G = config.num_key_value_heads, K = config.head_dim;
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer)
    layers_.push_back({.weights = layer_weights(model, layer),
                       .key_GCK = at::empty({G, capacity, K}, table_VD_.options()),
                       .value_GCK = at::empty({G, capacity, K}, table_VD_.options())});
  rope_ = rope_table({frequencies_.const_data_ptr<double>(), static_cast<size_t>(K / 2)}, capacity - 1);
  for (std::vector<float>* buffer : {&residual_D_, &next_residual_D_, &normed_D_, &delta_D_})
    buffer->resize(static_cast<size_t>(config.hidden_size));
  for (std::vector<float>* buffer : {&projected_P_, &qkv_P_}) buffer->resize(static_cast<size_t>((H + 2 * G) * K));
  mixed_.resize(static_cast<size_t>(H * K));
  scratch_.resize(static_cast<size_t>(decode_attention_scratch(H, K)));
  const auto widest = static_cast<size_t>(std::ranges::max(config.intermediate_size));
  gate_up_.resize(2 * widest);
  ffn_.resize(widest);
  logits_V_.resize(static_cast<size_t>(config.vocab_size));
}

std::span<const float> DecodeSession::read(std::span<const int64_t> tokens) {
  COPPICE_CHECK(!tokens.empty() && length_ + std::ssize(tokens) <= capacity_,
                fmt::format("{} tokens after {} of {}", tokens.size(), length_, capacity_));
  for (const int64_t token : tokens)
    COPPICE_CHECK(token >= 0 && token < model_.config.vocab_size,
                  fmt::format("token {} of a vocabulary of {}", token, model_.config.vocab_size));
  const at::NoGradGuard no_grad;
  at::Tensor last_1D;  // in float32 on the CPU normed_D_ holds it
  if (length_ == 0 && tokens.size() > 1) {
    last_1D = read_rows(tokens);
    if (steps_) std::copy_n(floats(last_1D), normed_D_.size(), normed_D_.begin());
  } else if (steps_) {
    for (const int64_t token : tokens) step(token);
  } else {
    for (size_t i = 0; i < tokens.size(); ++i) last_1D = read_rows(tokens.subspan(i, 1));
  }
  if (steps_) {
    multiply(normed_D_, head_VD_, at::Tensor(), logits_V_);
  } else {
    const at::Tensor logits_1V = linear(last_1D.to(at::kFloat), head_VD_, at::Tensor()).cpu();
    std::copy_n(floats(logits_1V), logits_V_.size(), logits_V_.begin());
  }
  return logits_V_;
}

at::Tensor DecodeSession::read_rows(std::span<const int64_t> tokens) {
  const ModelConfig& config = model_.config;
  const at::Device device = table_VD_.device();
  const auto count = static_cast<int64_t>(tokens.size());
  const at::Tensor none, position_N = at::arange(length_, length_ + count).to(device),
                         token_N = at::empty({count}, at::kLong);
  std::ranges::copy(tokens, token_N.mutable_data_ptr<int64_t>());
  at::Tensor x_ND = embedding(token_N.to(device), table_VD_, none, config.vocab_size), delta_ND;
  for (Layer& layer : layers_) {
    const LayerWeights& w = layer.weights;
    ResidualNorm norm = residual_rms_norm(x_ND, delta_ND, w.attention_norm.value, none, config.rms_norm_eps);
    const AttentionInput qkv =
        qk_norm_rope(linear(norm.normed_ND, w.qkv.value, none, w.qkv_bias.value, none), w.q_norm.value, none,
                     w.k_norm.value, none, position_N, config.num_attention_heads, config.num_key_value_heads,
                     config.rms_norm_eps, frequencies_, length_ + count - 1);
    for (const auto& [cache_GCK, rows_NX] : {std::pair{&layer.key_GCK, &qkv.k_NX}, {&layer.value_GCK, &qkv.v_NX}})
      cache_GCK->narrow(1, length_, count)
          .copy_(rows_NX->unflatten(1, {config.num_key_value_heads, config.head_dim}).transpose(0, 1));
    norm = residual_rms_norm(norm.residual_ND, linear(attend_rows(layer, qkv), w.o.value, none), w.ffn_norm.value, none,
                             config.rms_norm_eps);
    delta_ND = linear(swiglu(linear(norm.normed_ND, w.gate_up.value, none), none), w.down.value, none);
    x_ND = norm.residual_ND;
  }
  length_ += count;
  return residual_rms_norm(x_ND.slice(0, count - 1), delta_ND.slice(0, count - 1), norm_D_, none, config.rms_norm_eps)
      .normed_ND;
}

at::Tensor DecodeSession::attend_rows(const Layer& layer, const AttentionInput& qkv) const {
  const int64_t H = model_.config.num_attention_heads, G = model_.config.num_key_value_heads,
                K = model_.config.head_dim;
  if (length_ == 0) return causal_attention(qkv, 1, H, G, at::Tensor());
  const auto kept = [&](const at::Tensor& cache_GCK) { return cache_GCK.narrow(1, 0, length_ + 1).to(at::kFloat); };
  const at::Tensor query_GRK = qkv.q_NX.reshape({G, H / G, K}).to(at::kFloat);
  const at::Tensor scores_GRC =
      query_GRK.matmul(kept(layer.key_GCK).transpose(1, 2)) / std::sqrt(static_cast<double>(K));
  return scores_GRC.softmax(2).matmul(kept(layer.value_GCK)).to(qkv.q_NX.scalar_type()).reshape({1, H * K});
}

void DecodeSession::step(int64_t token) {
  const int64_t D = model_.config.hidden_size;
  std::copy_n(floats(table_VD_) + token * D, D, residual_D_.begin());
  for (Layer& layer : layers_) {
    const LayerWeights& w = layer.weights;
    normalise(w.attention_norm.value, /*adds=*/&layer != &layers_.front());
    multiply(normed_D_, w.qkv.value, w.qkv_bias.value, projected_P_);
    attend(layer);
    multiply(mixed_, w.o.value, at::Tensor(), delta_D_);
    normalise(w.ffn_norm.value, /*adds=*/true);
    multiply(normed_D_, w.gate_up.value, at::Tensor(), gate_up_);
    const int64_t F = w.down.value.size(1);
    swiglu_cpu({.gate_up = gate_up_.data(),
                .h = ffn_.data(),
                .num_tokens = 1,
                .num_channels = F,
                .gate_up_row_stride = 2 * F});
    multiply(ffn_, w.down.value, at::Tensor(), delta_D_);
  }
  ++length_;
  normalise(norm_D_, /*adds=*/true);
}

void DecodeSession::normalise(const at::Tensor& weight_D, bool adds) {
  const int64_t D = model_.config.hidden_size;
  float rstd = 0;
  residual_rms_norm_cpu({.x = residual_D_.data(),
                         .delta = adds ? delta_D_.data() : nullptr,
                         .weight = floats(weight_D),
                         .residual = adds ? next_residual_D_.data() : nullptr,
                         .normed = normed_D_.data(),
                         .rstd = &rstd,
                         .num_tokens = 1,
                         .hidden_size = D,
                         .x_row_stride = D,
                         .delta_row_stride = D,
                         .eps = static_cast<float>(model_.config.rms_norm_eps)});
  if (adds) std::swap(residual_D_, next_residual_D_);
}

void DecodeSession::attend(Layer& layer) {
  const ModelConfig& config = model_.config;
  qk_norm_rope_cpu({.qkv = projected_P_.data(),
                    .q_weight = floats(layer.weights.q_norm.value),
                    .k_weight = floats(layer.weights.k_norm.value),
                    .position = &length_,
                    .cos = rope_->cos.data(),
                    .sin = rope_->sin.data(),
                    .out = qkv_P_.data(),
                    .num_tokens = 1,
                    .num_heads = config.num_attention_heads,
                    .num_kv_heads = config.num_key_value_heads,
                    .head_size = config.head_dim,
                    .qkv_row_stride = std::ssize(projected_P_),
                    .eps = static_cast<float>(config.rms_norm_eps)});
  const int64_t G = config.num_key_value_heads, K = config.head_dim;
  const float* kept = qkv_P_.data() + config.num_attention_heads * K;  // keys, then values
  for (at::Tensor* cache : {&layer.key_GCK, &layer.value_GCK})
    for (int64_t g = 0; g < G; ++g, kept += K)
      std::copy_n(kept, K, cache->mutable_data_ptr<float>() + (g * capacity_ + length_) * K);
  decode_attention_cpu({.query = qkv_P_.data(),
                        .key = floats(layer.key_GCK),
                        .value = floats(layer.value_GCK),
                        .out = mixed_.data(),
                        .scratch = scratch_.data(),
                        .num_tokens = length_ + 1,
                        .capacity = capacity_,
                        .num_heads = config.num_attention_heads,
                        .num_kv_heads = config.num_key_value_heads,
                        .head_size = config.head_dim});
}

}  // namespace coppice
