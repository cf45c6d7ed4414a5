#include "src/checkpoint/gguf_metadata.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "src/base/errors.h"

namespace coppice {
namespace {

constexpr size_t kMaxName = 1024, kMaxTemplate = size_t{1} << 20;
constexpr int32_t kMaxTokenType = 6;

struct ReferenceField {
  const char* key;
  std::string GgufReference::*member;
};
constexpr ReferenceField kReferenceFields[] = {{"name", &GgufReference::name},
                                               {"version", &GgufReference::version},
                                               {"organization", &GgufReference::organization},
                                               {"repo_url", &GgufReference::repo_url}};

bool is_utf8(const std::string& text) {
  try {
    (void)Json(text).dump();
    return true;
  } catch (const Json::exception&) {
    return false;
  }
}

/// A text that can be repeated in a report; empty otherwise.
std::string text_at(const GgufFile& file, const std::string& key) {
  const GgufValue* value = file.find(key);
  if (value == nullptr || value->type != GgufType::string) return "";
  std::string text = *file.string_at(key);
  return text.size() <= kMaxName && is_utf8(text) ? text : "";
}

std::vector<GgufReference> references(const GgufFile& file, const std::string& kind) {
  std::vector<GgufReference> found;
  const uint64_t count = file.unsigned_at(fmt::format("general.{}.count", kind), kMaxGgufReferences).value_or(0);
  for (uint64_t i = 0; i < count; ++i) {
    GgufReference reference;
    for (const auto& [key, member] : kReferenceFields)
      reference.*member = text_at(file, fmt::format("general.{}.{}.{}", kind, i, key));
    if (reference != GgufReference()) found.push_back(reference);
  }
  return found;
}

std::optional<int64_t> id_at(const GgufFile& file, const char* name, uint64_t tokens) {
  const std::optional<uint64_t> id = file.unsigned_at(fmt::format("tokenizer.ggml.{}_token_id", name), tokens - 1);
  return id ? std::optional(static_cast<int64_t>(*id)) : std::nullopt;
}

void check_length(const GgufFile& file, const char* key, size_t got, size_t tokens) {
  if (got != tokens)
    throw UserError::bad_file(file.where(), fmt::format("{}: {} entries for {} tokens", key, got, tokens));
}

/// Whether BOS opens a text, where the file does not say so: llama.cpp's habits (llama-vocab.cpp).
bool adds_bos(const GgufVocabulary& vocabulary) {
  return vocabulary.add_bos.value_or(vocabulary.model == "llama" || vocabulary.pre == "llama-bpe" ||
                                     vocabulary.pre == "llama3" || vocabulary.pre == "llama-v3");
}

}  // namespace

GgufGeneral read_gguf_general(const GgufFile& file) {
  return {.name = text_at(file, "general.name"),
          .basename = text_at(file, "general.basename"),
          .size_label = text_at(file, "general.size_label"),
          .license = text_at(file, "general.license"),
          .license_name = text_at(file, "general.license.name"),
          .license_link = text_at(file, "general.license.link"),
          .base_models = references(file, "base_model"),
          .datasets = references(file, "dataset")};
}

GgufVocabulary read_gguf_vocabulary(const GgufFile& file) {
  GgufVocabulary vocabulary;
  const std::optional<std::string> model = file.string_at("tokenizer.ggml.model");
  std::optional<std::vector<std::string>> tokens = file.strings_at("tokenizer.ggml.tokens");
  if (!model || !tokens || tokens->empty())
    throw UserError::bad_file(file.where(), "holds no tokenizer (tokenizer.ggml.model and tokenizer.ggml.tokens)");
  const size_t count = tokens->size();
  vocabulary.model = *model;
  vocabulary.pre = file.string_at("tokenizer.ggml.pre").value_or("default");
  vocabulary.tokens = std::move(*tokens);
  if (auto scores = file.floats_at("tokenizer.ggml.scores")) {
    check_length(file, "tokenizer.ggml.scores", scores->size(), count);
    vocabulary.scores = std::move(*scores);
  }
  if (const auto types = file.unsigned_list_at("tokenizer.ggml.token_type", kMaxTokenType)) {
    check_length(file, "tokenizer.ggml.token_type", types->size(), count);
    vocabulary.token_types.assign(types->begin(), types->end());
  }
  if (auto merges = file.strings_at("tokenizer.ggml.merges")) vocabulary.merges = std::move(*merges);
  vocabulary.bos_id = id_at(file, "bos", count);
  vocabulary.eos_id = id_at(file, "eos", count);
  vocabulary.unk_id = id_at(file, "unknown", count);
  if (vocabulary.model == "llama" && count > 2) {  // what llama.cpp takes them for where the file does not say
    vocabulary.unk_id = vocabulary.unk_id.value_or(0);
    vocabulary.bos_id = vocabulary.bos_id.value_or(1);
    vocabulary.eos_id = vocabulary.eos_id.value_or(2);
  }
  vocabulary.pad_id = id_at(file, "padding", count);
  vocabulary.add_bos = file.boolean_at("tokenizer.ggml.add_bos_token");
  vocabulary.add_eos = file.boolean_at("tokenizer.ggml.add_eos_token");
  vocabulary.add_space_prefix = file.boolean_at("tokenizer.ggml.add_space_prefix");
  vocabulary.chat_template = file.string_at("tokenizer.chat_template").value_or("");
  return vocabulary;
}

ReadSettings read_gguf_settings(const GgufFile& file) {
  const GgufVocabulary vocabulary = read_gguf_vocabulary(file);
  ReadSettings read;
  HfSettings& settings = read.settings;
  const auto keep = [&](const char* key, std::optional<int64_t> id) {
    if (id) settings.config_ids[key] = static_cast<uint64_t>(*id);
  };
  keep("bos_token_id", vocabulary.bos_id);
  keep("eos_token_id", vocabulary.eos_id);
  keep("pad_token_id", vocabulary.pad_id);
  const std::optional<int64_t> eot = id_at(file, "eot", vocabulary.tokens.size());
  if (eot && vocabulary.eos_id && eot != vocabulary.eos_id)
    settings.config_ids["eos_token_id"] = {static_cast<uint64_t>(*vocabulary.eos_id), static_cast<uint64_t>(*eot)};
  settings.add_bos = adds_bos(vocabulary);
  if (*settings.add_bos && !vocabulary.bos_id) {
    if (vocabulary.add_bos) read.left_behind.push_back("tokenizer.ggml.add_bos_token: the file names no BOS token");
    settings.add_bos = false;
  }
  if (vocabulary.add_eos == true)
    read.left_behind.push_back("tokenizer.ggml.add_eos_token: an export's tokenizer puts no EOS behind a text");
  if (const std::string& text = vocabulary.chat_template; text.size() > kMaxTemplate || !is_utf8(text))
    read.left_behind.push_back("tokenizer.chat_template: longer than 1 MiB, or not UTF-8");
  else if (!text.empty())
    settings.chat_template = text;
  settings.split_special_tokens = settings.chat_template.is_null();  // a template writes control tokens as text
  return read;
}

std::string weight_type(const GgufFile& file) {
  std::map<uint32_t, uint64_t> elements;
  for (const GgufTensor& tensor : file.tensors())
    if (tensor.shape.size() > 1)
      elements[tensor.type] += static_cast<uint64_t>(tensor.shape[0]) * static_cast<uint64_t>(tensor.shape[1]);
  const auto most = std::ranges::max_element(elements, {}, [](const auto& one) { return one.second; });
  return most == elements.end() ? "none" : find_ggml_type(most->first)->name;
}

bool has_quantised_weights(const GgufFile& file) {
  return std::ranges::any_of(file.tensors(),
                             [](const GgufTensor& tensor) { return find_ggml_type(tensor.type)->elements > 1; });
}

}  // namespace coppice
