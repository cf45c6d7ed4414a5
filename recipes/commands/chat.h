// A prompt in the form that a model's chat template gives it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "src/tokens/tokenizer.h"

namespace coppice {

struct ChatTurn {
  std::vector<int32_t> ids;
  std::vector<int64_t> ends;  // tokens that end the answer
};
/// `text` as a user's message to the model at `path`, with the template that it carries: of a stage, that of the model
/// its run imported. UserError::recipe where it carries none; UserError::bad_file for one that cannot be read.
ChatTurn chat_turn(const std::string& path, const Tokenizer& tokenizer, const std::string& text);

}  // namespace coppice
