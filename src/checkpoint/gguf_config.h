// The shape of a model as a GGUF file's metadata tells it, both ways: architectures llama, qwen2 and qwen3.
// Torch-free; the tensors themselves: gguf_import.cpp.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "src/checkpoint/gguf_file.h"
#include "src/model/config.h"

namespace coppice {

inline constexpr const char* kRopeFactors = "rope_freqs.weight";  // see rope_factors.h
inline constexpr const char* kTrueWidths = "coppice.feed_forward_length_unpadded";

struct GgufShape {
  std::string architecture;
  ModelConfig config;                // every layer as wide, the vocabulary tables as long as the file's tensors
  std::vector<int64_t> true_widths;  // of kTrueWidths; empty = no layer is padded
};

/// Reads the keys and whatever of the tensors' names and shapes the shape follows from. UserError::bad_file names a key
/// that is missing, contradicts another or would change the mathematics.
GgufShape read_gguf_shape(const GgufFile& file);

/// "qwen3" with QK-norm, "qwen2" with biases, "llama" without either. UserError::recipe for both at once.
std::string gguf_architecture(const ModelConfig& config);
/// Rows of q and k in this architecture: neighbouring pairs are rotated, not the two halves of a head.
bool rotates_neighbours(const std::string& architecture);

}  // namespace coppice
