// Model shapes: the checks that every config passes, JSON in and out with Hugging Face key names, and the named
// presets.
#include "src/model/config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <span>
#include <string_view>

#include "src/base/errors.h"
#include "src/base/input_file.h"
#include "src/base/nearest.h"

namespace coppice {
namespace {

// Bounds that keep the product of two sizes and a layer count (at most 2^58) inside 64 bits.
constexpr int64_t kMaxSize = int64_t{1} << 24;
constexpr int64_t kMaxLayers = 1024;

struct Preset {
  const char* name;
  int64_t layers, hidden, heads, kv_heads, head_dim, ffn, vocab, max_position;
};
constexpr std::array<Preset, 7> kPresets{{
    {.name = "test",
     .layers = 2,
     .hidden = 32,
     .heads = 2,
     .kv_heads = 1,
     .head_dim = 16,
     .ffn = 96,
     .vocab = 300,
     .max_position = 128},
    {.name = "demo-source",
     .layers = 3,
     .hidden = 96,
     .heads = 3,
     .kv_heads = 1,
     .head_dim = 32,
     .ffn = 768,
     .vocab = 512,
     .max_position = 1024},
    {.name = "demo-student",
     .layers = 3,
     .hidden = 96,
     .heads = 3,
     .kv_heads = 1,
     .head_dim = 32,
     .ffn = 256,
     .vocab = 512,
     .max_position = 1024},
    {.name = "honeycrisp-85m",
     .layers = 12,
     .hidden = 768,
     .heads = 12,
     .kv_heads = 6,
     .head_dim = 64,
     .ffn = 2304,
     .vocab = 49152,
     .max_position = 4096},
    {.name = "afm-3b-source",
     .layers = 26,
     .hidden = 3072,
     .heads = 24,
     .kv_heads = 8,
     .head_dim = 128,
     .ffn = 24192,
     .vocab = 49152,
     .max_position = 4096},
    {.name = "afm-3b-source-23296",
     .layers = 26,
     .hidden = 3072,
     .heads = 24,
     .kv_heads = 8,
     .head_dim = 128,
     .ffn = 23296,
     .vocab = 49152,
     .max_position = 4096},
    {.name = "afm-3b",
     .layers = 26,
     .hidden = 3072,
     .heads = 24,
     .kv_heads = 8,
     .head_dim = 128,
     .ffn = 8064,
     .vocab = 49152,
     .max_position = 4096},
}};

struct SizeField {
  const char* name;
  int64_t ModelConfig::*member;
  int64_t max;
};
constexpr std::array<SizeField, 7> kSizeFields{{
    {"vocab_size", &ModelConfig::vocab_size, kMaxSize},
    {"hidden_size", &ModelConfig::hidden_size, kMaxSize},
    {"num_hidden_layers", &ModelConfig::num_hidden_layers, kMaxLayers},
    {"num_attention_heads", &ModelConfig::num_attention_heads, 65536},
    {"num_key_value_heads", &ModelConfig::num_key_value_heads, 65536},
    {"head_dim", &ModelConfig::head_dim, 65536},
    {"max_position_embeddings", &ModelConfig::max_position_embeddings, int64_t{1} << 31},
}};

bool boolean_at(const Json& object, const char* key, const std::string& path) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_boolean())
    throw UserError::bad_file(path, fmt::format("{}: expected true or false", key));
  return found->get<bool>();
}

RopeScaling rope_scaling_at(const Json& json, const std::string& path) {
  const Json& object = object_at(json, "rope_scaling", path);
  const uint64_t positions = unsigned_at(object, "original_max_position_embeddings", path);
  return {.factor = number_at(object, "factor", path),
          .low_freq_factor = number_at(object, "low_freq_factor", path),
          .high_freq_factor = number_at(object, "high_freq_factor", path),
          .original_max_position_embeddings =
              static_cast<int64_t>(std::min(positions, uint64_t{1} << 32))};  // check_config() refuses
}

int64_t width_of(const Json& value, const std::string& path) {
  if (!value.is_number_unsigned() || value.get<uint64_t>() > static_cast<uint64_t>(kMaxSize))
    throw UserError::bad_file(path, fmt::format("intermediate_size: got {}, expected whole numbers up to {}",
                                                printable(value.dump()), kMaxSize));
  return static_cast<int64_t>(value.get<uint64_t>());
}

}  // namespace

void check_config(const ModelConfig& config, const std::string& where, bool from_file) {
  const auto refuse = [&](const std::string& message) {
    throw from_file ? UserError::bad_file(where, message) : UserError::recipe(where, message);
  };
  for (const SizeField& field : kSizeFields) {
    const int64_t value = config.*field.member;
    if (value < 1 || value > field.max)
      refuse(fmt::format("{}: got {}, expected 1 to {}", field.name, value, field.max));
  }
  if (config.num_attention_heads % config.num_key_value_heads != 0)
    refuse(fmt::format("num_attention_heads: got {}, expected a multiple of num_key_value_heads ({})",
                       config.num_attention_heads, config.num_key_value_heads));
  if (config.head_dim % 2 != 0)
    refuse(fmt::format("head_dim: got {}, expected an even number (RoPE rotates pairs)", config.head_dim));
  if (std::ssize(config.intermediate_size) != config.num_hidden_layers)
    refuse(fmt::format("intermediate_size: got {} widths, expected one for each of {} layers",
                       config.intermediate_size.size(), config.num_hidden_layers));
  for (size_t i = 0; i < config.intermediate_size.size(); ++i)
    if (config.intermediate_size[i] < 1 || config.intermediate_size[i] > kMaxSize)
      refuse(fmt::format("intermediate_size: layer {} has {}, expected 1 to {}", i, config.intermediate_size[i],
                         kMaxSize));
  if (!std::isfinite(config.rope_theta) || config.rope_theta <= 1.0)
    refuse(fmt::format("rope_theta: got {}, expected a number above 1", config.rope_theta));
  if (!std::isfinite(config.rms_norm_eps) || config.rms_norm_eps <= 0.0 || config.rms_norm_eps > 0.1)
    refuse(fmt::format("rms_norm_eps: got {}, expected above 0, at most 0.1", config.rms_norm_eps));
  if (!config.rope_scaling) return;
  const RopeScaling& scaling = *config.rope_scaling;
  if (!std::isfinite(scaling.factor) || scaling.factor < 1.0)
    refuse(fmt::format("rope_scaling: factor: got {}, expected at least 1", scaling.factor));
  if (!std::isfinite(scaling.high_freq_factor) || !(scaling.low_freq_factor > 0.0) ||
      !(scaling.low_freq_factor < scaling.high_freq_factor))
    refuse(fmt::format("rope_scaling: low_freq_factor {} and high_freq_factor {}: expected 0 < low < high",
                       scaling.low_freq_factor, scaling.high_freq_factor));
  if (scaling.original_max_position_embeddings < 1 ||
      scaling.original_max_position_embeddings > config.max_position_embeddings)
    refuse(
        fmt::format("rope_scaling: original_max_position_embeddings: got {}, expected 1 to {} "
                    "(max_position_embeddings)",
                    scaling.original_max_position_embeddings, config.max_position_embeddings));
}

Json to_json(const ModelConfig& config) {
  Json json = Json::object();
  for (const SizeField& field : kSizeFields) json[field.name] = static_cast<uint64_t>(config.*field.member);
  const std::vector<uint64_t> widths(config.intermediate_size.begin(), config.intermediate_size.end());
  const bool uniform = std::ranges::adjacent_find(widths, std::ranges::not_equal_to{}) == widths.end();
  if (uniform && !widths.empty()) {
    json["intermediate_size"] = widths.front();
  } else {
    json["intermediate_size"] = widths;
  }
  json["rope_theta"] = config.rope_theta;
  json["rms_norm_eps"] = config.rms_norm_eps;
  json["tie_word_embeddings"] = config.tie_word_embeddings;
  json["qk_norm"] = config.qk_norm;
  if (config.qkv_bias) json["qkv_bias"] = true;  // left out otherwise: what was written before such models stays equal
  if (config.rope_scaling)
    json["rope_scaling"] = {{"factor", config.rope_scaling->factor},
                            {"low_freq_factor", config.rope_scaling->low_freq_factor},
                            {"high_freq_factor", config.rope_scaling->high_freq_factor},
                            {"original_max_position_embeddings",
                             static_cast<uint64_t>(config.rope_scaling->original_max_position_embeddings)}};
  return json;
}

ModelConfig config_from_json(const Json& json, const std::string& path) {
  if (!json.is_object()) throw UserError::bad_file(path, "model: expected an object");
  ModelConfig config;
  std::vector<std::string> known{"intermediate_size", "rope_theta", "rms_norm_eps", "tie_word_embeddings",
                                 "qk_norm",           "qkv_bias",   "rope_scaling"};
  for (const SizeField& field : kSizeFields) {
    const uint64_t value = unsigned_at(json, field.name, path);
    if (value > static_cast<uint64_t>(field.max))
      throw UserError::bad_file(path, fmt::format("{}: got {}, expected 1 to {}", field.name, value, field.max));
    config.*field.member = static_cast<int64_t>(value);
    known.emplace_back(field.name);
  }
  const auto widths = json.find("intermediate_size");
  if (widths == json.end()) throw UserError::bad_file(path, "intermediate_size: missing");
  if (widths->is_array()) {
    for (const Json& width : *widths) config.intermediate_size.push_back(width_of(width, path));
  } else {
    config.intermediate_size.assign(static_cast<size_t>(std::min(config.num_hidden_layers, kMaxLayers)),
                                    width_of(*widths, path));
  }
  config.rope_theta = number_at(json, "rope_theta", path);
  config.rms_norm_eps = number_at(json, "rms_norm_eps", path);
  config.tie_word_embeddings = boolean_at(json, "tie_word_embeddings", path);
  config.qk_norm = boolean_at(json, "qk_norm", path);
  if (json.contains("qkv_bias")) config.qkv_bias = boolean_at(json, "qkv_bias", path);
  if (json.contains("rope_scaling")) config.rope_scaling = rope_scaling_at(json, path);
  for (const auto& [key, value] : json.items())
    if (std::ranges::find(known, key) == known.end())
      throw UserError::bad_file(path, fmt::format("model: unknown key '{}'", printable(key)));
  check_config(config, path, /*from_file=*/true);
  return config;
}

ModelConfig preset(const std::string& name, const std::string& where) {
  const auto found = std::ranges::find_if(kPresets, [&](const Preset& row) { return name == row.name; });
  if (found == kPresets.end()) {
    throw UserError::recipe(where, fmt::format("unknown preset '{}'; did you mean '{}'? (known: {}; a Hugging Face "
                                               "folder of that name is not there either{})",
                                               printable(name), nearest(name, preset_names()),
                                               fmt::join(preset_names(), ", "), searched_from(name)));
  }
  ModelConfig config;
  config.vocab_size = found->vocab;
  config.hidden_size = found->hidden;
  config.num_hidden_layers = found->layers;
  config.num_attention_heads = found->heads;
  config.num_key_value_heads = found->kv_heads;
  config.head_dim = found->head_dim;
  config.intermediate_size.assign(static_cast<size_t>(found->layers), found->ffn);
  config.max_position_embeddings = found->max_position;
  return config;
}

std::vector<std::string> preset_names() {
  std::vector<std::string> names;
  for (const Preset& row : kPresets) names.emplace_back(row.name);
  return names;
}

}  // namespace coppice
