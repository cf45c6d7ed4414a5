// How wide the FFN layers of the student become: the widest on a grid of 32 channels that a budget allows.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "recipes/compress/request.h"
#include "src/model/config.h"

namespace coppice {

/// What a file of a model takes beside its weights.
struct FileBasis {
  double gguf_bytes = 0, hf_bytes = 0;  // tokenizer and metadata, never too little
};
class Tokenizer;
FileBasis file_basis(const Tokenizer& tokenizer, const std::vector<std::string>& formats);

/// Bytes of a file of element type f32, f16, bf16, q8_0 or q4_0 (which keeps the vocabulary's rows in Q8_0), never too
/// little; infinite where its blocks do not divide the rows. Vectors are float32.
double file_bytes(const ModelConfig& config, std::string_view type, double basis_bytes);

struct CompressTarget {
  int64_t width = 0;
  ModelConfig config;
  std::string quantization;             // of a gguf; empty without one
  std::string dtype;                    // of a Hugging Face folder; empty without one
  double bytes = 0;                     // of the gguf, or of the folder without one, never too little
  std::vector<std::string> considered;  // with --bytes: what each element type would hold
};

/// Below a budget by less than a step of the grid. --bytes asks it of the gguf, or of the Hugging Face folder where
/// none is wanted, in the most precise element type that keeps half of the channels. UserError::recipe with the numbers
/// where nothing would be cut, or too much.
CompressTarget choose_target(const ModelConfig& source, const CompressRequest& request, const FileBasis& basis);

}  // namespace coppice
