// The decoder as a row of halves, for those who walk it themselves, with something to do between them. Each half of a
// layer adds to the residual stream what one matrix makes of its hidden state:
//   half 2 l: layer l's attention, by o_proj;   half 2 l + 1: its FFN, by down_proj;   x += W hidden(norm(x))
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "src/model/decoder.h"

namespace coppice {

class DecoderHalves {
 public:
  /// The model must outlive it; its weights are read anew at every call. Masks of FFN channels and heads.
  explicit DecoderHalves(const Model& model, DecoderMasks masks = {});

  int64_t count() const { return 2 * model_->config.num_hidden_layers; }
  /// The residual stream [N, D] in front of the first half.
  at::Tensor embedded(const DecoderInput& input) const;
  /// What enters the half's o_proj [N, H K] or down_proj [N, F], from the residual stream in front of it.
  at::Tensor hidden(int64_t half, const at::Tensor& stream_ND, const DecoderInput& input) const;
  /// What the half adds to the stream, [N, D], from that.
  at::Tensor added(int64_t half, const at::Tensor& hidden_NI) const;

 private:
  const Model* model_;
  DecoderMasks masks_;
  at::Tensor frequencies_;
};

/// "o_proj" or "down_proj"; "layers.3.mlp.down_proj.weight".
const char* writer_of_half(int64_t half);
std::string parameter_of_half(int64_t half);

}  // namespace coppice
