// Llama 3's scaling of RoPE as GGUF files keep it: not its four parameters but the tensor rope_freqs.weight, one number
// a frequency that the frequency is divided by (llama.cpp: freq_factors). Torch-free.
//   turns = theta^(-2i/K) original_max_position_embeddings / (2 pi);  kept = clamp((turns - low) / (high - low), 0, 1)
//   1 / factor_i = kept + (1 - kept) / factor
// K = head_dim
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "src/model/config.h"

namespace coppice {

/// The numbers of rope_freqs.weight, head_dim / 2 of them.
std::vector<float> rope_factors(const RopeScaling& scaling, double rope_theta, int64_t head_dim);

/// Parameters that give these factors within float32 rounding: those of a published model where they do, otherwise
/// fitted (only the ratios of low_freq_factor, high_freq_factor and the length tell), with a length of at most
/// `max_positions`. Nothing where none do.
std::optional<RopeScaling> find_rope_scaling(std::span<const float> factors, double rope_theta, int64_t head_dim,
                                             int64_t max_positions);

}  // namespace coppice
