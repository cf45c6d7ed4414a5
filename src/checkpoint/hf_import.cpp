// Reading a Hugging Face folder of a plain Llama or Qwen3 model: config.json with refusals by name, one safetensors file or an index of several.
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <system_error>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/checkpoint/hf_export.h"
#include "src/checkpoint/hf_folder.h"
#include "src/checkpoint/safetensors.h"
#include "src/model/parameters.h"
#include "src/tensors/shape.h"

namespace coppice {

namespace fs = std::filesystem;

namespace {

constexpr uint64_t kMaxSize = uint64_t{1} << 31;  // of any one dimension
constexpr uint64_t kMaxLayers = 4096;

/// The value of a key, or nullptr when it is absent or null.
const Json* find_value(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

bool is_true(const Json& object, const char* key) {
  const Json* value = find_value(object, key);
  return value != nullptr && *value != Json(false);
}

[[noreturn]] void refuse(const std::string& where, const std::string& what) { throw UserError::bad_file(where, what + " is not supported"); }

int64_t size_at(const Json& json, const char* key, const std::string& where, uint64_t limit = kMaxSize) {
  const uint64_t value = unsigned_at(json, key, where);
  if (value == 0 || value > limit) throw UserError::bad_file(where, fmt::format("{}: got {}, expected 1..{}", key, value, limit));
  return static_cast<int64_t>(value);
}

int64_t size_or(const Json& json, const char* key, int64_t otherwise, const std::string& where) {
  return find_value(json, key) == nullptr ? otherwise : size_at(json, key, where);
}

double number_or(const Json& json, const char* key, double otherwise, const std::string& where) {
  return find_value(json, key) == nullptr ? otherwise : number_at(json, key, where);
}

/// "qwen3" or "llama"; architectures and model_type must not contradict each other.
bool has_qk_norm(const Json& json, const std::string& where) {
  const Json& architectures = array_at(json, "architectures", where);
  const std::string name = architectures.size() == 1 && architectures[0].is_string() ? architectures[0].get<std::string>() : architectures.dump();
  if (name != "Qwen3ForCausalLM" && name != "LlamaForCausalLM") refuse(where, "architecture '" + printable(name) + "'");
  const bool qk_norm = name == "Qwen3ForCausalLM";
  if (const Json* type = find_value(json, "model_type"); type != nullptr && *type != Json(qk_norm ? "qwen3" : "llama"))
    throw UserError::bad_file(where, fmt::format("model_type {} does not fit architecture {}", printable(type->dump()), name));
  return qk_norm;
}

/// Everything that would change the mathematics.
void refuse_unsupported(const Json& json, const std::string& where) {
  for (const char* key : {"quantization_config", "attention_bias", "mlp_bias", "use_sliding_window"})
    if (is_true(json, key)) refuse(where, key);
  const bool window_switch = json.contains("use_sliding_window");  // false there: the number beside it is without effect
  if (!window_switch && is_true(json, "sliding_window")) refuse(where, "sliding_window");
  if (const Json* layers = find_value(json, "layer_types"))
    for (const Json& layer : *layers)
      if (layer != Json("full_attention")) refuse(where, "layer_types " + printable(layer.dump()));
  if (const Json* act = find_value(json, "hidden_act"); act != nullptr && *act != Json("silu")) refuse(where, "hidden_act " + printable(act->dump()));
  if (const Json* split = find_value(json, "pretraining_tp"); split != nullptr && *split != Json(1))
    refuse(where, "pretraining_tp " + printable(split->dump()));
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const Json* rope = find_value(json, key);
    if (rope == nullptr) continue;
    if (!rope->is_object()) throw UserError::bad_file(where, fmt::format("{}: an object expected", key));
    for (const char* type_key : {"rope_type", "type"})
      if (const Json* type = find_value(*rope, type_key); type != nullptr && *type != Json("default"))
        refuse(where, fmt::format("{}: rope type {}", key, printable(type->dump())));
    if (const Json* part = find_value(*rope, "partial_rotary_factor"); part != nullptr && *part != Json(1.0))
      refuse(where, "partial_rotary_factor " + printable(part->dump()));
  }
  if (const Json* part = find_value(json, "partial_rotary_factor"); part != nullptr && *part != Json(1.0))
    refuse(where, "partial_rotary_factor " + printable(part->dump()));
}

double read_rope_theta(const Json& json, const std::string& where) {
  constexpr double kDefault = 10000.0;
  const Json* rope = find_value(json, "rope_parameters");
  if (rope == nullptr || find_value(*rope, "rope_theta") == nullptr) return number_or(json, "rope_theta", kDefault, where);
  const double theta = number_at(*rope, "rope_theta", where);
  const double old_theta = number_or(json, "rope_theta", theta, where);
  if (theta != old_theta)
    throw UserError::bad_file(where, fmt::format("rope_theta {} and rope_parameters.rope_theta {} contradict each other", old_theta, theta));
  return theta;
}

struct FileEntry {
  fs::path path;
  SafetensorsEntry entry;
};
using Entries = std::map<std::string, FileEntry>;

/// All tensors of model.safetensors, or of the files an index names: each tensor exactly once, in the file that the index says.
Entries read_entries(const fs::path& folder) {
  Entries entries;
  const fs::path index_path = folder / "model.safetensors.index.json";
  std::error_code error;
  if (!fs::exists(index_path, error)) {
    const fs::path path = folder / "model.safetensors";
    for (SafetensorsEntry& entry : read_safetensors_header(path)) entries.emplace(entry.name, FileEntry{path, entry});
    return entries;
  }
  const std::string where = index_path.string();
  const Json index = read_json(index_path);
  std::map<std::string, std::string> file_of;
  std::set<std::string> files;
  for (const auto& [tensor, file] : object_at(index, "weight_map", where).items()) {
    if (!file.is_string()) throw UserError::bad_file(where, fmt::format("weight_map: '{}' maps to no name", printable(tensor)));
    const std::string name = file.get<std::string>();
    check_leaf_name(name, where);  // all of them before any is opened
    file_of[tensor] = name;
    files.insert(name);
  }
  uint64_t total = 0;
  for (const std::string& file : files) {
    const fs::path path = folder / file;
    for (SafetensorsEntry& entry : read_safetensors_header(path)) {
      const auto mapped = file_of.find(entry.name);
      if (mapped == file_of.end() || mapped->second != file)
        throw UserError::bad_file(path.string(), fmt::format("tensor '{}' is not what the index says", printable(entry.name)));
      total += entry.end - entry.begin;
      entries.emplace(entry.name, FileEntry{path, entry});
    }
  }
  for (const auto& [tensor, file] : file_of)
    if (!entries.contains(tensor)) throw UserError::bad_file(where, fmt::format("tensor '{}' is not in '{}'", printable(tensor), printable(file)));
  if (const Json* metadata = find_value(index, "metadata"); metadata != nullptr && metadata->is_object() && metadata->contains("total_size")) {
    const uint64_t expected = unsigned_at(*metadata, "total_size", where);
    if (expected != total) throw UserError::bad_file(where, fmt::format("total_size {}, the files hold {} bytes of tensors", expected, total));
  }
  return entries;
}

/// Every expected tensor with its shape and a type that is read, none left over but a copy of a tied head.
void check_entries(const Entries& entries, const std::vector<Parameter>& table, const ModelConfig& config, const fs::path& folder) {
  std::set<std::string> left;
  for (const auto& [name, entry] : entries) left.insert(name);
  for (const Parameter& parameter : table) {
    const auto found = entries.find(parameter.hf_name);
    if (found == entries.end())
      throw UserError::bad_file(folder.string(), fmt::format("tensor {} is missing, expected {}", parameter.hf_name, shape_text(parameter.shape)));
    if (found->second.entry.shape != parameter.shape)
      throw UserError::bad_file(found->second.path.string(), fmt::format("tensor {}: got {}, expected {}", parameter.hf_name,
                                                                         shape_text(found->second.entry.shape), shape_text(parameter.shape)));
    if (const std::string& dtype = found->second.entry.dtype; dtype != "F32" && dtype != "BF16" && dtype != "F16")
      throw UserError::bad_file(found->second.path.string(), fmt::format("tensor {} is {}, only F32, BF16 and F16 are read", parameter.hf_name, dtype));
    left.erase(parameter.hf_name);
  }
  if (config.tie_word_embeddings) left.erase("lm_head.weight");
  if (!left.empty())
    throw UserError::bad_file(folder.string(), fmt::format("tensor '{}' is not expected ({} additional)", printable(*left.begin()), left.size()));
}

void check_tied_head(const Entries& entries, const fs::path& folder) {
  const auto head = entries.find("lm_head.weight");
  if (head == entries.end()) return;
  const auto& embedding = entries.at("model.embed_tokens.weight");
  const bool equal = head->second.entry.shape == embedding.entry.shape &&
                     at::equal(read_safetensors_tensor(head->second.path, head->second.entry), read_safetensors_tensor(embedding.path, embedding.entry));
  if (!equal) throw UserError::bad_file(folder.string(), "tie_word_embeddings is set, yet lm_head.weight differs from model.embed_tokens.weight");
}

/// The first rows and columns of every tensor, as many as `config` has.
Model cut_to(const ModelConfig& config, const Model& larger, const std::function<void(const Parameter&, const at::Tensor& cut, int64_t size)>& check_cut) {
  Model model = make_model(config);
  for (const Parameter& parameter : parameter_table(config)) {
    at::Tensor kept = larger.arena->parameter(parameter.name);
    for (size_t axis = 0; axis < parameter.shape.size(); ++axis) {
      const auto dim = static_cast<int64_t>(axis);
      const int64_t size = parameter.shape[axis], extra = kept.size(dim) - size;
      if (extra > 0) check_cut(parameter, kept.narrow(dim, size, extra), size);
      kept = kept.narrow(dim, 0, size);
    }
    model.arena->parameter(parameter.name).copy_(kept);
  }
  return model;
}

/// Cuts every layer to its true width; the channels cut must be zero.
Model without_padding(const Model& padded, const std::vector<int64_t>& widths, const std::string& where) {
  ModelConfig config = padded.config;
  config.intermediate_size = widths;
  check_config(config, where, /*from_file=*/true);
  return cut_to(config, padded, [&](const Parameter& parameter, const at::Tensor& cut, int64_t size) {
    if (cut.count_nonzero().item<int64_t>() != 0)
      throw UserError::bad_file(where, fmt::format("coppice_intermediate_sizes: {} is not zero beyond channel {}", parameter.hf_name, size));
  });
}

}  // namespace

HfConfig read_hf_config(const fs::path& folder) {
  const fs::path path = folder / "config.json";
  const std::string where = path.string();
  const Json json = read_json(path);
  if (!json.is_object()) throw UserError::bad_file(where, "no JSON object");
  HfConfig hf;
  ModelConfig& config = hf.config;
  config.qk_norm = has_qk_norm(json, where);
  refuse_unsupported(json, where);
  config.vocab_size = size_at(json, "vocab_size", where);
  config.hidden_size = size_at(json, "hidden_size", where);
  config.num_hidden_layers = size_at(json, "num_hidden_layers", where, kMaxLayers);
  config.num_attention_heads = size_at(json, "num_attention_heads", where);
  config.num_key_value_heads = size_or(json, "num_key_value_heads", config.num_attention_heads, where);
  // Defaults of the two families where a key is absent: Qwen3 fixes 128, Llama divides.
  config.head_dim = size_or(json, "head_dim", config.qk_norm ? 128 : config.hidden_size / config.num_attention_heads, where);
  config.max_position_embeddings = size_or(json, "max_position_embeddings", config.qk_norm ? 32768 : 2048, where);
  config.rms_norm_eps = number_or(json, "rms_norm_eps", 1e-6, where);
  config.rope_theta = read_rope_theta(json, where);
  config.tie_word_embeddings = is_true(json, "tie_word_embeddings");
  const int64_t width = size_at(json, "intermediate_size", where);
  config.intermediate_size.assign(static_cast<size_t>(config.num_hidden_layers), width);
  check_config(config, where, /*from_file=*/true);
  if (json.contains("coppice_intermediate_sizes")) {
    const Json& sizes = array_at(json, "coppice_intermediate_sizes", where);
    const bool fits = sizes.size() == config.intermediate_size.size() &&
                      std::ranges::all_of(sizes, [&](const Json& size) { return size.is_number_unsigned() && size > 0 && size <= width; });
    if (!fits) throw UserError::bad_file(where, fmt::format("coppice_intermediate_sizes: {} numbers of 1..{} expected", config.num_hidden_layers, width));
    hf.intermediate_sizes = sizes.get<std::vector<int64_t>>();
  }
  return hf;
}

Model read_hf_model(const fs::path& folder, const HfConfig& hf) {
  const Entries entries = read_entries(folder);
  const std::vector<Parameter> table = parameter_table(hf.config);
  check_entries(entries, table, hf.config, folder);  // before anything of the model's size is allocated
  c10::NoGradGuard no_grad;
  if (hf.config.tie_word_embeddings) check_tied_head(entries, folder);
  Model model = make_model(hf.config);
  for (const Parameter& parameter : table) {
    const FileEntry& file = entries.at(parameter.hf_name);
    const at::Tensor values = read_safetensors_tensor(file.path, file.entry);
    if (!at::isfinite(values).all().item<bool>())
      throw UserError::bad_file(file.path.string(), "tensor " + parameter.hf_name + " holds values that are not finite");
    model.arena->parameter(parameter.name).copy_(values);
  }
  return model;
}

Model import_hf(const fs::path& folder) {
  const HfConfig hf = read_hf_config(folder);
  Model model = read_hf_model(folder, hf);
  if (hf.intermediate_sizes.empty()) return model;
  c10::NoGradGuard no_grad;
  return without_padding(model, hf.intermediate_sizes, (folder / "config.json").string());
}

void check_hf_files(const fs::path& folder) {
  const HfConfig hf = read_hf_config(folder);
  check_entries(read_entries(folder), parameter_table(hf.config), hf.config, folder);
}

std::string hf_folder_sha256(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name == "config.json" || name == "tokenizer.model" || name == "model.safetensors.index.json" || name.ends_with(".safetensors"))
      files.push_back(entry.path());
  }
  std::ranges::sort(files);
  Sha256 hash;
  for (const fs::path& file : files) hash.update(file.filename().string() + "\n" + sha256_file(file) + "\n");
  return hash.hex();
}

ModelConfig import_hf_config(const fs::path& folder) {
  HfConfig hf = read_hf_config(folder);
  if (!hf.intermediate_sizes.empty()) hf.config.intermediate_size = hf.intermediate_sizes;
  return hf.config;
}

std::optional<int64_t> padded_rows(int64_t rows, int64_t vocab_size) {
  constexpr int64_t kMaxPadding = 1024, kMultiple = 64;
  const int64_t surplus = rows - vocab_size;
  if (surplus == 0) return 0;
  if (surplus < 0 || surplus >= kMaxPadding || rows % kMultiple != 0) return std::nullopt;
  return surplus;
}

Model without_padded_rows(const Model& model, int64_t vocab_size) {
  const c10::NoGradGuard no_grad;
  ModelConfig config = model.config;
  config.vocab_size = vocab_size;
  return cut_to(config, model, [](const Parameter&, const at::Tensor&, int64_t) {});
}

}  // namespace coppice
