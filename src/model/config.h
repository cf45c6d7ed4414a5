// The shape of a model, with the names of a Hugging Face config.json; FFN width per layer.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "src/base/json.h"

namespace coppice {

/// rope_type "llama3" (Llama 3.1): frequencies of long wavelengths are divided by `factor`, short ones stay, those
/// between go from one to the other. Keys of `rope_parameters` in transformers.
struct RopeScaling {
  double factor = 8.0;
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  int64_t original_max_position_embeddings = 8192;

  bool operator==(const RopeScaling&) const = default;
};

struct ModelConfig {
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;
  int64_t head_dim = 0;
  std::vector<int64_t> intermediate_size;  // one per layer
  double rope_theta = 500000.0;
  double rms_norm_eps = 1e-5;
  bool tie_word_embeddings = true;
  bool qk_norm = true;                      // before RoPE (Qwen3 layout)
  bool qkv_bias = false;                    // of q_proj, k_proj and v_proj (Qwen2 layout)
  std::optional<RopeScaling> rope_scaling;  // nothing: plain frequencies of rope_theta
  int64_t max_position_embeddings = 4096;

  bool operator==(const ModelConfig&) const = default;
};

/// Sizes positive, heads divisible, one width per layer; `where` names the table or file in the message (exit 2 or 3 by
/// `from_file`).
void check_config(const ModelConfig& config, const std::string& where, bool from_file);

Json to_json(const ModelConfig& config);
ModelConfig config_from_json(const Json& json, const std::string& path);

/// Named shapes: "test", "demo-source", "demo-student", "honeycrisp-85m", "afm-3b-source" (F 24192),
/// "afm-3b-source-23296", "afm-3b" (F 8064). UserError::recipe with the nearest name otherwise.
ModelConfig preset(const std::string& name, const std::string& where);
std::vector<std::string> preset_names();

}  // namespace coppice
