// config.json of a Hugging Face folder, both ways.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "src/checkpoint/hf_settings.h"
#include "src/model/config.h"
#include "src/tokens/tokenizer.h"

namespace coppice {

/// config.json with the keys of both transformers generations; intermediate_size is the widest layer. dtype "float32"
/// or "bfloat16".
std::string hf_config_json(const ModelConfig& config, const Tokenizer& tokenizer, const std::string& torch_dtype,
                           const HfSettings& settings);

struct HfConfig {
  ModelConfig config;            // every layer as wide as the files say
  int64_t attention_window = 0;  // > 0: plain attention up to so many tokens, which max_position_embeddings is then;
                                 // beyond it a sliding window
  std::vector<int64_t>
      intermediate_sizes;  // the true widths (coppice_intermediate_sizes); empty = all as wide as the files say
};
/// Reads config.json; UserError::bad_file names whatever would change the mathematics and is not supported.
HfConfig read_hf_config(const std::filesystem::path& folder);

}  // namespace coppice
