// A user's text as a chat model expects it: its template around the text, in ids.
#pragma once

#include <cstdint>
#include <ctime>
#include <optional>
#include <string>
#include <vector>

#include "src/tasks/chat_template.h"
#include "src/tokens/tokenizer.h"

namespace coppice {

struct ChatPrompt {
  std::vector<int32_t> ids;                 // up to where the model's answer begins
  std::optional<int32_t> end_of_turn = {};  // the control token that the template writes behind an answer
};
/// One message of a user, and the template's opening of the answer: the ids of transformers' apply_chat_template with
/// add_generation_prompt. Names of control tokens are tokens where the template writes them and text in `text`.
/// UserError::bad_file for a template that cannot be read, or that does not write `text` once and as it stands (white
/// space at its ends aside); UserError::recipe where `text` holds the name of a token that the template writes too and
/// that this tokenizer finds in any text.
ChatPrompt chat_prompt(const ChatTemplate& chat, const Tokenizer& tokenizer, const std::string& text,
                       const std::tm& now);

}  // namespace coppice
