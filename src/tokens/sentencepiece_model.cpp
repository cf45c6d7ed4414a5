#include "src/tokens/sentencepiece_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "src/base/errors.h"
#include "src/tokens/sentencepiece_walk.h"
#include "src/tokens/tokenizer_json_file.h"

namespace coppice {

namespace {

/// One message of a protobuf; field numbers are those of sentencepiece_model.proto (sentencepiece_walk.cpp).
class Message {
 public:
  Message& number(uint64_t field, uint64_t value) { return varint(field << 3).varint(value); }
  Message& text(uint64_t field, std::string_view value) {
    varint(field << 3 | 2).varint(value.size());
    bytes_.append(value);
    return *this;
  }
  Message& real(uint64_t field, float value) {
    varint(field << 3 | 5);
    char little_endian[4];
    std::memcpy(little_endian, &value, 4);
    bytes_.append(little_endian, 4);
    return *this;
  }
  const std::string& bytes() const { return bytes_; }

 private:
  Message& varint(uint64_t value) {
    for (; value >= 128; value >>= 7) bytes_.push_back(static_cast<char>((value & 127) | 128));
    bytes_.push_back(static_cast<char>(value));
    return *this;
  }
  std::string bytes_;
};

[[noreturn]] void refuse(const std::string& path, const std::string& what) {
  throw UserError::bad_file(path,
                            fmt::format("tokenizer.json without ByteLevel, to be read as a SentencePiece model: {}; "
                                        "use the model's own tokenizer.model",
                                        what));
}

bool is_byte_name(std::string_view text) { return text.size() == 6 && text.starts_with("<0x") && text[5] == '>'; }

/// Settings that change ids in a way that a SentencePiece model does not know.
void check_settings(const TokenizerJson& json, const std::string& path) {
  if (!json.byte_fallback) refuse(path, "byte_fallback is off (rare characters would be lost)");
  if (!json.replaces_spaces) refuse(path, "no normalizer writes U+2581 for spaces");
  if (json.nfc) refuse(path, "the normalizer NFC is not supported there");
  if (!json.steps.empty()) refuse(path, "the pre-tokenizers Split and Digits are not supported there");
  if (json.ignore_merges) refuse(path, "ignore_merges is on");
  if (!json.unk_id) refuse(path, "unk_token is missing");
  for (const AddedToken& token : json.added) {
    if (token.special) continue;
    if (token.lstrip || token.rstrip || token.single_word || json.prepends_space ||
        token.content.find(' ') != std::string::npos)
      refuse(path,
             fmt::format("the added token '{}' is not special: with Prepend, lstrip, rstrip, single_word or a space "
                         "in it, it is found at other places",
                         printable(token.content)));
  }
}

std::vector<Piece> typed_pieces(const TokenizerJson& json, const std::string& path) {
  std::vector<Piece> pieces;
  for (size_t id = 0; id < json.vocab.size(); ++id) {
    if (json.vocab[id].empty()) refuse(path, fmt::format("no token has the id {}", id));
    pieces.push_back(
        {.text = json.vocab[id], .score = -static_cast<float>(json.merges.size()), .type = PieceType::normal});
    if (is_byte_name(json.vocab[id])) pieces.back().type = PieceType::byte;
  }
  for (const AddedToken& token : json.added)
    pieces[static_cast<size_t>(token.id)].type = token.special ? PieceType::control : PieceType::user_defined;
  for (const auto& id : {json.bos_id, json.eos_id})
    if (id) pieces[static_cast<size_t>(*id)].type = PieceType::control;
  pieces[static_cast<size_t>(*json.unk_id)].type = PieceType::unknown;
  return pieces;
}

/// Scores in the order in which pieces are merged; a piece's own merges stand together.
void score_pieces(const TokenizerJson& json, std::vector<Piece>& pieces, const std::string& path) {
  std::vector<bool> done(pieces.size(), false);
  int32_t last = -1, order = 0;
  for (const auto& [left, right, result] : json.merges) {
    for (const int32_t id : {left, right, result})
      if (const Piece& piece = pieces[static_cast<size_t>(id)]; piece.type != PieceType::normal)
        refuse(path, fmt::format("a merge makes or needs '{}', which is no normal piece", printable(piece.text)));
    if (result == last) continue;
    Piece& piece = pieces[static_cast<size_t>(result)];
    if (done[static_cast<size_t>(result)])
      refuse(path, fmt::format("the merges that make '{}' do not stand together", printable(piece.text)));
    done[static_cast<size_t>(result)] = true;
    piece.score = -static_cast<float>(order++);
    last = result;
  }
}

}  // namespace

std::string sentencepiece_bytes(const SentencePieceParts& parts) {
  Message model, trainer, normalizer;
  for (const Piece& piece : parts.pieces)
    model.text(1,
               Message().text(1, piece.text).real(2, piece.score).number(3, static_cast<uint64_t>(piece.type)).bytes());
  const auto name = [&](std::optional<int64_t> id, std::string_view none) {
    return id ? std::string_view(parts.pieces[static_cast<size_t>(*id)].text) : none;
  };
  const auto unknown = std::ranges::find(parts.pieces, PieceType::unknown, &Piece::type);
  trainer.number(3, 2).number(35, 1).text(45, unknown == parts.pieces.end() ? "<unk>" : unknown->text);
  // The library takes its own names where these are empty.
  trainer.text(46, name(parts.bos_id, "<no bos>")).text(47, name(parts.eos_id, "<no eos>"));
  trainer.text(48, name(parts.pad_id, "<no pad>"));
  normalizer.text(1, "identity").number(3, parts.add_dummy_prefix).number(4, 0).number(5, 1);
  return model.text(2, trainer.bytes()).text(3, normalizer.bytes()).bytes();
}

std::string sentencepiece_model(const TokenizerJson& json, const std::string& path) {
  check_settings(json, path);
  std::vector<Piece> pieces = typed_pieces(json, path);
  score_pieces(json, pieces, path);
  // SentencePiece knows every way to a piece. Each merge of the file is one, so that numbers tell.
  const size_t ways = merge_list(pieces).size();
  if (ways != json.merges.size())
    refuse(path, fmt::format("{} merges, but there are {} ways to join two pieces into one", json.merges.size(), ways));
  if (json.metaspace_cuts)
    for (const Piece& piece : pieces)
      if (piece.type == PieceType::normal && piece.text.find(kSpaceSymbol, 1) != std::string::npos)
        refuse(path, fmt::format("Metaspace cuts inside the piece '{}'", printable(piece.text)));
  return sentencepiece_bytes({.pieces = std::move(pieces),
                              .add_dummy_prefix = json.prepends_space,
                              .bos_id = json.bos_id,
                              .eos_id = json.eos_id,
                              .pad_id = json.pad_id});
}

}  // namespace coppice
