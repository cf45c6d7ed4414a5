// Greedy or sampled continuation. Each layer keeps the projections of the tokens read so far, so a new token costs one
// pass over the weights; when the positions the model knows are used up, the newest half is read again from position 0.
#include "src/model/generate.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <span>

#include "src/base/errors.h"
#include "src/base/random.h"
#include "src/tensors/ops.h"

namespace coppice {
namespace {

/// The decoder for one sequence that grows: reads tokens, remembers their keys and values.
class CachedDecoder {
 public:
  CachedDecoder(const Model& model, int64_t capacity) : model_(model), capacity_(capacity) {
    const ModelConfig& config = model.config;
    const int64_t packed = (config.num_attention_heads + 2 * config.num_key_value_heads) * config.head_dim;
    for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) qkv_.push_back(at::empty({capacity, packed}));
  }

  int64_t length() const { return length_; }
  int64_t capacity() const { return capacity_; }
  void clear() { length_ = 0; }

  /// Appends tokens of the vocabulary and returns the final hidden state of the last one, [1, D]. Several tokens at
  /// once only into an empty cache.
  at::Tensor read(std::span<const int64_t> tokens) {
    const ModelConfig& config = model_.config;
    const auto count = static_cast<int64_t>(tokens.size());
    COPPICE_CHECK(length_ + count <= capacity_ && (length_ == 0 || count == 1),
                  fmt::format("{} tokens after {} of {}", count, length_, capacity_));
    const at::Tensor token_N = at::empty({count}, at::kLong), position_N = at::arange(length_, length_ + count);
    std::ranges::copy(tokens, token_N.mutable_data_ptr<int64_t>());

    const at::Tensor none;  // no gradients
    at::Tensor x_ND = embedding(token_N, weight_of(model_, "embed_tokens.weight").value, none, config.vocab_size),
               delta_ND;
    for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
      const LayerWeights w = layer_weights(model_, layer);
      ResidualNorm norm = residual_rms_norm(x_ND, delta_ND, w.attention_norm.value, none, config.rms_norm_eps);
      const at::Tensor qkv_NP =
          qk_norm_rope(linear(norm.normed_ND, w.qkv.value, none), w.q_norm.value, none, w.k_norm.value, none,
                       position_N, config.num_attention_heads, config.num_key_value_heads, config.rms_norm_eps,
                       config.rope_theta, length_ + count - 1);
      norm = residual_rms_norm(norm.residual_ND, linear(attention(layer, qkv_NP), w.o.value, none), w.ffn_norm.value,
                               none, config.rms_norm_eps);
      delta_ND = linear(swiglu(linear(norm.normed_ND, w.gate_up.value, none), none), w.down.value, none);
      x_ND = norm.residual_ND;
    }
    length_ += count;
    return residual_rms_norm(x_ND, delta_ND, weight_of(model_, "norm.weight").value, none, config.rms_norm_eps)
        .normed_ND.slice(0, count - 1);
  }

 private:
  at::Tensor attention(int64_t layer, const at::Tensor& qkv_NP) {
    const int64_t heads = model_.config.num_attention_heads, kv_heads = model_.config.num_key_value_heads,
                  head_dim = model_.config.head_dim, count = qkv_NP.size(0);
    at::Tensor& cache = qkv_[static_cast<size_t>(layer)];
    cache.narrow(0, length_, count).copy_(qkv_NP);
    const auto part = [&](const at::Tensor& rows, int64_t first, int64_t number) {  // [1, heads, tokens, head_dim]
      return rows.narrow(1, first * head_dim, number * head_dim)
          .view({1, rows.size(0), number, head_dim})
          .transpose(1, 2);
    };
    const at::Tensor known = cache.narrow(0, 0, length_ + count);
    const at::Tensor mixed = at::scaled_dot_product_attention(
        part(qkv_NP, 0, heads), part(known, heads, kv_heads), part(known, heads + kv_heads, kv_heads), {}, 0.0,
        /*is_causal=*/count > 1, std::nullopt, /*enable_gqa=*/heads != kv_heads);
    return mixed.transpose(1, 2).reshape({count, heads * head_dim});
  }

  const Model& model_;
  int64_t capacity_, length_ = 0;
  std::vector<at::Tensor> qkv_;  // per layer [capacity, (H + 2G) K], after QK-norm and RoPE
};

/// Inverse of the cumulative softmax(logits / temperature) at `uniform`.
int64_t sample(const at::Tensor& logits_1V, double temperature, double uniform) {
  const at::Tensor cumulative_V = at::softmax(logits_1V.reshape({-1}).to(at::kDouble) / temperature, 0).cumsum(0);
  const std::span<const double> sums(cumulative_V.const_data_ptr<double>(), static_cast<size_t>(cumulative_V.numel()));
  const auto found = std::ranges::upper_bound(sums, uniform * sums.back());
  return std::min<int64_t>(found - sums.begin(), std::ssize(sums) - 1);
}

}  // namespace

std::vector<int64_t> generate(const Model& model, const std::vector<int64_t>& prompt, int64_t eos_id,
                              const GenerateOptions& options, const std::function<void(int64_t)>& on_token) {
  const at::NoGradGuard no_grad;
  if (options.max_new_tokens < 0)
    throw UserError::recipe("max_new_tokens", fmt::format("got {}, expected 0 or more", options.max_new_tokens));
  if (!std::isfinite(options.sampling_temperature) || options.sampling_temperature < 0)
    throw UserError::recipe("sampling_temperature",
                            fmt::format("got {}, expected 0 or more", options.sampling_temperature));
  std::vector<int64_t> text = prompt.empty() ? std::vector<int64_t>{eos_id} : prompt;
  for (const int64_t id : text)
    if (id < 0 || id >= model.config.vocab_size)
      throw UserError::recipe("prompt",
                              fmt::format("token {} is outside the vocabulary of {}", id, model.config.vocab_size));

  const auto wanted = std::ssize(text) + options.max_new_tokens;
  CachedDecoder decoder(model, std::min<int64_t>(wanted, model.config.max_position_embeddings));
  const auto newest = [&](int64_t count) {
    return std::span<const int64_t>(text).last(static_cast<size_t>(std::min<int64_t>(count, std::ssize(text))));
  };
  const at::Tensor head_VD = output_head(model);

  std::vector<int64_t> added;
  while (std::ssize(added) < options.max_new_tokens) {
    at::Tensor hidden_1D;
    if (added.empty()) {
      hidden_1D = decoder.read(newest(decoder.capacity()));
    } else if (decoder.length() == decoder.capacity()) {
      decoder.clear();
      hidden_1D = decoder.read(newest(std::max<int64_t>(decoder.capacity() / 2, 1)));
    } else {
      hidden_1D = decoder.read(newest(1));
    }
    const int64_t next =
        options.sampling_temperature == 0.0
            ? top_1(hidden_1D, head_VD).item<int64_t>()
            : sample(linear(hidden_1D, head_VD, at::Tensor()), options.sampling_temperature,
                     random_uniform(options.seed, Purpose::sampling, 0, static_cast<uint64_t>(added.size())));
    text.push_back(next);
    added.push_back(next);
    if (on_token) on_token(next);
    if (next == eos_id) break;
  }
  return added;
}

}  // namespace coppice
