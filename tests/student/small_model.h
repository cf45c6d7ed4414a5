// A model of two layers for tests of a step.
#pragma once

#include "src/model/decoder.h"
#include "src/model/parameters.h"

namespace coppice {

constexpr int64_t kVocab = 256, kChannels = 128;

/// Fresh weights of 64 dimensions.
inline Model random_model(const Placement& on, uint64_t seed) {
  const ModelConfig config{.vocab_size = kVocab,
                           .hidden_size = 64,
                           .num_hidden_layers = 2,
                           .num_attention_heads = 2,
                           .num_key_value_heads = 1,
                           .head_dim = 32,
                           .intermediate_size = {kChannels, kChannels}};
  Model model = make_model(config, on);
  initialise_parameters(config, *model.arena, seed);
  return model;
}

}  // namespace coppice
