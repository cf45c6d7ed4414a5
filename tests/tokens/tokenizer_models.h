// SentencePiece models as they lie on the hub: protobuf written by hand around the pieces of a trained one.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "src/tokens/tokenizer.h"

namespace coppice::test {

/// Protobuf by hand.
struct Proto {
  std::string bytes;
  Proto& varint(uint64_t value) {
    for (; value >= 128; value >>= 7) bytes.push_back(static_cast<char>((value & 127) | 128));
    bytes.push_back(static_cast<char>(value));
    return *this;
  }
  Proto& text(uint64_t number, const std::string& value) {
    varint(number << 3 | 2).varint(value.size());
    bytes.append(value);
    return *this;
  }
  Proto& number(uint64_t number, uint64_t value) { return varint(number << 3).varint(value); }
  Proto& real(uint64_t number, float value) {
    varint(number << 3 | 5);
    char little_endian[4];
    std::memcpy(little_endian, &value, 4);
    bytes.append(little_endian, 4);
    return *this;
  }
};

struct ModelFile {
  std::vector<Piece> pieces;
  bool add_dummy_prefix = false, byte_fallback = true;
  std::pair<std::string, std::string> self_test = {};  // a text and its pieces
  std::string unk = "<unk>", bos = "<s>", eos = "</s>",
              pad = "<pad>";  // what the settings call them, whether or not there are such pieces

  std::string bytes() const {
    Proto model, trainer, normalizer;
    for (const Piece& piece : pieces)
      model.text(1,
                 Proto().text(1, piece.text).real(2, piece.score).number(3, static_cast<uint64_t>(piece.type)).bytes);
    trainer.number(3, 2).number(35, byte_fallback).text(45, unk).text(46, bos).text(47, eos).text(48, pad);
    normalizer.text(1, "identity").number(3, add_dummy_prefix).number(4, 0);
    if (!self_test.first.empty())
      model.text(4, Proto().text(1, Proto().text(1, self_test.first).text(2, self_test.second).bytes).bytes);
    return model.text(2, trainer.bytes).text(3, normalizer.bytes).bytes;
  }
};

struct TokenizerCase {
  std::string name;
  ModelFile file;
  std::string load_refusal = "";    // part of the sentence with which the file is refused
  std::string export_refusal = "";  // the same for its export
};

/// Pieces without those of these names.
inline std::vector<Piece> without(std::vector<Piece> pieces, const std::vector<std::string>& names) {
  std::erase_if(pieces,
                [&](const Piece& piece) { return std::find(names.begin(), names.end(), piece.text) != names.end(); });
  return pieces;
}

/// Missing, added, renamed and renumbered pieces; `trained` is a model of ours: <unk> <s> </s> <pad>, 256 bytes, normal
/// pieces.
inline std::vector<TokenizerCase> tokenizer_table(const std::vector<Piece>& trained) {
  using enum PieceType;
  const auto with = [](std::vector<Piece> pieces, const std::vector<Piece>& added, size_t place) {
    pieces.insert(pieces.begin() + static_cast<std::ptrdiff_t>(place), added.begin(), added.end());
    return pieces;
  };
  const auto retyped = [&](const std::string& name, PieceType type) {
    std::vector<Piece> pieces = trained;
    for (Piece& piece : pieces)
      if (piece.text == name) piece.type = type;
    return pieces;
  };
  const std::string merged =
      std::ranges::find(trained, normal, &Piece::type)->text;  // the first that the trainer made of two characters
  const std::vector<Piece> no_specials = without(trained, {"<unk>", "<s>", "</s>", "<pad>"});
  const std::vector<Piece> reversed = {
      {"<pad>", 0, control}, {"<eos>", 0, control}, {"<bos>", 0, control}, {"<unk>", 0, unknown}};
  const std::vector<Piece> user = {{"<|im_start|>", 0, user_defined}, {"[INST]", 0, user_defined},
                                   {"\u2581\u2581", 0, user_defined}, {"\n\n", 0, user_defined},
                                   {"of", 0, user_defined},           {"a b", 0, user_defined}};
  const std::vector<Piece> apart = {{"<unused0>", 0, unused}, {"[UNUSED_1]", 0, unused}};
  std::vector<Piece> other_scores = trained,
                     equal_scores = trained;  // merged in another order; and as scripts that add pieces leave them
  for (size_t id = 0; id < trained.size(); ++id) {
    if (trained[id].type == normal) other_scores[id].score = -static_cast<float>(id * 7919 % 1009);
    if (trained[id].type == normal && id % 3 == 0) equal_scores[id].score = 0;
  }
  std::vector<TokenizerCase> table = {
      {.name = "ours", .file = {.pieces = trained}},
      {.name = "dummy_prefix", .file = {.pieces = trained, .add_dummy_prefix = true}},
      {.name = "llama", .file = {.pieces = without(trained, {"<pad>"}), .add_dummy_prefix = true}},
      {.name = "no_bos", .file = {.pieces = without(trained, {"<pad>", "<s>"})}},
      {.name = "gemma", .file = {.pieces = with(no_specials, reversed, 0), .bos = "<bos>", .eos = "<eos>"}},
      {.name = "specials_last",
       .file = {.pieces = with(no_specials, reversed, no_specials.size()),
                .add_dummy_prefix = true,
                .bos = "<bos>",
                .eos = "<eos>"}},
      {.name = "one_end",
       .file = {.pieces = with(without(trained, {"<s>", "</s>", "<pad>"}), {{"<|endoftext|>", 0, control}}, 7),
                .bos = "<|endoftext|>",
                .eos = "<|endoftext|>",
                .pad = "<|endoftext|>"}},
      {.name = "unk_by_another_name",
       .file = {.pieces = with(without(trained, {"<unk>"}), {{"<UNK>", 0, unknown}}, 100)}},
      {.name = "controls",
       .file = {.pieces = with(trained, {{"[IMG]", 0, control}, {"[TOOL_CALLS]", 0, control}}, 3),
                .add_dummy_prefix = true}},
      {.name = "user_defined", .file = {.pieces = with(without(trained, {"of", "\u2581\u2581"}), user, 4)}},
      {.name = "user_defined_and_prefix",
       .file = {.pieces = with(without(trained, {"of", "\u2581\u2581"}), user, 4), .add_dummy_prefix = true}},
      {.name = "unused", .file = {.pieces = with(trained, apart, 260), .add_dummy_prefix = true}},
      {.name = "other_scores", .file = {.pieces = other_scores, .add_dummy_prefix = true}},
      {.name = "equal_scores", .file = {.pieces = equal_scores}, .export_refusal = "have the same score"},
      {.name = "self_test",
       .file = {.pieces = trained, .add_dummy_prefix = true, .self_test = {"\n", "\u2581 <0x0A>"}}},
      {.name = "unused_in_merges",
       .file = {.pieces = retyped(merged, unused)},
       .export_refusal = "takes part in the merge of"},
      {.name = "byteless", .file = {.pieces = without(trained, {"<0x41>"})}, .load_refusal = "256 byte pieces"},
      {.name = "no_end", .file = {.pieces = without(trained, {"</s>"})}, .load_refusal = "ends a text (eos_id)"},
      {.name = "end_in_text",
       .file = {.pieces = retyped("</s>", user_defined)},
       .load_refusal = "ends a text (eos_id)"},
      {.name = "no_unk", .file = {.pieces = without(trained, {"<unk>"})}, .load_refusal = "0 unknown pieces"},
  };
  std::vector<Piece> no_bytes = trained;
  std::erase_if(no_bytes, [](const Piece& piece) { return piece.type == byte; });
  table.push_back({.name = "no_byte_fallback",
                   .file = {.pieces = no_bytes, .byte_fallback = false},
                   .load_refusal = "byte_fallback is off"});
  return table;
}

}  // namespace coppice::test
