// SentencePiece's trainer cannot be interrupted. It works in a process of its own, which a stop request ends.
#pragma once

#include <functional>
#include <string>

#include "src/tokens/tokenizer_training.h"

namespace coppice {

/// train_tokenizer() in a child process: the same bytes, the same errors; throws Stopped within a fraction of a second
/// of a stop request. The caller must not have used torch's threads.
std::string train_tokenizer_in_child(const TokenizerOptions& options,
                                     const std::function<bool(std::string&)>& next_paragraph);

}  // namespace coppice
