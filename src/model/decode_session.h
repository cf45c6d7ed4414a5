// A text that grows token by token: the keys and values of what was read are kept, so that a new token costs one pass
// over the weights. Wherever and in whatever element type the model computes.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "src/model/decoder.h"

namespace coppice {

struct AttentionInput;
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

  /// Tokens by the operations of the decoder, all at once; behind others one alone. The last one's row [1, D], as the
  /// head reads it.
  at::Tensor read_rows(std::span<const int64_t> tokens);
  /// What the heads give for those rows, whose keys and values are kept.
  at::Tensor attend_rows(const Layer& layer, const AttentionInput& qkv) const;
  /// One token by the loops of the CPU.
  void step(int64_t token);
  /// Adds delta_D_ to the residual stream where `adds` says so; normed_D_ is what a norm makes of it.
  void normalise(const at::Tensor& weight_D, bool adds);
  /// mixed_ of the token in projected_P_, which is kept.
  void attend(Layer& layer);

  const Model& model_;
  int64_t capacity_, length_ = 0;
  std::vector<Layer> layers_;
  at::Tensor frequencies_, table_VD_, norm_D_, head_VD_;  // the head in float32
  bool steps_;                                            // a token alone goes by step()
  std::shared_ptr<const RopeTable> rope_;
  // of one token
  std::vector<float> residual_D_, next_residual_D_, normed_D_, delta_D_, projected_P_, qkv_P_, mixed_, gate_up_, ffn_,
      scratch_, logits_V_;
};

}  // namespace coppice
