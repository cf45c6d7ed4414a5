#include "src/checkpoint/gguf_export_metadata.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "src/base/errors.h"
#include "src/checkpoint/gguf_config.h"

namespace coppice {
namespace {

constexpr uint32_t kQuantizationVersion = 2, kAlignment = 32;
constexpr int32_t kUnused = static_cast<int32_t>(PieceType::unused);
constexpr float kUnusedScore = -1000.0F;

void add_text(GgufWriter& writer, const std::string& key, const std::string& text) {
  if (!text.empty()) writer.add(key, std::string_view(text));
}

void add_references(GgufWriter& writer, const std::string& kind, const std::vector<GgufReference>& references) {
  if (references.empty()) return;
  writer.add(fmt::format("general.{}.count", kind), static_cast<uint32_t>(references.size()));
  for (size_t i = 0; i < references.size(); ++i) {
    const std::string key = fmt::format("general.{}.{}.", kind, i);
    add_text(writer, key + "name", references[i].name);
    add_text(writer, key + "version", references[i].version);
    add_text(writer, key + "organization", references[i].organization);
    add_text(writer, key + "repo_url", references[i].repo_url);
  }
}

void add_general(GgufWriter& writer, const std::string& architecture, const GgufExported& exported) {
  const GgufGeneral& general = exported.options.general;
  writer.add("general.architecture", std::string_view(architecture));
  writer.add("general.type", std::string_view("model"));
  add_text(writer, "general.name", general.name);
  add_text(writer, "general.basename", general.basename);
  add_text(writer, "general.size_label", general.size_label);
  add_text(writer, "general.license", general.license);
  add_text(writer, "general.license.name", general.license_name);
  add_text(writer, "general.license.link", general.license_link);
  add_references(writer, "base_model", general.base_models);
  add_references(writer, "dataset", general.datasets);
  writer.add("general.file_type", exported.file_type);
  writer.add("general.quantization_version", kQuantizationVersion);
  writer.add("general.alignment", kAlignment);
}

void add_shape(GgufWriter& writer, const std::string& architecture, const GgufExported& exported) {
  const ModelConfig& config = exported.config;
  const auto size = [&](const char* key, int64_t value) {
    writer.add(architecture + "." + key, static_cast<uint32_t>(value));
  };
  const auto number = [&](const char* key, double value) {
    writer.add(architecture + "." + key, static_cast<float>(value));
  };
  size("vocab_size", config.vocab_size);
  size("context_length", config.max_position_embeddings);
  size("embedding_length", config.hidden_size);
  size("block_count", config.num_hidden_layers);
  size("feed_forward_length", exported.width);
  size("attention.head_count", config.num_attention_heads);
  size("attention.head_count_kv", config.num_key_value_heads);
  size("attention.key_length", config.head_dim);  // always: absent it is embedding_length / head_count
  size("attention.value_length", config.head_dim);
  number("attention.layer_norm_rms_epsilon", config.rms_norm_eps);
  size("rope.dimension_count", config.head_dim);
  number("rope.freq_base", config.rope_theta);
  const std::vector<uint32_t> widths(config.intermediate_size.begin(), config.intermediate_size.end());
  if (std::ranges::any_of(config.intermediate_size, [&](int64_t width) { return width != exported.width; }))
    writer.add(kTrueWidths, std::span<const uint32_t>(widths));
  add_text(writer, "coppice.source_sha256", exported.options.source_sha256);
  add_text(writer, "coppice.version", exported.options.version);
}

/// llama.cpp wants a token for every row of the vocabulary tables: unused ones, whose names no other has.
void pad_tokens(GgufVocabulary& vocabulary, size_t rows) {
  if (vocabulary.tokens.size() == rows) return;
  if (vocabulary.token_types.empty())
    vocabulary.token_types.assign(vocabulary.tokens.size(), static_cast<int32_t>(PieceType::normal));
  const std::unordered_set<std::string> names(vocabulary.tokens.begin(), vocabulary.tokens.end());
  for (size_t id = vocabulary.tokens.size(); id < rows; ++id) {
    std::string name = fmt::format("[PAD{}]", id);
    while (names.contains(name)) name += "_";
    vocabulary.tokens.push_back(name);
    vocabulary.token_types.push_back(kUnused);
    if (!vocabulary.scores.empty()) vocabulary.scores.push_back(kUnusedScore);
  }
}

/// The id, or those of a list, that settings give a key.
std::vector<int64_t> ids_of(const HfSettings& settings, const char* key) {
  const auto found = settings.config_ids.find(key);
  if (found == settings.config_ids.end()) return {};
  std::vector<int64_t> ids;
  for (const Json& id : found->is_array() ? *found : Json::array({*found}))
    if (id.is_number_integer() && id >= 0) ids.push_back(id.get<int64_t>());
  return ids;
}

/// One text, or several of which "default" goes under the key that every program reads.
void add_chat_templates(GgufWriter& writer, const Json& chat_template) {
  if (chat_template.is_string()) return add_text(writer, "tokenizer.chat_template", chat_template.get<std::string>());
  std::vector<std::string> names;
  for (const Json& one : chat_template) {
    std::string name = one.value("name", "");
    const std::string text = one.value("template", "");
    std::ranges::replace_if(
        name, [](unsigned char c) { return std::isalnum(c) == 0; }, '_');
    if (name == "default") {
      add_text(writer, "tokenizer.chat_template", text);
    } else if (std::ranges::find(names, name) == names.end() && !text.empty()) {
      add_text(writer, "tokenizer.chat_template." + name, text);
      names.push_back(name);
    }
  }
  if (!names.empty()) writer.add("tokenizer.chat_templates", std::span<const std::string>(names));
}

void add_tokenizer(GgufWriter& writer, const GgufExported& exported) {
  const HfSettings settings = exported.options.settings == nullptr ? HfSettings() : *exported.options.settings;
  const bool add_bos = adds_bos(exported.options);
  GgufVocabulary vocabulary = gguf_vocabulary(exported.tokenizer, add_bos, "tokenizer");
  pad_tokens(vocabulary, static_cast<size_t>(exported.config.vocab_size));
  const auto key = [](const char* name) { return std::string("tokenizer.ggml.") + name; };
  writer.add(key("model"), std::string_view(vocabulary.model));
  writer.add(key("pre"), std::string_view(vocabulary.pre));
  writer.add(key("tokens"), std::span<const std::string>(vocabulary.tokens));
  if (!vocabulary.scores.empty()) writer.add(key("scores"), std::span<const float>(vocabulary.scores));
  if (!vocabulary.token_types.empty()) writer.add(key("token_type"), std::span<const int32_t>(vocabulary.token_types));
  if (!vocabulary.merges.empty()) writer.add(key("merges"), std::span<const std::string>(vocabulary.merges));
  const auto add_id = [&](const char* name, std::optional<int64_t> id) {
    if (id) writer.add(key(name), static_cast<uint32_t>(*id));
  };
  const auto given = [&](const char* name, std::optional<int64_t> otherwise) {
    const std::vector<int64_t> ids = ids_of(settings, name);
    return ids.empty() ? otherwise : std::optional(ids.front());
  };
  const std::vector<int64_t> ends = ids_of(settings, "eos_token_id");
  add_id("bos_token_id", given("bos_token_id", vocabulary.bos_id));
  add_id("eos_token_id", given("eos_token_id", vocabulary.eos_id));
  if (ends.size() > 1) add_id("eot_token_id", ends.back());
  add_id("unknown_token_id", vocabulary.unk_id);
  add_id("padding_token_id", given("pad_token_id", vocabulary.pad_id));
  writer.add(key("add_bos_token"), add_bos);  // absent means true for some
  writer.add(key("add_eos_token"), vocabulary.add_eos.value_or(false));
  if (vocabulary.add_space_prefix) writer.add(key("add_space_prefix"), *vocabulary.add_space_prefix);
  add_chat_templates(writer, settings.chat_template);
}

}  // namespace

bool adds_bos(const GgufExportOptions& options) {
  return options.settings == nullptr ? options.add_bos : options.settings->add_bos.value_or(options.add_bos);
}

void add_gguf_metadata(GgufWriter& writer, const GgufExported& exported) {
  const std::string architecture = gguf_architecture(exported.config);
  add_general(writer, architecture, exported);
  add_shape(writer, architecture, exported);
  add_tokenizer(writer, exported);
}

}  // namespace coppice
