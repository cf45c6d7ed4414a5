// What the template writes before and behind a text is found with a mark in the text's place; then it is written once
// more with the text itself, since templates trim it. Text that stands between two control tokens is encoded at once,
// whoever wrote it: "user\n" and what follows may share a token.
#include "src/tasks/chat_prompt.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>

#include "src/base/errors.h"
#include "src/tasks/python_text.h"

namespace coppice {
namespace {

constexpr const char *kTextMark = "\uE000text\uE001", *kAnswerMark = "\uE000answer\uE001";  // private use

Json message(const char* role, const std::string& content) { return {{"role", role}, {"content", content}}; }

/// What transformers gives a template: a user's message, an assistant's where there is an answer, names of tokens.
Json variables_for(const Tokenizer& tokenizer, const std::string& text, const std::optional<std::string>& answer) {
  Json messages = Json::array();
  messages.push_back(message("user", text));
  if (answer) messages.push_back(message("assistant", *answer));
  Json variables = {
      {"messages", messages}, {"add_generation_prompt", !answer}, {"tools", nullptr}, {"documents", nullptr}};
  const auto add = [&](const char* name, std::optional<int64_t> id) {
    if (id) variables[name] = tokenizer.pieces()[static_cast<size_t>(*id)].text;
  };
  add("bos_token", tokenizer.bos_id());
  add("eos_token", tokenizer.eos_id());
  add("unk_token", tokenizer.unk_id());
  add("pad_token", tokenizer.pad_id());
  return variables;
}

struct Frame {
  std::string before, after;
};

/// What a template wrote around a mark.
Frame around(const ChatTemplate& chat, const std::string& written, std::string_view mark) {
  const size_t at = written.find(mark);
  if (at == std::string::npos || written.rfind(mark) != at)
    throw UserError::bad_file(chat.where(), "the template does not write each message once and as it stands");
  return {written.substr(0, at), written.substr(at + mark.size())};
}

/// The text as the template writes it, between `before` and `after`.
std::string written_text(const ChatTemplate& chat, const Frame& frame, const std::string& written,
                         const std::string& text) {
  const size_t frame_size = frame.before.size() + frame.after.size();
  const bool same_frame =
      written.size() >= frame_size && written.starts_with(frame.before) && written.ends_with(frame.after);
  std::string inside = same_frame ? written.substr(frame.before.size(), written.size() - frame_size) : "";
  if (!same_frame || strip(inside) != strip(text))
    throw UserError::bad_file(chat.where(), "the template writes this prompt in another way than any text");
  return inside;
}

/// "<|im_end|>", "[INST]": a name that no tokenizer would have for the text's sake.
bool is_mark(const Piece& piece) {
  const auto between = [&](char begin, char end) { return piece.text.starts_with(begin) && piece.text.ends_with(end); };
  return piece.text.size() > 2 && (between('<', '>') || between('[', ']'));
}

struct Found {
  size_t begin = std::string::npos, end = 0;
  int32_t id = -1;
};
enum class Place { first, last };
/// The first or last control token that is named in a text, of two that begin or end together the longer;
/// `marks_too`: or another token of the tokenizer's own that is a mark.
Found find_control(const Tokenizer& tokenizer, const std::string& text, Place place, bool marks_too = false) {
  const bool last = place == Place::last;
  Found found;
  for (size_t id = 0; id < tokenizer.pieces().size(); ++id) {
    const Piece& piece = tokenizer.pieces()[id];
    const bool counts =
        piece.type == PieceType::control || (marks_too && piece.type == PieceType::user_defined && is_mark(piece));
    if (!counts || piece.text.empty()) continue;
    const size_t begin = last ? text.rfind(piece.text) : text.find(piece.text);
    if (begin == std::string::npos) continue;
    const size_t end = begin + piece.text.size();
    const bool longer = end - begin > found.end - found.begin;
    if (found.id < 0 || (last ? end > found.end || (end == found.end && longer)
                              : begin < found.begin || (begin == found.begin && longer)))
      found = {begin, end, static_cast<int32_t>(id)};
  }
  return found;
}

void refuse_other_names(const Tokenizer& tokenizer, const Frame& frame, const std::string& text) {
  for (const Piece& piece : tokenizer.pieces())
    if (piece.type == PieceType::user_defined && is_mark(piece) && text.find(piece.text) != std::string::npos &&
        (frame.before.find(piece.text) != std::string::npos || frame.after.find(piece.text) != std::string::npos))
      throw UserError::recipe(
          "prompt",
          fmt::format("holds '{}', which the model's chat template writes too, and which its tokenizer takes for "
                      "that token in any text; write it otherwise",
                      printable(piece.text)));
}

}  // namespace

ChatPrompt chat_prompt(const ChatTemplate& chat, const Tokenizer& tokenizer, const std::string& text,
                       const std::tm& now) {
  const auto write = [&](const std::string& user, const std::optional<std::string>& answer) {
    return chat.render(variables_for(tokenizer, user, answer), now);
  };
  const Frame frame = around(chat, write(kTextMark, {}), kTextMark);
  const std::string inside = written_text(chat, frame, write(text, {}), text);
  refuse_other_names(tokenizer, frame, inside);
  const Found last = find_control(tokenizer, frame.before, Place::last),
              first = find_control(tokenizer, frame.after, Place::first);
  const size_t after = std::min(first.begin, frame.after.size());

  ChatPrompt prompt;
  const auto add = [&](const std::vector<int32_t>& ids) {
    prompt.ids.insert(prompt.ids.end(), ids.begin(), ids.end());
  };
  add(tokenizer.encode_with_specials(frame.before.substr(0, last.end)));
  add(tokenizer.encode(frame.before.substr(last.end) + inside + frame.after.substr(0, after)));
  add(tokenizer.encode_with_specials(frame.after.substr(after)));

  const Found end = find_control(tokenizer, around(chat, write(kTextMark, kAnswerMark), kAnswerMark).after,
                                 Place::first, /*marks_too=*/true);
  if (end.id >= 0) prompt.end_of_turn = end.id;
  return prompt;
}

}  // namespace coppice
