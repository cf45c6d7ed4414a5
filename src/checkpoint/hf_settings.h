// What a Hugging Face folder says beside weights and ids: which ids end a text, how text is generated, how a chat is
// written, whether BOS opens a text. Nothing of it changes a logit; an import keeps it beside the model, and an export
// of whatever descends from that model writes it again.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "src/base/json.h"
#include "src/tokens/tokenizer.h"

namespace coppice {

struct HfSettings {
  Json config_ids = Json::object();  // of config.json: bos_token_id, eos_token_id (a number or a list), pad_token_id
  Json generation = Json::object();  // generation_config.json, its own ids among it
  Json special_tokens = Json::object();  // of tokenizer_config.json: bos_token, eos_token, pad_token, unk_token as text
  Json chat_template = nullptr;          // null, a text, or a list of {"name", "template"}
  bool template_file = false;            // it stood in chat_template.jinja
  std::optional<bool> add_bos = {};      // BOS before every text; nothing = the folder does not say
  bool split_special_tokens = true;      // "<s>" in a text is text

  /// A few words for a log: "end-of-text ids [2,3], chat template"; empty when there is nothing to say.
  std::string summary() const;
  bool operator==(const HfSettings&) const = default;
};

struct ReadSettings {
  HfSettings settings;
  std::vector<std::string> left_behind;  // a line for each thing that cannot travel, and why
};
/// Settings of a folder as far as a model with this tokenizer can have them: ids and tokens that it has no piece for
/// stay behind. A file that cannot be read or is malformed stays behind as a whole: none of this is worth refusing a
/// model for.
ReadSettings read_hf_settings(const std::filesystem::path& folder, const Tokenizer& tokenizer);

/// Texts that the folder adds to its tokenizer.model ("<|im_start|>"), whose rows of the vocabulary table are cut with
/// the padding.
std::vector<std::string> added_tokens(const std::filesystem::path& folder, const Tokenizer& tokenizer);

/// One sealed file, and back. UserError::bad_file when it is damaged.
void save_hf_settings(const std::filesystem::path& file, const HfSettings& settings);
HfSettings load_hf_settings(const std::filesystem::path& file);
/// Its name beside an imported model.
inline constexpr const char* kHfSettingsFile = "hf_settings.json";

}  // namespace coppice
