// Files read: config.json, generation_config.json, tokenizer_config.json, chat_template.jinja, and of tokenizer.json
// whether its post-processor puts BOS first. Which rules which: transformers' tokenization_utils_base.py (a template
// file before the one in tokenizer_config.json).
#include "src/checkpoint/hf_settings.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "src/base/errors.h"
#include "src/base/files.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFormat = "coppice.hf_settings";
constexpr uint64_t kMaxBytes = uint64_t{1} << 20;       // of a file with settings
constexpr uint64_t kMaxTokenizer = uint64_t{64} << 20;  // of tokenizer.json
constexpr const char* kTokenNames[] = {"bos_token", "eos_token", "unk_token", "pad_token"};

class Reader {
 public:
  Reader(const fs::path& folder, const Tokenizer& tokenizer) : folder_(folder), tokenizer_(tokenizer) {}

  /// The object in a file; an empty one when there is none, or none that can be read, which is said.
  Json object_in(const char* name, uint64_t max_bytes = kMaxBytes) {
    std::error_code error;
    if (!fs::exists(folder_ / name, error)) return Json::object();
    try {
      Json json = read_json(folder_ / name, max_bytes);
      if (json.is_object()) return json;
      leave(fmt::format("{} is no JSON object", name));
    } catch (const Error& cause) {
      leave(cause.what());
    }
    return Json::object();
  }

  /// An id or a list of ids without those that the tokenizer has no piece for; null when nothing is left.
  Json ids_of(const char* file, const std::string& key, const Json& value) {
    const auto has = [&](const Json& id) {
      return id.is_number_unsigned() && id.get<uint64_t>() < static_cast<uint64_t>(tokenizer_.vocab_size());
    };
    const auto say = [&](const Json& id) {
      leave(
          fmt::format("{} of {} in {}: the tokenizer has {} ids", short_text(id), key, file, tokenizer_.vocab_size()));
    };
    if (value.is_null()) return nullptr;
    if (!value.is_array()) {
      if (has(value)) return value;
      say(value);
      return nullptr;
    }
    Json kept = Json::array();
    for (const Json& id : value) has(id) ? kept.push_back(id) : say(id);
    return kept.empty() ? Json() : kept;
  }

  /// The text of a token, given as such or as {"content": text, ...}; null when it is no piece.
  Json token_of(const char* key, const Json& value) {
    const Json text = value.is_object() ? value.value("content", Json()) : value;
    if (text.is_null()) return nullptr;
    const auto is_piece = [&](const Piece& piece) { return text == Json(piece.text); };
    if (text.is_string() && std::ranges::any_of(tokenizer_.pieces(), is_piece)) return text;
    leave(fmt::format("{} {}: no piece of {}", key, short_text(text), tokenizer_.file_name()));
    return nullptr;
  }

  int64_t vocab_size() const { return tokenizer_.vocab_size(); }
  const std::string& tokenizer_file() const { return tokenizer_.file_name(); }

  void leave(const std::string& line) { left_behind_.push_back(line); }
  std::vector<std::string> take_left_behind() { return std::move(left_behind_); }

  static std::string short_text(const Json& value) {
    const std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
    return printable(text.size() <= 80 ? text : text.substr(0, 80) + "...");
  }

 private:
  fs::path folder_;
  const Tokenizer& tokenizer_;
  std::vector<std::string> left_behind_;
};

/// The largest whole number anywhere in a value; -1 without one.
int64_t largest_number(const Json& value) {
  if (value.is_number_unsigned())
    return static_cast<int64_t>(std::min(value.get<uint64_t>(), uint64_t{std::numeric_limits<int64_t>::max()}));
  int64_t largest = -1;
  if (value.is_structured())
    for (const Json& part : value) largest = std::max(largest, largest_number(part));
  return largest;
}

Json read_generation(Reader& reader) {
  Json generation = reader.object_in("generation_config.json");
  for (const char* key : {"transformers_version", "_from_model_config"})
    generation.erase(key);  // of the program that wrote it
  for (const char* key : {"suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "force_words_ids",
                          "forced_decoder_ids", "sequence_bias"})
    if (generation.contains(key) && largest_number(generation[key]) >= reader.vocab_size()) {
      reader.leave(fmt::format("generation_config.json {}: holds ids beyond {}", key, reader.tokenizer_file()));
      generation.erase(key);
    }
  for (auto next = generation.begin(); next != generation.end();) {
    const bool is_id = next.key().ends_with("token_id") && !next->is_null();
    if (is_id) *next = reader.ids_of("generation_config.json", next.key(), *next);
    next = is_id && next->is_null() ? generation.erase(next) : std::next(next);
  }
  return generation;
}

bool is_template_list(const Json& value) {
  const auto is_template = [](const Json& one) {
    return one.is_object() && one.contains("name") && one["name"].is_string() && one.contains("template") &&
           one["template"].is_string();
  };
  return value.is_array() && !value.empty() && std::ranges::all_of(value, is_template);
}

void read_template(const fs::path& folder, const Json& tokenizer_config, Reader& reader, HfSettings& settings) {
  std::error_code error;
  const fs::path file = folder / "chat_template.jinja";
  if (fs::exists(file, error)) {
    try {
      settings.chat_template = read_file(file, kMaxBytes);
      (void)settings.chat_template.dump();  // throws unless it is UTF-8
      settings.template_file = true;
      return;
    } catch (const std::exception& cause) {
      settings.chat_template = nullptr;
      reader.leave(fmt::format("chat_template.jinja: {}", printable(cause.what())));
    }
  }
  const Json given = tokenizer_config.value("chat_template", Json());
  if (given.is_string() || is_template_list(given))
    settings.chat_template = given;
  else if (!given.is_null())
    reader.leave("chat_template of tokenizer_config.json: neither a text nor a list of names and templates");
}

/// The key itself, else tokenizer.json's post-processor, else what LlamaTokenizer does.
std::optional<bool> read_add_bos(const fs::path& folder, const Json& tokenizer_config, const Tokenizer& tokenizer,
                                 Reader& reader) {
  if (const Json given = tokenizer_config.value("add_bos_token", Json()); given.is_boolean()) return given.get<bool>();
  if (tokenizer.is_byte_level()) return tokenizer.adds_bos();
  std::error_code error;
  if (fs::exists(folder / "tokenizer.json", error)) {
    const Json processor = reader.object_in("tokenizer.json", kMaxTokenizer).value("post_processor", Json());
    if (!processor.is_object()) return false;
    const Json single = processor.value("single", Json());
    return single.is_array() && !single.empty() && single[0].is_object() && single[0].contains("SpecialToken");
  }
  const Json name = tokenizer_config.value("tokenizer_class", Json());
  if (name == Json("LlamaTokenizer") || name == Json("LlamaTokenizerFast")) return true;
  return std::nullopt;
}

}  // namespace

std::string HfSettings::summary() const {
  std::vector<std::string> parts;
  const Json eos =
      generation.contains("eos_token_id") ? generation["eos_token_id"] : config_ids.value("eos_token_id", Json());
  if (!eos.is_null()) parts.push_back(fmt::format("end-of-text ids {}", eos.dump()));
  if (!generation.empty()) parts.push_back("generation settings");
  if (!chat_template.is_null()) parts.push_back("chat template");
  if (add_bos) parts.push_back(fmt::format("add_bos_token = {}", *add_bos));
  std::string text;
  for (const std::string& part : parts) text += (text.empty() ? "" : ", ") + part;
  return text;
}

ReadSettings read_hf_settings(const fs::path& folder, const Tokenizer& tokenizer) {
  Reader reader(folder, tokenizer);
  HfSettings settings;
  const Json config = reader.object_in("config.json", kMaxTokenizer),
             tokenizer_config = reader.object_in("tokenizer_config.json", kMaxTokenizer);
  for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id"})
    if (const Json ids = reader.ids_of("config.json", key, config.value(key, Json())); !ids.is_null())
      settings.config_ids[key] = ids;
  settings.generation = read_generation(reader);
  for (const char* key : kTokenNames)
    if (const Json text = reader.token_of(key, tokenizer_config.value(key, Json())); !text.is_null())
      settings.special_tokens[key] = text;
  read_template(folder, tokenizer_config, reader, settings);
  settings.add_bos = read_add_bos(folder, tokenizer_config, tokenizer, reader);
  if (settings.add_bos == true && tokenizer.bos_id() < 0) {
    reader.leave("add_bos_token: the tokenizer has no BOS piece");
    settings.add_bos = false;
  }
  if (tokenizer_config.value("add_eos_token", Json()) == Json(true))
    reader.leave("add_eos_token: an export's tokenizer puts no EOS behind a text");
  // A template writes control pieces as text: they must be found again in it.
  const Json split = tokenizer_config.value("split_special_tokens", Json());
  settings.split_special_tokens = split.is_boolean() ? split.get<bool>() : settings.chat_template.is_null();
  return {.settings = std::move(settings), .left_behind = reader.take_left_behind()};
}

std::vector<std::string> added_tokens(const fs::path& folder, const Tokenizer& tokenizer) {
  Reader reader(folder, tokenizer);
  std::vector<std::string> texts;
  const auto add = [&](const std::string& text, const Json& id) {
    if (id.is_number_unsigned() && id.get<uint64_t>() >= static_cast<uint64_t>(tokenizer.vocab_size()) &&
        std::ranges::find(texts, text) == texts.end())
      texts.push_back(text);
  };
  const Json added = reader.object_in("added_tokens.json"),
             config = reader.object_in("tokenizer_config.json", kMaxTokenizer);
  for (const auto& [text, id] : added.items()) add(text, id);
  const Json decoder = config.value("added_tokens_decoder", Json::object());
  if (!decoder.is_object()) return texts;
  for (const auto& [id, token] : decoder.items()) {
    const bool number =
        !id.empty() && id.size() < 10 && std::ranges::all_of(id, [](char c) { return c >= '0' && c <= '9'; });
    if (number && token.is_object() && token.contains("content") && token["content"].is_string())
      add(token["content"].get<std::string>(), static_cast<uint64_t>(std::stoul(id)));
  }
  return texts;
}

void save_hf_settings(const fs::path& file, const HfSettings& settings) {
  Json json = {{"format", kFormat},
               {"version", 1},
               {"config_ids", settings.config_ids},
               {"generation", settings.generation},
               {"special_tokens", settings.special_tokens},
               {"chat_template", settings.chat_template},
               {"template_file", settings.template_file},
               {"split_special_tokens", settings.split_special_tokens}};
  if (settings.add_bos) json["add_bos"] = *settings.add_bos;
  write_file_atomically(file, seal(json));
}

HfSettings load_hf_settings(const fs::path& file) {
  const Json json = read_sealed(file, kFormat, 1);
  const std::string where = file.string();
  HfSettings settings{.config_ids = object_at(json, "config_ids", where),
                      .generation = object_at(json, "generation", where),
                      .special_tokens = object_at(json, "special_tokens", where),
                      .chat_template = json.value("chat_template", Json()),
                      .template_file = json.value("template_file", false),
                      .split_special_tokens = json.value("split_special_tokens", true)};
  if (json.contains("add_bos")) settings.add_bos = json.value("add_bos", false);
  return settings;
}

}  // namespace coppice
