// tokenizer.json as the tokenizers library writes it, read into what BPE needs of it. Private to src/tokens.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "src/tokens/bpe_merges.h"
#include "src/tokens/regex_split.h"
#include "src/tokens/special_tokens.h"
#include "src/tokens/tokenizer_state.h"

namespace coppice {

inline constexpr const char* kMetaspace = "\u2581";

struct AddedToken {
  int64_t id = 0;
  std::string content;
  bool special = false, single_word = false, lstrip = false, rstrip = false, normalized = true;
};

struct TokenizerJson {
  // model, and the tokens added to it
  std::vector<std::string> vocab;  // by id; empty = a hole
  std::vector<AddedToken> added;
  std::vector<Merge> merges;
  BpeMerges merge_table;  // the same, by pair
  std::optional<int64_t> unk_id;
  bool fuse_unk = false, byte_fallback = false, ignore_merges = false;
  // normalizer
  bool nfc = false, prepends_space = false, replaces_spaces = false;
  // pre_tokenizer: what cuts, then the bytes; or Metaspace without a prefix
  std::vector<SplitStep> steps;
  bool byte_level = false, prefix_space = false, metaspace = false, metaspace_cuts = false;
  // post_processor: the token that a template puts first
  std::optional<int64_t> first_id;
  // found among the tokens
  std::optional<int64_t> bos_id, eos_id, pad_id;
};

/// Everything checked: JSON (depth 64, no key twice), ids below 2^20 and none twice, tokens of at most 1 kB, at most
/// 2^22 merges, of tokens that are there. UserError::bad_file(path, ...) names what is not supported and what would be.
TokenizerJson parse_tokenizer_json(std::string_view text, const SpecialTokens& specials, const std::string& path);

/// Byte-level BPE; what looks like SentencePiece becomes a tokenizer.model (sentencepiece_model.h).
std::unique_ptr<TokenizerState> read_tokenizer_json(std::string text, const SpecialTokens& specials,
                                                    const std::string& path);
/// A text's byte-level tokenizer. The splits are compiled here: UserError::bad_file for one that cannot be.
std::unique_ptr<TokenizerState> make_byte_level(std::string text, TokenizerJson json, const std::string& path);

}  // namespace coppice
