// config.json of a foreign Hugging Face folder: families, what an absent key means there, and a refusal by name of all
// that would change the mathematics. What does not (dropout, caches, pretraining_tp, a rope scaling of factor 1, ...)
// is read past. Defaults: transformers' configuration_<model_type>.py.
#include "src/checkpoint/hf_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <nlohmann/json.hpp>
#include <optional>

#include "src/base/errors.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxSize = uint64_t{1} << 31;  // of any one dimension
constexpr uint64_t kMaxLayers = 4096;
constexpr double kRopeTheta = 10000.0, kRmsNormEps = 1e-6;  // of every family, where the key is absent

struct Family {
  const char* model_type;
  const char* name;  // <name>ForCausalLM, or <name>Model without an output table of its own
  bool qk_norm;
  bool qkv_bias;  // always; otherwise as attention_bias says
  int64_t kv_heads,
      head_dim;  // where the key is absent; 0 = as null: num_attention_heads, hidden_size / num_attention_heads
  int64_t max_positions;
  int64_t window;  // 0 = none
};
constexpr std::array<Family, 4> kFamilies = {{
    {.model_type = "llama",
     .name = "Llama",
     .qk_norm = false,
     .qkv_bias = false,
     .kv_heads = 0,
     .head_dim = 0,
     .max_positions = 2048,
     .window = 0},
    {.model_type = "mistral",
     .name = "Mistral",
     .qk_norm = false,
     .qkv_bias = false,
     .kv_heads = 8,
     .head_dim = 0,
     .max_positions = 131072,
     .window = 4096},
    {.model_type = "qwen2",
     .name = "Qwen2",
     .qk_norm = false,
     .qkv_bias = true,
     .kv_heads = 32,
     .head_dim = 0,
     .max_positions = 32768,
     .window = 0},
    {.model_type = "qwen3",
     .name = "Qwen3",
     .qk_norm = true,
     .qkv_bias = false,
     .kv_heads = 32,
     .head_dim = 128,
     .max_positions = 32768,
     .window = 0},
}};

/// Keys that must be absent, null or false, and what would do.
struct Refusal {
  const char* key;
  const char* instead;
};
constexpr std::array<Refusal, 2> kRefusals = {{
    {"quantization_config", "give the folder of the weights before quantization"},
    {"mlp_bias", "only the projections of q, k and v may have a bias"},
}};

/// The value of a key, or nullptr when it is absent or null.
const Json* find_value(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

bool is_true(const Json& object, const char* key) {
  const Json* value = find_value(object, key);
  return value != nullptr && *value != Json(false);
}

[[noreturn]] void refuse(const std::string& where, const std::string& what, const std::string& instead) {
  throw UserError::bad_file(where, fmt::format("{} is not supported: {}", what, instead));
}

int64_t size_at(const Json& json, const char* key, const std::string& where, uint64_t limit = kMaxSize) {
  const uint64_t value = unsigned_at(json, key, where);
  if (value == 0 || value > limit)
    throw UserError::bad_file(where, fmt::format("{}: got {}, expected 1..{}", key, value, limit));
  return static_cast<int64_t>(value);
}

/// The size of a key; `absent` (0 = as null) where it is not there, `null` where it is null.
int64_t size_or(const Json& json, const char* key, int64_t absent, int64_t null, const std::string& where) {
  if (find_value(json, key) != nullptr) return size_at(json, key, where);
  return absent == 0 || json.contains(key) ? null : absent;
}

double number_or(const Json& json, const char* key, double otherwise, const std::string& where) {
  return find_value(json, key) == nullptr ? otherwise : number_at(json, key, where);
}

std::string supported() {
  std::string names;
  for (const Family& family : kFamilies)
    names += fmt::format("{}{}ForCausalLM", names.empty() ? "" : ", ", family.name);
  return names + " are read";
}

/// Equal but for capitals: old conversions say LLaMAForCausalLM.
bool is_same(const std::string& a, const std::string& b) {
  return std::ranges::equal(a, b, [](unsigned char x, unsigned char y) { return std::tolower(x) == std::tolower(y); });
}

/// By architectures, or by model_type where that is absent; the two must not contradict each other.
const Family& find_family(const Json& json, const std::string& where) {
  const Json *architectures = find_value(json, "architectures"), *type = find_value(json, "model_type");
  if (architectures == nullptr) {
    if (type == nullptr)
      throw UserError::bad_file(where, "neither architectures nor model_type says what model it is; " + supported());
    for (const Family& family : kFamilies)
      if (*type == Json(family.model_type)) return family;
    refuse(where, "model_type " + printable(type->dump()), supported());
  }
  const bool one = architectures->is_array() && architectures->size() == 1 && (*architectures)[0].is_string();
  const std::string name = one ? (*architectures)[0].get<std::string>() : architectures->dump();
  for (const Family& family : kFamilies) {
    if (!is_same(name, family.name + std::string("ForCausalLM")) && !is_same(name, family.name + std::string("Model")))
      continue;
    if (type != nullptr && *type != Json(family.model_type))
      throw UserError::bad_file(
          where, fmt::format("model_type {} does not fit architecture {}", printable(type->dump()), name));
    return family;
  }
  refuse(where, "architecture '" + printable(name) + "'", supported());
}

/// Scaling by factor 1 leaves these types' frequencies as they are.
bool is_plain(const Json& type, const Json& rope) {
  if (type == Json("default")) return true;
  const Json* factor = find_value(rope, "factor");
  const bool plain_yarn = type == Json("yarn") && !find_value(rope, "mscale") && !find_value(rope, "mscale_all_dim") &&
                          !find_value(rope, "attention_factor");
  return (type == Json("linear") || type == Json("llama3") || plain_yarn) && factor != nullptr && factor->is_number() &&
         factor->get<double>() == 1.0;
}

void check_whole_heads(const Json& json, const std::string& where) {
  if (const Json* part = find_value(json, "partial_rotary_factor"); part != nullptr && *part != Json(1.0))
    refuse(where, "partial_rotary_factor " + printable(part->dump()), "RoPE turns whole heads");
}

/// The four numbers of Llama 3.1; the length of the first training is max_position_embeddings where it is not said.
RopeScaling read_llama3(const Json& rope, const Json& config, const std::string& where) {
  constexpr const char* kLength = "original_max_position_embeddings";
  const Json& holder = find_value(rope, kLength) != nullptr ? rope : config;
  return {.factor = number_at(rope, "factor", where),
          .low_freq_factor = number_at(rope, "low_freq_factor", where),
          .high_freq_factor = number_at(rope, "high_freq_factor", where),
          .original_max_position_embeddings =
              size_at(holder, find_value(holder, kLength) != nullptr ? kLength : "max_position_embeddings", where)};
}

/// What one of rope_scaling (transformers 4) and rope_parameters (5) says; nothing = plain frequencies.
std::optional<RopeScaling> read_rope(const char* key, const Json& rope, const Json& config, const std::string& where) {
  if (!rope.is_object()) throw UserError::bad_file(where, fmt::format("{}: an object expected", key));
  std::optional<RopeScaling> scaling;
  bool typed = false;
  for (const char* type_key : {"rope_type", "type"})
    if (const Json* type = find_value(rope, type_key)) {
      typed = true;
      if (is_plain(*type, rope)) continue;
      if (*type != Json("llama3"))
        refuse(where, fmt::format("{}: rope type {}", key, printable(type->dump())),
               "unscaled frequencies (null, \"default\" or factor 1) and \"llama3\" are read");
      scaling = read_llama3(rope, config, where);
    }
  if (const Json* factor = find_value(rope, "factor"); !typed && factor != nullptr && *factor != Json(1.0))
    refuse(where, fmt::format("{}: factor {} without a type", key, printable(factor->dump())),
           "unscaled frequencies and rope_type \"llama3\" are read");
  for (const auto& [name, value] : rope.items())
    if (value.is_object())
      refuse(where, fmt::format("{}: frequencies of their own for '{}'", key, printable(name)),
             "one rope_theta for all layers is read");
  check_whole_heads(rope, where);
  return scaling;
}

std::optional<RopeScaling> read_rope_scaling(const Json& json, const std::string& where) {
  check_whole_heads(json, where);
  const Json *old_rope = find_value(json, "rope_scaling"), *rope = find_value(json, "rope_parameters");
  std::optional<RopeScaling> old_scaling, scaling;
  if (old_rope != nullptr) old_scaling = read_rope("rope_scaling", *old_rope, json, where);
  if (rope != nullptr) scaling = read_rope("rope_parameters", *rope, json, where);
  if (rope == nullptr) return old_scaling;
  if (old_rope != nullptr && old_scaling != scaling)
    throw UserError::bad_file(where, "rope_scaling and rope_parameters contradict each other");
  return scaling;
}

/// Whether q, k and v have biases. What attention_bias means besides, a bias of o_proj, is looked for among the
/// tensors.
bool read_qkv_bias(const Json& json, const Family& family, const std::string& where) {
  const bool attention_bias = is_true(json, "attention_bias");
  if (attention_bias && family.qk_norm)
    refuse(where, "attention_bias beside q_norm and k_norm", "a model has the one or the other");
  return family.qkv_bias || attention_bias;
}

/// Everything else that would change the mathematics.
void check_plain(const Json& json, const Family& family, const std::string& where) {
  for (const auto& [key, instead] : kRefusals)
    if (is_true(json, key)) refuse(where, key, instead);
  const bool no_window = json.contains("sliding_window") && find_value(json, "sliding_window") == nullptr;
  if (is_true(json, "use_sliding_window") && family.window == 0 && !no_window)
    refuse(where, "use_sliding_window",
           "only attention to the whole text is read; programs disagree about which layers max_window_layers means");
  if (const Json* layers = find_value(json, "layer_types"))
    for (const Json& layer : *layers)
      if (layer != Json("full_attention"))
        refuse(where, "layer_types " + printable(layer.dump()), "only layers that attend to the whole text are read");
  // A switch that is off, and Qwen where it is absent, leave the number beside it without effect; Mistral has no
  // switch (see read_window).
  const bool has_switch = family.qk_norm || family.qkv_bias || json.contains("use_sliding_window");
  const bool window_acts = family.window == 0 && !has_switch;
  if (window_acts && is_true(json, "sliding_window"))
    refuse(where, "sliding_window", "only attention to the whole text is read; null means that");
  if (const Json* act = find_value(json, "hidden_act"); act != nullptr && *act != Json("silu") && *act != Json("swish"))
    refuse(where, "hidden_act " + printable(act->dump()), "the FFN is SwiGLU: silu");
}

double read_rope_theta(const Json& json, const std::string& where) {
  const Json* rope = find_value(json, "rope_parameters");
  if (rope == nullptr || find_value(*rope, "rope_theta") == nullptr)
    return number_or(json, "rope_theta", kRopeTheta, where);
  const double theta = number_at(*rope, "rope_theta", where);
  const double old_theta = number_or(json, "rope_theta", theta, where);
  if (theta != old_theta)
    throw UserError::bad_file(
        where, fmt::format("rope_theta {} and rope_parameters.rope_theta {} contradict each other", old_theta, theta));
  return theta;
}

/// Tokens that a position of a Mistral model sees, itself among them; 0 = all.
int64_t read_window(const Json& json, const Family& family, const std::string& where) {
  if (family.window == 0) return 0;
  return size_or(json, "sliding_window", family.window, 0, where);
}

std::vector<int64_t> read_true_widths(const Json& json, const ModelConfig& config, int64_t width,
                                      const std::string& where) {
  if (!json.contains("coppice_intermediate_sizes")) return {};
  const Json& sizes = array_at(json, "coppice_intermediate_sizes", where);
  const bool fits =
      sizes.size() == config.intermediate_size.size() && std::ranges::all_of(sizes, [&](const Json& size) {
        return size.is_number_unsigned() && size > 0 && size <= width;
      });
  if (!fits)
    throw UserError::bad_file(where, fmt::format("coppice_intermediate_sizes: {} numbers of 1..{} expected",
                                                 config.num_hidden_layers, width));
  return sizes.get<std::vector<int64_t>>();
}

}  // namespace

HfConfig read_hf_config(const fs::path& folder) {
  const fs::path path = folder / "config.json";
  const std::string where = path.string();
  const Json json = read_json(path);
  if (!json.is_object()) throw UserError::bad_file(where, "no JSON object");
  const Family& family = find_family(json, where);
  check_plain(json, family, where);
  HfConfig hf;
  ModelConfig& config = hf.config;
  config.qk_norm = family.qk_norm;
  config.qkv_bias = read_qkv_bias(json, family, where);
  config.vocab_size = size_at(json, "vocab_size", where);
  config.hidden_size = size_at(json, "hidden_size", where);
  config.num_hidden_layers = size_at(json, "num_hidden_layers", where, kMaxLayers);
  config.num_attention_heads = size_at(json, "num_attention_heads", where);
  config.num_key_value_heads = size_or(json, "num_key_value_heads", family.kv_heads, config.num_attention_heads, where);
  config.head_dim = size_or(json, "head_dim", family.head_dim, config.hidden_size / config.num_attention_heads, where);
  config.max_position_embeddings =
      size_or(json, "max_position_embeddings", family.max_positions, family.max_positions, where);
  hf.attention_window = read_window(json, family, where);
  // A text no longer than the window is seen whole: so far, and no further, it is the plain model.
  if (hf.attention_window >= config.max_position_embeddings) hf.attention_window = 0;
  if (hf.attention_window > 0) config.max_position_embeddings = hf.attention_window;
  config.rms_norm_eps = number_or(json, "rms_norm_eps", kRmsNormEps, where);
  config.rope_theta = read_rope_theta(json, where);
  config.rope_scaling = read_rope_scaling(json, where);
  config.tie_word_embeddings = is_true(json, "tie_word_embeddings");
  const int64_t width = size_at(json, "intermediate_size", where);
  config.intermediate_size.assign(static_cast<size_t>(config.num_hidden_layers), width);
  check_config(config, where, /*from_file=*/true);
  hf.intermediate_sizes = read_true_widths(json, config, width, where);
  return hf;
}

}  // namespace coppice
