// tokenizer.json for a SentencePiece BPE model: the form in which the `tokenizers` library saves it, with ids equal to SentencePiece's.
// Merges hold every split of a normal piece into two (merge_list): with one split a piece half of all strings would differ.
#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <string_view>
#include <unordered_map>

#include "src/base/errors.h"
#include "src/checkpoint/hf_export.h"

namespace coppice {

namespace {

using OrderedJson = nlohmann::ordered_json;
using PieceIds = std::unordered_map<std::string_view, size_t>;
constexpr const char* kSpacePiece = "\u2581";

bool starts_code_point(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; }

/// Calls split(left, right) for every cut between two code points, shorter left half first.
template <class Split>
void for_each_split(std::string_view text, const Split& split) {
  for (size_t k = 1; k < text.size(); ++k)
    if (starts_code_point(text[k])) split(text.substr(0, k), text.substr(k));
}

/// Pieces by text; refuses types and duplicates that tokenizer.json cannot say.
PieceIds piece_ids(const Tokenizer& tokenizer) {
  PieceIds ids;
  for (const Piece& piece : tokenizer.pieces()) {
    if (piece.type == PieceType::user_defined || piece.type == PieceType::unused)
      throw UserError::recipe("tokenizer", fmt::format("piece '{}' is user-defined or unused, which tokenizer.json cannot match", printable(piece.text)));
    if (!ids.emplace(piece.text, ids.size()).second) throw UserError::bad_file("tokenizer", fmt::format("piece '{}' occurs twice", printable(piece.text)));
  }
  return ids;
}

OrderedJson bos_template(const std::string& bos, int64_t bos_id) {
  const OrderedJson special{{"SpecialToken", {{"id", bos}, {"type_id", 0}}}};
  const OrderedJson a{{"Sequence", {{"id", "A"}, {"type_id", 0}}}}, b{{"Sequence", {{"id", "B"}, {"type_id", 0}}}};
  OrderedJson processor;
  processor["type"] = "TemplateProcessing";
  processor["single"] = OrderedJson::array({special, a});
  processor["pair"] = OrderedJson::array({special, a, special, b});
  processor["special_tokens"][bos] = {{"id", bos}, {"ids", OrderedJson::array({bos_id})}, {"tokens", OrderedJson::array({bos})}};
  return processor;
}

}  // namespace

void check_control_pieces(const Tokenizer& tokenizer) {
  const PieceIds ids = piece_ids(tokenizer);
  for (const Piece& piece : tokenizer.pieces()) {
    if (piece.type == PieceType::normal) continue;
    for_each_split(piece.text, [&](std::string_view left, std::string_view right) {
      if (ids.contains(left) && ids.contains(right))
        throw UserError::recipe(
            "tokenizer", fmt::format("the piece '{}' splits into the pieces '{}' and '{}': programs that look merged text up in the whole vocabulary would "
                                     "make it from plain text; train the tokenizer on other text",
                                     printable(piece.text), printable(left), printable(right)));
    });
  }
}

std::string tokenizer_json(const Tokenizer& tokenizer, bool add_bos) {
  piece_ids(tokenizer);
  const std::vector<Piece>& pieces = tokenizer.pieces();
  OrderedJson added = OrderedJson::array();
  OrderedJson::object_t vocab;  // a list of pairs: appended, since its operator[] searches from the front
  for (size_t id = 0; id < pieces.size(); ++id) {
    const Piece& piece = pieces[id];
    vocab.emplace_back(piece.text, id);
    if (piece.type == PieceType::unknown || piece.type == PieceType::control)
      added.push_back(
          {{"id", id}, {"content", piece.text}, {"single_word", false}, {"lstrip", false}, {"rstrip", false}, {"normalized", false}, {"special", true}});
  }
  const auto replace = [](const char* from, const char* to) { return OrderedJson{{"type", "Replace"}, {"pattern", {{"String", from}}}, {"content", to}}; };
  OrderedJson json;
  json["version"] = "1.0";
  json["truncation"] = nullptr;
  json["padding"] = nullptr;
  json["added_tokens"] = std::move(added);
  json["normalizer"] = replace(" ", kSpacePiece);
  json["pre_tokenizer"] = nullptr;
  json["post_processor"] = nullptr;
  if (add_bos) json["post_processor"] = bos_template(pieces[static_cast<size_t>(tokenizer.bos_id())].text, tokenizer.bos_id());
  json["decoder"]["type"] = "Sequence";
  json["decoder"]["decoders"] = OrderedJson::array({replace(kSpacePiece, " "), OrderedJson{{"type", "ByteFallback"}}, OrderedJson{{"type", "Fuse"}}});
  OrderedJson& model = json["model"];
  model["type"] = "BPE";
  model["dropout"] = nullptr;
  model["unk_token"] = pieces[static_cast<size_t>(tokenizer.unk_id())].text;
  model["continuing_subword_prefix"] = nullptr;
  model["end_of_word_suffix"] = nullptr;
  model["fuse_unk"] = true;
  model["byte_fallback"] = true;  // absent means false, which is wrong for two strings in three
  model["ignore_merges"] = false;
  model["vocab"] = std::move(vocab);
  OrderedJson& merges = model["merges"] = OrderedJson::array();
  for (const auto& [left, right] : merge_list(pieces)) merges.push_back(OrderedJson::array({left, right}));
  return json.dump(1) + "\n";
}

}  // namespace coppice
