#include "src/checkpoint/gguf_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>

#include "src/base/errors.h"
#include "src/checkpoint/rope_factors.h"

namespace coppice {
namespace {

constexpr uint64_t kMaxSize = uint64_t{1} << 31;  // of any one dimension
constexpr uint64_t kMaxLayers = 1024;
constexpr double kRopeTheta = 10000.0;  // where the key is absent

struct Architecture {
  const char* name;
  bool neighbours;  // q and k are permuted
};
constexpr Architecture kArchitectures[] = {{"llama", true}, {"qwen2", false}, {"qwen3", false}};

/// Keys behind "<architecture>." that would change the mathematics unless they have this value.
struct Refusal {
  const char* key;
  double harmless;
  const char* what;
};
constexpr Refusal kRefusals[] = {
    {"expert_count", 0, "mixtures of experts are not read"},
    {"expert_used_count", 0, "mixtures of experts are not read"},
    {"leading_dense_block_count", 0, "mixtures of experts are not read"},
    {"attention.sliding_window", 0, "only attention to the whole text is read"},
    {"attention.max_alibi_bias", 0, "positions are RoPE's alone"},
    {"attention.clamp_kqv", 0, "projections are not clamped"},
    {"attn_logit_softcapping", 0, "logits are not capped"},
    {"final_logit_softcapping", 0, "logits are not capped"},
    {"logit_scale", 1, "logits are not scaled"},
    {"residual_scale", 1, "the residual stream is not scaled"},
    {"embedding_scale", 1, "embeddings are not scaled"},
    {"pooling_type", 0, "only models that predict the next token are read"},
    {"rope.scale_linear", 1, "unscaled frequencies and the tensor rope_freqs.weight are read"},
};

class Keys {
 public:
  Keys(const GgufFile& file, const std::string& architecture) : file_(file), prefix_(architecture + ".") {}

  std::string name(const char* key) const { return prefix_ + key; }

  int64_t size(const char* key, uint64_t max = kMaxSize) const {
    const std::optional<int64_t> found = find_size(key, max);
    if (!found) refuse(fmt::format("{} is missing", name(key)));
    return *found;
  }
  std::optional<int64_t> find_size(const char* key, uint64_t max = kMaxSize) const {
    const std::optional<uint64_t> found = file_.unsigned_at(name(key), max);
    if (found == uint64_t{0}) refuse(fmt::format("{}: got 0, expected 1 to {}", name(key), max));
    return found ? std::optional(static_cast<int64_t>(*found)) : std::nullopt;
  }
  /// One number for all layers, or a list of one each.
  std::optional<std::vector<int64_t>> sizes_by_layer(const char* key, int64_t layers) const {
    const GgufValue* value = file_.find(name(key));
    if (value == nullptr) return std::nullopt;
    if (value->type != GgufType::array) return std::vector(static_cast<size_t>(layers), size(key));
    std::vector<int64_t> sizes = *file_.unsigned_list_at(name(key), kMaxSize);
    if (std::ssize(sizes) != layers || std::ranges::find(sizes, 0) != sizes.end())
      refuse(fmt::format("{}: {} numbers, expected one of 1 to {} for each of {} layers", name(key), sizes.size(),
                         kMaxSize, layers));
    return sizes;
  }
  /// The same where all layers must be alike.
  std::optional<int64_t> uniform_size(const char* key, int64_t layers) const {
    const std::optional<std::vector<int64_t>> sizes = sizes_by_layer(key, layers);
    if (!sizes) return std::nullopt;
    if (std::ranges::adjacent_find(*sizes, std::ranges::not_equal_to{}) != sizes->end())
      refuse(fmt::format("{}: layers differ, only FFN widths may", name(key)));
    return sizes->front();
  }
  std::optional<double> number(const char* key) const { return file_.number_at(name(key)); }
  [[noreturn]] void refuse(const std::string& message) const { throw UserError::bad_file(file_.where(), message); }

 private:
  const GgufFile& file_;
  std::string prefix_;
};

std::string supported() {
  std::string names;
  for (const Architecture& one : kArchitectures) names += (names.empty() ? "" : ", ") + std::string(one.name);
  return names + " are read";
}

/// The value of a key of any number or bool type.
std::optional<double> any_number(const GgufFile& file, const std::string& key) {
  const GgufValue* value = file.find(key);
  if (value == nullptr) return std::nullopt;
  if (value->type == GgufType::f32 || value->type == GgufType::f64) return file.number_at(key);
  if (value->type == GgufType::boolean) return *file.boolean_at(key) ? 1 : 0;
  return static_cast<double>(*file.unsigned_at(key, std::numeric_limits<uint64_t>::max()));
}

void check_plain(const GgufFile& file, const Keys& keys) {
  for (const auto& [key, harmless, what] : kRefusals)
    if (const std::optional<double> value = any_number(file, keys.name(key)); value && *value != harmless)
      keys.refuse(fmt::format("{} = {} is not supported: {}", keys.name(key), *value, what));
  if (file.boolean_at(keys.name("attention.causal")) == false)
    keys.refuse(
        fmt::format("{} = false is not supported: a token sees what is before it", keys.name("attention.causal")));
  if (const auto type = file.string_at("general.type"); type && *type != "model")
    keys.refuse(fmt::format("general.type '{}': only 'model' is read", printable(*type)));
}

/// Keys of a scaling that leaves frequencies alone pass; a scaled RoPE is read from rope_freqs.weight only.
void check_rope_keys(const GgufFile& file, const Keys& keys, int64_t head_dim) {
  if (const auto dims = keys.find_size("rope.dimension_count"); dims && *dims != head_dim)
    keys.refuse(fmt::format("{}: got {}, expected {}: RoPE turns whole heads", keys.name("rope.dimension_count"), *dims,
                            head_dim));
  const std::string type = file.string_at(keys.name("rope.scaling.type")).value_or("none");
  const double factor = keys.number("rope.scaling.factor").value_or(1.0);
  if (type != "none" && (type != "linear" || factor != 1.0))
    keys.refuse(fmt::format("{} '{}' with factor {} is not supported: unscaled frequencies and the tensor {} are read",
                            keys.name("rope.scaling.type"), printable(type), factor, kRopeFactors));
  if (const double attention = keys.number("rope.scaling.attn_factor").value_or(1.0); attention != 1.0)
    keys.refuse(fmt::format("{} = {} is not supported", keys.name("rope.scaling.attn_factor"), attention));
}

std::optional<RopeScaling> read_rope_factors(const GgufFile& file, const ModelConfig& config) {
  const GgufTensor* tensor = file.find_tensor(kRopeFactors);
  if (tensor == nullptr) return std::nullopt;
  if (tensor->shape != std::vector{config.head_dim / 2} || tensor->type != static_cast<uint32_t>(GgmlType::f32))
    throw UserError::bad_file(
        file.where(), fmt::format("tensor {}: {} {} expected for heads of {}", kRopeFactors, config.head_dim / 2,
                                  ggml_type_row(GgmlType::f32).name, config.head_dim));
  std::vector<float> factors(static_cast<size_t>(config.head_dim / 2));
  std::memcpy(factors.data(), file.bytes_of(*tensor).data(), tensor->bytes);
  if (std::ranges::all_of(factors, [](float factor) { return factor == 1.0F; })) return std::nullopt;
  std::optional<RopeScaling> scaling =
      find_rope_scaling(factors, config.rope_theta, config.head_dim, config.max_position_embeddings);
  if (!scaling)
    throw UserError::bad_file(file.where(),
                              fmt::format("tensor {}: no factor, low and high frequency factor of Llama 3 "
                                          "give these numbers with {} positions; other scalings of RoPE "
                                          "are not supported",
                                          kRopeFactors, config.max_position_embeddings));
  return scaling;
}

int64_t vocabulary_rows(const GgufFile& file, const Keys& keys) {
  const GgufTensor* table = file.find_tensor("token_embd.weight");
  if (table == nullptr || table->shape.size() != 2) keys.refuse("tensor token_embd.weight is missing, or no matrix");
  const int64_t rows = table->shape[0];
  if (rows < 1 || rows > static_cast<int64_t>(kMaxSize))
    keys.refuse(fmt::format("tensor token_embd.weight has {} rows, expected 1 to {}", rows, kMaxSize));
  if (const GgufValue* tokens = file.find("tokenizer.ggml.tokens");
      tokens != nullptr && tokens->count > static_cast<uint64_t>(rows))
    keys.refuse(fmt::format("{} tokens, but the vocabulary table has {} rows", tokens->count, rows));
  return rows;
}

std::vector<int64_t> read_true_widths(const GgufFile& file, const Keys& keys, const ModelConfig& config) {
  std::optional<std::vector<int64_t>> widths = file.unsigned_list_at(kTrueWidths, kMaxSize);
  if (!widths) return {};
  bool fits = widths->size() == config.intermediate_size.size();
  for (size_t i = 0; fits && i < widths->size(); ++i)
    fits = (*widths)[i] >= 1 && (*widths)[i] <= config.intermediate_size[i];
  if (!fits)
    keys.refuse(fmt::format("{}: expected a width for each of {} layers, at most the padded one", kTrueWidths,
                            config.num_hidden_layers));
  return *widths;
}

}  // namespace

GgufShape read_gguf_shape(const GgufFile& file) {
  GgufShape shape;
  const std::optional<std::string> name = file.string_at("general.architecture");
  if (!name) throw UserError::bad_file(file.where(), "general.architecture is missing; " + supported());
  if (std::ranges::find(kArchitectures, *name, &Architecture::name) == std::end(kArchitectures))
    throw UserError::bad_file(file.where(),
                              fmt::format("architecture '{}' is not supported: {}", printable(*name), supported()));
  shape.architecture = *name;
  const Keys keys(file, *name);
  check_plain(file, keys);
  ModelConfig& config = shape.config;
  const int64_t layers = config.num_hidden_layers = keys.size("block_count", kMaxLayers);
  config.vocab_size = vocabulary_rows(file, keys);
  config.hidden_size = keys.size("embedding_length");
  config.max_position_embeddings = keys.size("context_length");
  const std::optional<int64_t> heads = keys.uniform_size("attention.head_count", layers);
  if (!heads) keys.refuse(keys.name("attention.head_count") + " is missing");
  config.num_attention_heads = *heads;
  config.num_key_value_heads = keys.uniform_size("attention.head_count_kv", layers).value_or(*heads);
  config.head_dim = keys.find_size("attention.key_length").value_or(config.hidden_size / *heads);
  if (const int64_t value = keys.find_size("attention.value_length").value_or(config.hidden_size / *heads);
      value != config.head_dim)
    keys.refuse(fmt::format("{} {} and {} {}: keys and values of one size are read", keys.name("attention.key_length"),
                            config.head_dim, keys.name("attention.value_length"), value));
  const auto widths = keys.sizes_by_layer("feed_forward_length", layers);
  if (!widths) keys.refuse(keys.name("feed_forward_length") + " is missing");
  config.intermediate_size = *widths;
  const std::optional<double> eps = keys.number("attention.layer_norm_rms_epsilon");
  if (!eps) keys.refuse(keys.name("attention.layer_norm_rms_epsilon") + " is missing");
  config.rms_norm_eps = *eps;
  config.rope_theta = keys.number("rope.freq_base").value_or(kRopeTheta);
  config.tie_word_embeddings = file.find_tensor("output.weight") == nullptr;
  config.qk_norm = *name == "qwen3";
  config.qkv_bias = *name == "qwen2" || file.find_tensor("blk.0.attn_q.bias") != nullptr;
  if (config.qk_norm && config.qkv_bias)
    keys.refuse("tensor blk.0.attn_q.bias beside norms of q and k: a model has the one or the other");
  check_config(config, file.where(), /*from_file=*/true);  // before anything is computed from these sizes
  check_rope_keys(file, keys, config.head_dim);
  config.rope_scaling = read_rope_factors(file, config);
  check_config(config, file.where(), /*from_file=*/true);
  shape.true_widths = read_true_widths(file, keys, config);
  return shape;
}

std::string gguf_architecture(const ModelConfig& config) {
  if (config.qk_norm && config.qkv_bias)
    throw UserError::recipe("model", "norms of q and k beside biases: no architecture of GGUF has both");
  return config.qk_norm ? "qwen3" : config.qkv_bias ? "qwen2" : "llama";
}

bool rotates_neighbours(const std::string& architecture) {
  return std::ranges::find(kArchitectures, architecture, &Architecture::name)->neighbours;
}

}  // namespace coppice
