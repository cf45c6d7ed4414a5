// A tokenizer as the keys `tokenizer.ggml.*` of a GGUF file tell it, both ways. Nothing here reads or writes the file.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "src/tokens/tokenizer.h"

namespace coppice {

struct GgufVocabulary {
  std::string model;  // "llama" (SentencePiece BPE) or "gpt2" (byte-level BPE)
  std::string pre;    // pre-tokenizer as llama.cpp spells it: "default", "llama-bpe", "qwen2", "smollm", ...
  std::vector<std::string> tokens;   // by id; byte-level ones in GPT-2's printable alphabet
  std::vector<float> scores;         // llama alone
  std::vector<int32_t> token_types;  // PieceType of each; empty = all normal
  std::vector<std::string> merges;   // gpt2 alone: "left right"
  std::optional<int64_t> bos_id, eos_id, unk_id, pad_id;
  std::optional<bool> add_bos, add_eos, add_space_prefix;
  std::string chat_template;  // empty = none
};

/// The tokenizer of a GGUF file; `where` is the file, for messages. UserError::bad_file by name for a model or a
/// pre-tokenizer that is not known, and for tables that do not fit each other.
Tokenizer tokenizer_from_gguf(const GgufVocabulary& vocabulary, const std::string& where);
/// What a GGUF file says of `tokenizer`; add_bos as asked, chat_template empty. UserError::recipe at `where` for a
/// pre-tokenizer that llama.cpp has no name for.
GgufVocabulary gguf_vocabulary(const Tokenizer& tokenizer, bool add_bos, const std::string& where);

}  // namespace coppice
