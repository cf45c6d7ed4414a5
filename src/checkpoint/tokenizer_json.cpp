// tokenizer.json for a SentencePiece BPE model (byte-level ones have theirs): the form in which the `tokenizers`
// library saves it, with ids equal to SentencePiece's. Merges hold every split of a normal piece into two (merge_list):
// with one split a piece half of all strings would differ. User-defined pieces are cut out of the normalised text
// first, the longest from the left, as SentencePiece does. The normaliser works on their names too: where it writes a
// dummy prefix it must leave a text alone that is exactly such a name, so that this one text, and no other, loses its
// prefix.
#include "src/checkpoint/tokenizer_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>
#include <unordered_map>

#include "src/base/errors.h"

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

/// SentencePiece looks user-defined pieces up behind its normaliser, where no space is left: one that holds a space is
/// never found.
bool is_matched(const Piece& piece) {
  return piece.type == PieceType::user_defined && piece.text.find(' ') == std::string::npos;
}

/// SentencePiece merges towards an unused piece and takes it apart again; merges know no such thing.
void check_unused_pieces(const Tokenizer& tokenizer, const std::string& where) {
  const std::vector<Piece>& pieces = tokenizer.pieces();
  if (std::ranges::none_of(pieces, [](const Piece& piece) { return piece.type == PieceType::unused; })) return;
  std::unordered_map<std::string_view, const Piece*> merged;  // what merges are made of and lead to
  for (const Piece& piece : pieces)
    if (piece.type == PieceType::normal || piece.type == PieceType::unused) merged.emplace(piece.text, &piece);
  for (const Piece& piece : pieces) {
    if (!merged.contains(piece.text)) continue;
    for_each_split(piece.text, [&](std::string_view left, std::string_view right) {
      const auto left_at = merged.find(left), right_at = merged.find(right);
      if (left_at == merged.end() || right_at == merged.end()) return;
      for (const Piece* part : {&piece, left_at->second, right_at->second})
        if (part->type == PieceType::unused)
          throw UserError::recipe(where, fmt::format("the unused piece '{}' takes part in the merge of '{}' and '{}', "
                                                     "which tokenizer.json cannot say; make it a "
                                                     "normal piece, or leave the export out",
                                                     printable(part->text), printable(left), printable(right)));
    });
  }
}

/// The name as a regular expression that matches it alone.
std::string pattern_of(std::string_view text) {
  std::string pattern;
  for (const char c : text) {
    if (std::string_view("\\^$.|?*+()[]{}-#&~").find(c) != std::string_view::npos) pattern += '\\';
    pattern += c;
  }
  return pattern;
}

OrderedJson replace(const char* kind, const std::string& from, const char* to) {
  return {{"type", "Replace"}, {"pattern", {{kind, from}}}, {"content", to}};
}

/// Spaces become U+2581; the dummy prefix, where there is one, stands before every text but the empty one.
OrderedJson normalizer(const Tokenizer& tokenizer) {
  const OrderedJson spaces = replace("String", " ", kSpacePiece);
  if (!tokenizer.has_dummy_prefix()) return spaces;
  std::string names;
  for (const Piece& piece : tokenizer.pieces())
    if (is_matched(piece)) names += (names.empty() ? "" : "|") + pattern_of(piece.text);
  OrderedJson steps = OrderedJson::array({OrderedJson{{"type", "Prepend"}, {"prepend", kSpacePiece}}, spaces});
  if (!names.empty())
    steps = OrderedJson::array({spaces, replace("Regex", "\\A(?!(?:" + names + ")?\\z)", kSpacePiece)});
  return {{"type", "Sequence"}, {"normalizers", std::move(steps)}};
}

OrderedJson decoder(const Tokenizer& tokenizer) {
  OrderedJson steps = OrderedJson::array(
      {replace("String", kSpacePiece, " "), OrderedJson{{"type", "ByteFallback"}}, OrderedJson{{"type", "Fuse"}}});
  if (tokenizer.has_dummy_prefix()) steps.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  return {{"type", "Sequence"}, {"decoders", std::move(steps)}};
}

OrderedJson bos_template(const std::string& bos, int64_t bos_id) {
  const OrderedJson special{{"SpecialToken", {{"id", bos}, {"type_id", 0}}}};
  const OrderedJson a{{"Sequence", {{"id", "A"}, {"type_id", 0}}}}, b{{"Sequence", {{"id", "B"}, {"type_id", 0}}}};
  OrderedJson processor;
  processor["type"] = "TemplateProcessing";
  processor["single"] = OrderedJson::array({special, a});
  processor["pair"] = OrderedJson::array({special, a, special, b});
  processor["special_tokens"][bos] = {
      {"id", bos}, {"ids", OrderedJson::array({bos_id})}, {"tokens", OrderedJson::array({bos})}};
  return processor;
}

}  // namespace

void check_exportable(const Tokenizer& tokenizer, const std::string& where, bool add_bos) {
  if (add_bos && !tokenizer.bos_id())
    throw UserError::recipe(where, "the tokenizer has no BOS piece, so that none can be put before a text");
  if (tokenizer.is_byte_level()) return;  // its own text says all
  check_unused_pieces(tokenizer, where);
  if (const auto equal = find_equal_merges(tokenizer.pieces(), merge_list(tokenizer.pieces())))
    throw UserError::recipe(
        where, fmt::format("the pieces '{}' and '{}' have the same score, so that the text decides which is merged "
                           "first, which tokenizer.json "
                           "cannot say; give added pieces scores below all others, one each, or leave the export out",
                           printable(equal->first), printable(equal->second)));
  PieceIds ids;
  for (const Piece& piece : tokenizer.pieces()) ids.emplace(piece.text, ids.size());
  for (const Piece& piece : tokenizer.pieces()) {
    if (piece.type != PieceType::control && piece.type != PieceType::unknown && piece.type != PieceType::byte) continue;
    for_each_split(piece.text, [&](std::string_view left, std::string_view right) {
      if (ids.contains(left) && ids.contains(right))
        throw UserError::recipe(where, fmt::format("the piece '{}' splits into the pieces '{}' and '{}': programs that "
                                                   "look merged text up in the whole vocabulary would "
                                                   "make it from plain text; train the tokenizer on other text",
                                                   printable(piece.text), printable(left), printable(right)));
    });
  }
}

std::string piece_without_prefix(const Tokenizer& tokenizer) {
  if (tokenizer.is_byte_level()) return "";
  const auto found = std::ranges::find_if(tokenizer.pieces(), is_matched);
  return tokenizer.has_dummy_prefix() && found != tokenizer.pieces().end() ? found->text : "";
}

std::string tokenizer_json(const Tokenizer& tokenizer, bool add_bos) {
  if (tokenizer.is_byte_level()) return tokenizer.model_bytes();
  const std::vector<Piece>& pieces = tokenizer.pieces();
  OrderedJson added = OrderedJson::array();
  OrderedJson::object_t vocab;  // a list of pairs: appended, since its operator[] searches from the front
  for (size_t id = 0; id < pieces.size(); ++id) {
    const Piece& piece = pieces[id];
    vocab.emplace_back(piece.text, id);
    const bool special = piece.type == PieceType::unknown || piece.type == PieceType::control;
    if (special || is_matched(piece))
      added.push_back({{"id", id},
                       {"content", piece.text},
                       {"single_word", false},
                       {"lstrip", false},
                       {"rstrip", false},
                       {"normalized", !special},
                       {"special", special}});
  }
  OrderedJson json;
  json["version"] = "1.0";
  json["truncation"] = nullptr;
  json["padding"] = nullptr;
  json["added_tokens"] = std::move(added);
  json["normalizer"] = normalizer(tokenizer);
  json["pre_tokenizer"] = nullptr;
  json["post_processor"] = nullptr;
  if (add_bos)
    json["post_processor"] =
        bos_template(pieces.at(static_cast<size_t>(tokenizer.bos_id().value())).text, *tokenizer.bos_id());
  json["decoder"] = decoder(tokenizer);
  OrderedJson& model = json["model"];
  model["type"] = "BPE";
  model["dropout"] = nullptr;
  model["unk_token"] = pieces[static_cast<size_t>(tokenizer.unk_id().value())].text;
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
