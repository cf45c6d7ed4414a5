#include "recipes/commands/chat.h"

#include <fmt/format.h>

#include <ctime>
#include <nlohmann/json.hpp>
#include <optional>

#include "recipes/stages/export_facts.h"
#include "src/base/errors.h"
#include "src/checkpoint/hf_settings.h"
#include "src/tasks/chat_prompt.h"

namespace coppice {
namespace {

constexpr const char* kOtherwise = "leave --apply-chat-template away and write the whole prompt yourself";

/// The template itself, or the one named "default" of several.
std::string template_of(const std::string& path, const HfSettings& settings) {
  const Json& given = settings.chat_template;
  if (given.is_string()) return given.get<std::string>();
  if (given.is_null())
    throw UserError::recipe(
        "--apply-chat-template",
        fmt::format("no chat template is known of {} (chat_template of tokenizer_config.json, chat_template.jinja, or "
                    "tokenizer.chat_template of a GGUF file, its own or that of the model its run imported); {}",
                    path, kOtherwise));
  std::string names;
  for (const Json& one : given) {
    const std::string name = one.value("name", "");
    if (name == "default") return one.value("template", "");
    names += fmt::format("{}'{}'", names.empty() ? "" : ", ", printable(name));
  }
  throw UserError::recipe("--apply-chat-template", fmt::format("{} has chat templates {} and none named 'default'; {}",
                                                               path, names, kOtherwise));
}

void add_ids(const Json& ids, std::vector<int64_t>& ends) {
  for (const Json& id : ids.is_array() ? ids : Json::array({ids}))
    if (id.is_number_integer()) ends.push_back(id.get<int64_t>());
}

std::tm local_time() {
  const std::time_t seconds = std::time(nullptr);
  std::tm now{};
  ::localtime_r(&seconds, &now);
  return now;
}

}  // namespace

ChatTurn chat_turn(const std::string& path, const Tokenizer& tokenizer, const std::string& text) {
  const HfSettings settings = kept_settings(path, tokenizer).value_or(HfSettings());
  const std::string source = template_of(path, settings);
  ChatPrompt prompt;
  try {
    const ChatTemplate chat(source, fmt::format("chat template of {}", path));
    prompt = chat_prompt(chat, tokenizer, text, local_time());
  } catch (const UserError& error) {
    throw UserError(error.code(), fmt::format("{}; {}", error.what(), kOtherwise));
  }
  ChatTurn turn{.ids = std::move(prompt.ids), .ends = {tokenizer.eos_id()}};
  if (prompt.end_of_turn) turn.ends.push_back(*prompt.end_of_turn);
  for (const Json* from : {&settings.config_ids, &settings.generation})
    add_ids(from->value("eos_token_id", Json()), turn.ends);
  return turn;
}

}  // namespace coppice
