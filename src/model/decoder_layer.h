// A part of the decoder for those who walk its layers themselves, with something to do between them.
#pragma once

#include <ATen/core/Tensor.h>

#include "src/model/decoder.h"

namespace coppice {

/// What a layer's attention heads give, [N, H K] as it enters o_proj, from the residual stream behind the layer's first
/// norm; `frequencies` are rope_frequencies(config).
at::Tensor attention_hidden(const ModelConfig& config, const LayerWeights& weights, const at::Tensor& normed_ND,
                            const DecoderInput& input, const at::Tensor& frequencies);

}  // namespace coppice
