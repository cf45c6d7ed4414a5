// Byte-level BPE, step for step as the tokenizers library does it: added tokens are cut out of the text as it came,
// then those that say so out of the normalised text; regular expressions cut what is left into words; the bytes of a
// word are merged. The ids of short words are remembered.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "src/base/errors.h"
#include "src/base/json.h"
#include "src/tokens/name_matcher.h"
#include "src/tokens/part_cache.h"
#include "src/tokens/text_ids.h"
#include "src/tokens/tokenizer_json_file.h"
#include "src/tokens/utf8.h"

namespace coppice {

namespace {

enum class Specials { are_text, are_tokens };

struct ByteLevelState : TokenizerState {
  ByteLevelState(const std::vector<SplitStep>& steps, const std::string& path) : splitter(steps, path) {}

  /// What a thread needs while it encodes.
  struct Scratch {
    PartCache cache;
    RegexSplitter::Scratch regex;
    BpeMerges::Scratch merge;
    std::vector<int32_t> word;
  };

  TokenizerJson json;
  RegexSplitter splitter;
  BpeMerges merges;
  std::array<int32_t, 256> byte_ids{};  // below 0: none
  std::vector<std::string> texts;       // by id, the bytes that a token stands for
  TextIds whole_words;                  // of `texts`, with ignore_merges
  std::vector<const AddedToken*> added_by_id;
  NameMatcher raw_tokens, normalized_tokens;
  mutable Pool<Scratch> scratches;

  // -- a word --

  void merge_word(std::string_view word, Scratch& scratch) const {
    std::vector<int32_t>& ids = scratch.word;
    ids.clear();
    if (const int32_t whole = json.ignore_merges ? whole_words.find(word, texts) : -1; whole >= 0)
      return ids.push_back(whole);
    bool after_unknown = false;
    for (const char c : word) {
      const int32_t id = byte_ids[static_cast<unsigned char>(c)];
      if (id >= 0)
        ids.push_back(id);
      else if (json.unk_id && !(after_unknown && json.fuse_unk))
        ids.push_back(static_cast<int32_t>(*json.unk_id));
      after_unknown = id < 0;
    }
    merges.apply(ids, scratch.merge);
  }

  void encode_word(std::string_view word, Scratch& scratch, std::vector<int32_t>& ids) const {
    if (word.size() > kMaxPartBytes) {
      merge_word(word, scratch);
      ids.insert(ids.end(), scratch.word.begin(), scratch.word.end());
      return;
    }
    PartCache::Entry& entry = scratch.cache.find(word);
    if (entry.length == 0) {
      merge_word(word, scratch);
      ids.insert(ids.end(), scratch.word.begin(), scratch.word.end());
      if (scratch.cache.has_room()) scratch.cache.fill(entry, word, scratch.word);
      return;
    }
    const int32_t* const known = scratch.cache.ids(entry);
    ids.insert(ids.end(), known, known + entry.count);
  }

  // -- a text --

  void encode_words(std::string_view text, Scratch& scratch, std::vector<int32_t>& ids) const {
    std::string prefixed;
    if (json.prefix_space && !text.starts_with(' ')) text = prefixed.append(" ").append(text);
    splitter.split(text, scratch.regex, [&](std::string_view word) { encode_word(word, scratch, ids); });
  }

  /// Hands added tokens to `token` and what lies between them to `between`, the first and the last included.
  template <class Between>
  void cut_tokens(std::string_view text, const NameMatcher& names, Specials specials, std::vector<int32_t>& ids,
                  const Between& between) const {
    size_t done = 0;
    for (NameMatcher::Match match = names.find(text, 0); match.id >= 0; match = names.find(text, match.end)) {
      const AddedToken& token = *added_by_id[static_cast<size_t>(match.id)];
      if (token.special && specials == Specials::are_text) continue;
      if (token.single_word &&
          (ends_with_word(text.substr(0, match.begin)) || begins_with_word(text.substr(match.end))))
        continue;
      size_t begin = match.begin, end = match.end;
      if (token.lstrip)
        while (begin > done && is_white_space(code_point_at(text, code_point_before(text, begin)).value))
          begin = code_point_before(text, begin);
      if (token.rstrip)
        while (end < text.size() && is_white_space(code_point_at(text, end).value))
          end += code_point_at(text, end).bytes;
      if (begin > done) between(text.substr(done, begin - done));
      ids.push_back(static_cast<int32_t>(match.id));
      done = std::max(done, end);
    }
    if (done < text.size()) between(text.substr(done));
  }

  static bool ends_with_word(std::string_view text) {
    return !text.empty() && is_word_character(code_point_at(text, code_point_before(text, text.size())).value);
  }
  static bool begins_with_word(std::string_view text) {
    return !text.empty() && is_word_character(code_point_at(text, 0).value);
  }

  std::vector<int32_t> encode_text(std::string_view text, Specials specials) const {
    std::string replaced, normalized;
    if (!is_valid_utf8(text)) text = replaced = with_replacements(text);
    std::unique_ptr<Scratch> scratch = scratches.take();
    std::vector<int32_t> ids;
    ids.reserve(text.size() / 3);
    cut_tokens(text, raw_tokens, specials, ids, [&](std::string_view part) {
      if (json.nfc && may_need_nfc(part)) part = normalized = nfc(part);
      cut_tokens(part, normalized_tokens, specials, ids,
                 [&](std::string_view words) { encode_words(words, *scratch, ids); });
    });
    scratches.give_back(std::move(scratch));
    return ids;
  }

  std::vector<int32_t> encode(std::string_view text) const override { return encode_text(text, Specials::are_text); }
  std::vector<int32_t> encode_with_specials(std::string_view text) const override {
    return encode_text(text, Specials::are_tokens);
  }

  std::string decode(const std::vector<int32_t>& ids) const override {
    std::string text;
    for (const int32_t id : ids)
      if (pieces[static_cast<size_t>(id)].type != PieceType::control) text += texts[static_cast<size_t>(id)];
    return is_valid_utf8(text) ? text : with_replacements(text);
  }

  std::vector<int64_t> piece_bytes() const override {
    std::vector<int64_t> lengths;
    for (size_t id = 0; id < pieces.size(); ++id)
      lengths.push_back(pieces[id].type == PieceType::control ? 0 : std::ssize(texts[id]));
    return lengths;
  }
  bool begins_with_space(const Piece& piece) const override { return piece.text.starts_with("\u0120"); }

  Json description() const {
    Json texts_of_pieces = Json::array(), types = Json::array(), pairs = Json::array(), added = Json::array(),
         steps = Json::array();
    for (const Piece& piece : pieces) {
      texts_of_pieces.push_back(piece.text);
      types.push_back(static_cast<int>(piece.type));
    }
    for (const Merge& merge : json.merges) {  // the third follows from the texts
      pairs.push_back(merge.left);
      pairs.push_back(merge.right);
    }
    for (const AddedToken& token : json.added)
      added.push_back({{"id", token.id},
                       {"content", token.content},
                       {"special", token.special},
                       {"normalized", token.normalized},
                       {"lstrip", token.lstrip},
                       {"rstrip", token.rstrip},
                       {"single_word", token.single_word}});
    for (const SplitStep& step : json.steps)
      steps.push_back({{"pattern", step.pattern}, {"keeps_gaps", step.keeps_gaps}});
    Json description = {{"family", "bpe-byte-level"},
                        {"pieces", std::move(texts_of_pieces)},
                        {"types", std::move(types)},
                        {"merges", std::move(pairs)},
                        {"added_tokens", added},
                        {"normalizer", json.nfc ? Json("NFC") : Json()},
                        {"pre_tokenizer", {{"prefix_space", json.prefix_space}, {"steps", steps}}},
                        {"ignore_merges", json.ignore_merges},
                        {"eos_id", eos_id}};
    if (bos_id) description["bos_id"] = *bos_id;
    if (unk_id) description["unk_id"] = *unk_id;
    if (unk_id) description["fuse_unk"] = json.fuse_unk;
    return description;
  }
};

/// Tokens of single bytes; -1 where a byte has none.
std::array<int32_t, 256> ids_of_bytes(const std::vector<std::string>& vocab) {
  std::unordered_map<std::string_view, size_t> id_of;
  for (size_t id = 0; id < vocab.size(); ++id)
    if (vocab[id].size() <= 2) id_of.emplace(vocab[id], id);
  std::array<int32_t, 256> ids{};
  for (size_t byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    const auto found = id_of.find(printable_bytes({&c, 1}));
    ids[byte] = found == id_of.end() ? -1 : static_cast<int32_t>(found->second);
  }
  return ids;
}

/// Pieces with their types. A token that bytes or merges make is text, whatever added_tokens says of it.
std::vector<Piece> typed_pieces(const TokenizerJson& json, const std::array<int32_t, 256>& byte_ids,
                                const std::string& path) {
  std::vector<bool> from_text(json.vocab.size(), false);
  for (const int32_t id : byte_ids)
    if (id >= 0) from_text[static_cast<size_t>(id)] = true;
  for (const Merge& merge : json.merges) from_text[static_cast<size_t>(merge.result)] = true;
  std::vector<Piece> pieces;
  pieces.reserve(json.vocab.size());
  for (size_t id = 0; id < json.vocab.size(); ++id)
    pieces.push_back(json.vocab[id].empty() ? Piece{.text = fmt::format("[PAD{}]", id), .type = PieceType::unused}
                                            : Piece{.text = json.vocab[id]});
  const auto retype = [&](int64_t id, PieceType type) {
    if (!from_text[static_cast<size_t>(id)]) pieces[static_cast<size_t>(id)].type = type;
  };
  for (const AddedToken& token : json.added)
    retype(token.id, token.special ? PieceType::control : PieceType::user_defined);
  if (json.bos_id) retype(*json.bos_id, PieceType::control);
  if (from_text[static_cast<size_t>(*json.eos_id)])
    throw UserError::bad_file(path,
                              fmt::format("tokenizer.json: the token '{}', which is to end a text, is made by text "
                                          "itself; name another one as eos_token",
                                          printable(json.vocab[static_cast<size_t>(*json.eos_id)])));
  retype(*json.eos_id, PieceType::control);
  return pieces;
}

}  // namespace

std::unique_ptr<TokenizerState> make_byte_level(std::string text, TokenizerJson json, const std::string& path) {
  if (json.replaces_spaces || json.prepends_space)
    throw UserError::bad_file(path, "tokenizer.json: ByteLevel together with U+2581 for spaces is not supported");
  auto state = std::make_unique<ByteLevelState>(json.steps, path);
  ByteLevelState& s = *state;
  s.is_byte_level = true;
  s.file_name = "tokenizer.json";
  s.file_bytes = std::move(text);
  s.json = std::move(json);
  s.byte_ids = ids_of_bytes(s.json.vocab);
  if (s.json.byte_fallback && std::ranges::find(s.byte_ids, -1) != s.byte_ids.end())
    throw UserError::bad_file(path,
                              "tokenizer.json: byte_fallback with ByteLevel is not supported where bytes have no "
                              "token; turn it off");
  s.pieces = typed_pieces(s.json, s.byte_ids, path);
  s.merges = std::move(s.json.merge_table);
  s.has_dummy_prefix = s.json.prefix_space;
  s.adds_bos = s.json.first_id.has_value() && s.json.first_id == s.json.bos_id;
  s.unk_id = s.json.unk_id;
  s.bos_id = s.json.bos_id;
  s.eos_id = *s.json.eos_id;
  s.pad_id = s.json.pad_id;
  s.texts.resize(s.pieces.size());
  std::vector<std::pair<std::string, int64_t>> raw, normalized;
  s.added_by_id.resize(s.pieces.size());
  for (size_t id = 0; id < s.pieces.size(); ++id)
    if (!read_printable_bytes(s.pieces[id].text, s.texts[id])) s.texts[id] = s.pieces[id].text;
  for (const AddedToken& token : s.json.added) {
    s.added_by_id[static_cast<size_t>(token.id)] = &token;
    s.texts[static_cast<size_t>(token.id)] = token.content;
    if (token.normalized)
      normalized.emplace_back(s.json.nfc ? nfc(token.content) : token.content, token.id);
    else
      raw.emplace_back(token.content, token.id);
  }
  s.raw_tokens = NameMatcher(std::move(raw));
  s.normalized_tokens = NameMatcher(std::move(normalized));
  if (s.json.ignore_merges) {
    s.whole_words.reserve(s.texts.size());
    for (size_t id = 0; id < s.pieces.size(); ++id)
      if (s.pieces[id].type == PieceType::normal && s.whole_words.find(s.texts[id], s.texts) < 0)
        s.whole_words.add(s.texts[id], static_cast<int32_t>(id));
  }
  s.fingerprint = fingerprint(s.description());
  return state;
}

}  // namespace coppice
