// A tokenizer.json of byte-level BPE made by hand: 256 bytes, a few merges, an end of text.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "src/base/json.h"
#include "src/tokens/tokenizer.h"
#include "tests/scratch_folder.h"

namespace coppice::test {

/// GPT-2's character for a byte, worked out anew: printable ones stand for themselves, the others follow from U+0100.
inline std::string gpt2_character(int byte) {
  const auto printable = [](int b) { return (b > 32 && b < 127) || (b > 160 && b < 173) || b > 173; };
  int point = byte;
  if (!printable(byte)) {
    point = 256;
    for (int before = 0; before < byte; ++before) point += printable(before) ? 0 : 1;
  }
  if (point < 128) return std::string(1, static_cast<char>(point));
  return {static_cast<char>(0xC0 | point >> 6), static_cast<char>(0x80 | (point & 63))};
}

inline Json added_token(int id, const std::string& content, bool special) {
  return {{"id", id},        {"content", content}, {"special", special}, {"single_word", false},
          {"lstrip", false}, {"rstrip", false},    {"normalized", false}};
}

/// Ids: byte b is b; each merge ("he llo") takes the next one; <|endoftext|> is the last.
inline Json byte_level_json(const std::vector<std::string>& merges = {"h e", "l l", "he ll", "hell o", "\u0120 w",
                                                                      "\u0120w o", "1 2", "\u0120 \u0120"}) {
  Json vocab = Json::object();
  for (int byte = 0; byte < 256; ++byte) vocab[gpt2_character(byte)] = byte;
  int next = 256;
  for (const std::string& merge : merges) {
    std::string joined = merge;
    joined.erase(joined.find(' '), 1);
    vocab[joined] = next++;
  }
  Json model = {{"type", "BPE"}, {"dropout", nullptr}, {"unk_token", nullptr}, {"vocab", vocab}, {"merges", merges}};
  return {{"version", "1.0"},
          {"added_tokens", {added_token(next, "<|endoftext|>", true)}},
          {"normalizer", nullptr},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
          {"post_processor", nullptr},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", model}};
}

inline Tokenizer load_json_text(const std::string& text) {
  const ScratchFolder folder;
  return Tokenizer::load(folder.write("tokenizer.json", text));
}
inline Tokenizer load_json(const Json& json) { return load_json_text(json.dump()); }

}  // namespace coppice::test
