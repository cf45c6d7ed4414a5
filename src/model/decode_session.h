// A text that grows token by token: the keys and values of what was read are kept, so that a new token costs one pass
// over the weights.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "src/model/decoder.h"

namespace coppice {

struct RopeTable;

class DecodeSession {
 public:
  /// Room for `capacity` tokens, at most the positions that the model knows. The model must outlive it, its weights
  /// unmoved.
  DecodeSession(const Model& model, int64_t capacity);

  int64_t length() const { return length_; }
  int64_t capacity() const { return capacity_; }
  void clear() { length_ = 0; }
  /// Appends tokens of the vocabulary and returns the logits of what follows the last one, fp32 [vocab_size], valid
  /// until the next call. Into an empty session all tokens go at once.
  std::span<const float> read(std::span<const int64_t> tokens);

 private:
  struct Layer {
    LayerWeights weights;
    at::Tensor key_GCK, value_GCK;  // C = capacity
  };

  void prefill(std::span<const int64_t> tokens);
  void step(int64_t token);
  /// Adds delta_D_ to the residual stream where `adds` says so; normed_D_ is what a norm makes of it.
  void normalise(const at::Tensor& weight_D, bool adds);
  /// Keys and values of the next `count` tokens, [count, G K], rows row_stride apart.
  void keep(Layer& layer, const float* key_NX, const float* value_NX, int64_t row_stride, int64_t count);
  /// mixed_ of the token in projected_P_, which is kept.
  void attend(Layer& layer);

  const Model& model_;
  int64_t capacity_, length_ = 0;
  std::vector<Layer> layers_;
  at::Tensor frequencies_, table_VD_, norm_D_, head_VD_;
  std::shared_ptr<const RopeTable> rope_;
  // of one token
  std::vector<float> residual_D_, next_residual_D_, normed_D_, delta_D_, projected_P_, qkv_P_, mixed_, gate_up_, ffn_,
      scratch_, logits_V_;
};

}  // namespace coppice
