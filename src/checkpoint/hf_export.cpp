// Export: write `.tmp-*`, read it back, compare logits, rename. Padding: gate and up get zero rows, down zero columns,
// which is exact: silu(0) * 0 = 0.
#include "src/checkpoint/hf_export.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "src/base/errors.h"
#include "src/base/failpoint.h"
#include "src/base/files.h"
#include "src/base/log.h"
#include "src/checkpoint/export_check.h"
#include "src/checkpoint/folder_commit.h"
#include "src/checkpoint/hf_config.h"
#include "src/checkpoint/hf_import.h"
#include "src/checkpoint/hf_settings.h"
#include "src/checkpoint/model_card.h"
#include "src/checkpoint/safetensors.h"
#include "src/checkpoint/tokenizer_json.h"
#include "src/model/parameters.h"

namespace coppice {

namespace fs = std::filesystem;

namespace {

using OrderedJson = nlohmann::ordered_json;
constexpr double kMaxLogitDifference = 1e-4;

void write_text(const fs::path& path, std::string_view text) {
  OutputFile file(path, OutputFile::Mode::create);
  file.write(text);
  file.sync();
  file.close();
}

/// Zeros behind the true width along every axis with the role ffn.
at::Tensor padded(const at::Tensor& weight, const Parameter& parameter, int64_t width) {
  std::vector<int64_t> shape = parameter.shape;
  at::Tensor inner;
  for (size_t axis = 0; axis < shape.size(); ++axis)
    if (parameter.axes[axis] == Axis::ffn) shape[axis] = width;
  if (shape == parameter.shape) return weight;
  at::Tensor wide = at::zeros(shape, weight.options());
  inner = wide;
  for (size_t axis = 0; axis < shape.size(); ++axis)
    inner = inner.narrow(static_cast<int64_t>(axis), 0, parameter.shape[axis]);
  inner.copy_(weight);
  return wide;
}

struct Shard {
  std::vector<const Parameter*> parameters;
  uint64_t bytes = 0;
};

uint64_t write_weights(const fs::path& folder, const Model& model, at::ScalarType type, uint64_t shard_bytes) {
  const std::vector<Parameter> table = parameter_table(model.config);
  const int64_t width = std::ranges::max(model.config.intermediate_size);
  const auto padded_bytes = [&](const Parameter& parameter) {
    uint64_t elements = 1;
    for (size_t axis = 0; axis < parameter.shape.size(); ++axis)
      elements *= static_cast<uint64_t>(parameter.axes[axis] == Axis::ffn ? width : parameter.shape[axis]);
    return elements * c10::elementSize(type);
  };
  std::vector<Shard> shards(1);
  uint64_t total = 0;
  for (const Parameter& parameter : table) {
    const uint64_t bytes = padded_bytes(parameter);
    if (!shards.back().parameters.empty() && shards.back().bytes + bytes > shard_bytes) shards.emplace_back();
    shards.back().parameters.push_back(&parameter);
    shards.back().bytes += bytes;
    total += bytes;
  }
  const MasterReader master = model.arena->read_master();
  OrderedJson weight_map = OrderedJson::object();
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = shards.size() == 1 ? "model.safetensors"
                                                : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    std::vector<SafetensorsTensor> tensors;
    for (const Parameter* parameter : shards[i].parameters) {
      const at::Tensor weight = master[parameter->name];
      if (!at::isfinite(weight).all().item<bool>())
        throw UserError::bad_file(parameter->name, "holds values that are not finite: never exported");
      tensors.push_back({parameter->hf_name, padded(weight, *parameter, width).to(type).contiguous()});
      weight_map[parameter->hf_name] = name;
    }
    write_safetensors(folder / name, tensors);
  }
  if (shards.size() > 1)
    write_text(folder / "model.safetensors.index.json",
               OrderedJson{{"metadata", {{"total_size", total}}}, {"weight_map", weight_map}}.dump(2) + "\n");
  return total;
}

/// null for what the tokenizer lacks: an absent key would mean the reader's own default.
OrderedJson id_json(std::optional<int64_t> id) { return id ? OrderedJson(*id) : OrderedJson(); }

/// What the imported folder said instead of what follows from the tokenizer.
void overlay(OrderedJson& json, const Json& given) {
  for (const auto& [key, value] : given.items()) json[key] = value;
}

std::string tokenizer_config_json(const Tokenizer& tokenizer, const ModelConfig& config, bool add_bos,
                                  const HfSettings& settings) {
  const auto text = [&](std::optional<int64_t> id) {
    return id ? OrderedJson(tokenizer.pieces()[static_cast<size_t>(*id)].text) : OrderedJson();
  };
  OrderedJson json;
  json["tokenizer_class"] = "PreTrainedTokenizerFast";
  json["bos_token"] = text(tokenizer.bos_id());
  json["eos_token"] = text(tokenizer.eos_id());
  json["unk_token"] = text(tokenizer.unk_id());
  json["pad_token"] = text(tokenizer.pad_id());
  if (!tokenizer.is_byte_level() || add_bos) json["add_bos_token"] = add_bos;
  json["clean_up_tokenization_spaces"] = false;
  json["split_special_tokens"] =
      settings.split_special_tokens;  // true: a literal "<s>" in text stays text, as in training
  json["model_max_length"] = config.max_position_embeddings;
  overlay(json, settings.special_tokens);
  if (!settings.chat_template.is_null()) json["chat_template"] = settings.chat_template;
  return json.dump(2) + "\n";
}

std::string generation_config_json(const Tokenizer& tokenizer, const HfSettings& settings) {
  OrderedJson json{{"bos_token_id", id_json(tokenizer.bos_id())},
                   {"eos_token_id", tokenizer.eos_id()},
                   {"pad_token_id", id_json(tokenizer.pad_id())}};
  overlay(json, settings.config_ids);
  overlay(json, settings.generation);
  return json.dump(2) + "\n";
}

/// The weights as a file of that type holds them: bf16 rounds each once.
Model rounded_copy(const Model& model, at::ScalarType type) {
  Model copy = make_model(model.config);
  c10::NoGradGuard no_grad;
  const MasterReader from = model.arena->read_master();
  const MasterEditor into = copy.arena->edit_master();
  for (const ArenaEntry& entry : model.arena->layout().entries)
    into[entry.name].copy_(from[entry.name].to(type).to(at::kFloat));
  return copy;
}

uint64_t folder_bytes(const fs::path& folder) {
  uint64_t bytes = 0;
  for (const auto& entry : fs::directory_iterator(folder)) bytes += entry.file_size();
  return bytes;
}

/// The numbers of a scaled RoPE, empty without one.
OrderedJson scaling_json(const std::optional<RopeScaling>& scaling) {
  if (!scaling) return OrderedJson::object();
  return {{"factor", scaling->factor},
          {"low_freq_factor", scaling->low_freq_factor},
          {"high_freq_factor", scaling->high_freq_factor},
          {"original_max_position_embeddings", scaling->original_max_position_embeddings}};
}

}  // namespace

std::string hf_config_json(const ModelConfig& config, const Tokenizer& tokenizer, const std::string& torch_dtype,
                           const HfSettings& settings) {
  const int64_t width = std::ranges::max(config.intermediate_size);
  const std::string family = config.qk_norm ? "Qwen3" : config.qkv_bias ? "Qwen2" : "Llama";
  OrderedJson json;
  json["architectures"] = OrderedJson::array({family + "ForCausalLM"});
  json["model_type"] = config.qk_norm ? "qwen3" : config.qkv_bias ? "qwen2" : "llama";
  json["vocab_size"] = config.vocab_size;
  json["hidden_size"] = config.hidden_size;
  json["intermediate_size"] = width;
  json["num_hidden_layers"] = config.num_hidden_layers;
  json["num_attention_heads"] = config.num_attention_heads;
  json["num_key_value_heads"] = config.num_key_value_heads;
  json["head_dim"] = config.head_dim;
  json["hidden_act"] = "silu";
  json["max_position_embeddings"] = config.max_position_embeddings;
  json["initializer_range"] = 0.02;
  json["rms_norm_eps"] = config.rms_norm_eps;
  json["use_cache"] = true;
  json["tie_word_embeddings"] = config.tie_word_embeddings;
  if (!config.qkv_bias) json["attention_bias"] = false;  // Qwen2 has no such switch
  json["attention_dropout"] = 0.0;
  if (config.qk_norm || config.qkv_bias) {
    json["use_sliding_window"] = false;
    json["sliding_window"] = nullptr;
    json["max_window_layers"] = config.num_hidden_layers;
  } else {
    json["mlp_bias"] = false;
  }
  json["rope_theta"] = config.rope_theta;  // transformers 4 reads these two, transformers 5 the next one
  const char* rope_type = config.rope_scaling ? "llama3" : "default";
  json["rope_scaling"] = nullptr;
  if (config.rope_scaling) {
    json["rope_scaling"] = {{"rope_type", rope_type}};
    json["rope_scaling"].update(scaling_json(config.rope_scaling));
  }
  json["rope_parameters"] = {{"rope_type", rope_type}, {"rope_theta", config.rope_theta}};
  json["rope_parameters"].update(scaling_json(config.rope_scaling));
  json["bos_token_id"] = id_json(tokenizer.bos_id());
  json["eos_token_id"] = tokenizer.eos_id();
  json["pad_token_id"] = id_json(tokenizer.pad_id());
  overlay(json, settings.config_ids);
  json["torch_dtype"] = torch_dtype;
  json["dtype"] = torch_dtype;
  if (std::ranges::any_of(config.intermediate_size, [&](int64_t size) { return size != width; }))
    json["coppice_intermediate_sizes"] = config.intermediate_size;
  return json.dump(2) + "\n";
}

HfExportReport export_hf(const fs::path& folder, const Model& model, const Tokenizer& tokenizer,
                         const std::string& dtype, const HfExportOptions& options) {
  if (dtype != "f32" && dtype != "bf16")
    throw UserError::recipe("dtype", fmt::format("got '{}', expected 'f32' or 'bf16'", printable(dtype)));
  if (tokenizer.vocab_size() > model.config.vocab_size)
    throw UserError::recipe("tokenizer", fmt::format("{} pieces, but the model's vocabulary has {}",
                                                     tokenizer.vocab_size(), model.config.vocab_size));
  if (model.config.qk_norm && model.config.qkv_bias)
    throw UserError::recipe("model",
                            "biases of q, k and v beside QK-norm: no architecture of transformers has the two");
  check_exportable(tokenizer, "tokenizer", options.add_bos);
  const at::ScalarType type = dtype == "f32" ? at::kFloat : at::kBFloat16;
  c10::NoGradGuard no_grad;
  const HfSettings settings = options.settings == nullptr ? HfSettings() : *options.settings;
  const bool add_bos = settings.add_bos.value_or(tokenizer.is_byte_level() ? tokenizer.adds_bos() : options.add_bos);
  const fs::path temporary = start_temporary_folder(folder);
  try {
    write_weights(temporary, model, type, options.shard_bytes);
    write_text(temporary / "config.json",
               hf_config_json(model.config, tokenizer, type == at::kFloat ? "float32" : "bfloat16", settings));
    write_text(temporary / "generation_config.json", generation_config_json(tokenizer, settings));
    write_text(temporary / "tokenizer.json", tokenizer_json(tokenizer, add_bos));
    write_text(temporary / "tokenizer_config.json", tokenizer_config_json(tokenizer, model.config, add_bos, settings));
    if (settings.template_file)
      write_text(temporary / "chat_template.jinja", settings.chat_template.get<std::string>());
    if (!options.model_card.empty()) write_text(temporary / kModelCardFile, options.model_card);
    if (!tokenizer.is_byte_level()) write_text(temporary / tokenizer.file_name(), tokenizer.model_bytes());

    // Read back with the padding in place: that is what other programs will compute with.
    const HfConfig hf = read_hf_config(temporary);
    const Model theirs = read_hf_model(temporary, hf, hf.config);
    HfExportReport report{.bytes = folder_bytes(temporary)};
    report.max_logit_difference = type == at::kFloat
                                      ? max_logit_difference(model, theirs, tokenizer)
                                      : max_logit_difference(rounded_copy(model, type), theirs, tokenizer);
    if (COPPICE_FAILPOINT("export.logits")) report.max_logit_difference = NAN;
    log_info(fmt::format("export {}: re-imported logits differ from ours by at most {:.3g} (bar {:.0e})",
                         folder.filename().string(), report.max_logit_difference, kMaxLogitDifference));
    if (!(report.max_logit_difference <= kMaxLogitDifference))
      throw InternalError(fmt::format(
          "exported weights give other logits: difference {:.3g}, at most {:.0e} allowed; nothing was put in place",
          report.max_logit_difference, kMaxLogitDifference));
    commit_folder(temporary, folder);
    return report;
  } catch (...) {
    discard_folder(temporary);
    throw;
  }
}

}  // namespace coppice
