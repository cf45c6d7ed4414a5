#include "src/tokens/special_tokens.h"

#include <nlohmann/json.hpp>

#include "src/base/json.h"

namespace coppice {

namespace fs = std::filesystem;

namespace {

constexpr uint64_t kMaxBytes = uint64_t{16} << 20;

Json object_in(const fs::path& file) {
  std::error_code error;
  if (!fs::exists(file, error)) return Json::object();
  Json json = read_json(file, kMaxBytes);
  return json.is_object() ? json : Json::object();
}

Json member(const Json& object, const std::string& key) {
  const auto found = object.find(key);
  return found == object.end() ? Json() : *found;
}

}  // namespace

SpecialTokens read_special_tokens(const fs::path& folder) {
  SpecialTokens tokens;
  const std::pair<const char*, SpecialToken*> roles[] = {
      {"bos_token", &tokens.bos}, {"eos_token", &tokens.eos}, {"pad_token", &tokens.pad}};
  for (const char* file : {"tokenizer_config.json", kSpecialTokensFile}) {
    const Json json = object_in(folder / file);
    for (const auto& [key, token] : roles) {
      const Json given = member(json, key);
      const Json name = given.is_object() ? member(given, "content") : given;
      if (name.is_string()) token->names.push_back(name.get<std::string>());
    }
  }
  const Json config = object_in(folder / "config.json");
  for (const auto& [key, token] : roles) {
    Json id = member(config, std::string(key) + "_id");
    if (id.is_array() && !id.empty()) id = Json(id.front());
    if (id.is_number_unsigned() && id.get<uint64_t>() < uint64_t{1} << 32) token->id = id.get<int64_t>();
  }
  return tokens;
}

}  // namespace coppice
