// Encoding. The library encodes whole texts; most of a text is words seen before, so the text is cut where no piece can
// reach across and the ids of short parts are remembered: 2-3 times the speed, the same ids. A cut is safe
//   - before a run of spaces (or U+2581, which is the same to the model) that follows another character, if no piece
//   holds such a place,
//   - around a newline, if no piece holds one,
// because BPE merges only towards pieces, and merges on two sides of a cut do not see each other.
// The dummy prefix belongs to a text, not to a part: it is written here, and the library is told to leave it out.
#include <fmt/format.h>
#include <sentencepiece_processor.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <unordered_set>

#include "src/base/errors.h"
#include "src/base/json.h"
#include "src/tokens/name_matcher.h"
#include "src/tokens/part_cache.h"
#include "src/tokens/sentencepiece_walk.h"
#include "src/tokens/tokenizer_state.h"

namespace coppice {

namespace {

/// True when some piece has a space symbol behind another character: then no cut at spaces is safe.
bool joins_words(const std::string& piece) {
  bool seen_other = false;
  for (size_t i = 0; i < piece.size();) {
    if (piece.compare(i, kSpaceSymbol.size(), kSpaceSymbol) == 0) {
      if (seen_other) return true;
      i += kSpaceSymbol.size();
    } else {
      seen_other = true;
      ++i;
    }
  }
  return false;
}

std::optional<int64_t> id_or_none(int id) { return id < 0 ? std::nullopt : std::optional<int64_t>(id); }

struct SentencePieceState : TokenizerState {
  sentencepiece::SentencePieceProcessor processor;
  bool cut_spaces = false, cut_newlines = false;
  NameMatcher controls;
  mutable Pool<PartCache> caches;

  void encode_plain(std::string_view text, std::vector<int>& ids) const {
    const sentencepiece::util::Status status = processor.Encode(text, &ids);
    COPPICE_CHECK(status.ok(), status.ToString());
  }

  /// Where the part that starts at `begin` ends.
  size_t part_end(std::string_view text, size_t begin) const {
    if (cut_newlines && text[begin] == '\n') {
      size_t end = begin + 1;  // a run of newlines is one part: they are separate ids anyway
      while (end < text.size() && end - begin < kMaxPartBytes && text[end] == '\n') ++end;
      return end;
    }
    bool seen_other = false;  // only spaces so far
    for (size_t i = begin; i < text.size(); ++i) {
      const char c = text[i];
      if (c == '\n' && cut_newlines) return i;
      if (c == ' ') {
        if (seen_other && cut_spaces) return i;
      } else if (c == kSpaceSymbol[0] && text.compare(i, kSpaceSymbol.size(), kSpaceSymbol) == 0) {
        if (seen_other && cut_spaces) return i;
        i += kSpaceSymbol.size() - 1;
      } else {
        seen_other = true;
      }
    }
    return text.size();
  }

  std::vector<int32_t> encode(std::string_view text) const override {
    std::vector<int32_t> ids;
    std::vector<int> part_ids;
    std::string prefixed;
    if (has_dummy_prefix && !text.empty()) text = prefixed.append(kSpaceSymbol).append(text);
    if (!cut_spaces && !cut_newlines) {
      encode_plain(text, part_ids);
      return {part_ids.begin(), part_ids.end()};
    }
    std::unique_ptr<PartCache> cache = caches.take();
    ids.reserve(text.size() / 3);
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = part_end(text, begin);
      const std::string_view part = text.substr(begin, end - begin);
      begin = end;
      if (part.size() > kMaxPartBytes) {
        encode_plain(part, part_ids);
        ids.insert(ids.end(), part_ids.begin(), part_ids.end());
        continue;
      }
      PartCache::Entry& entry = cache->find(part);
      if (entry.length == 0) {
        encode_plain(part, part_ids);
        ids.insert(ids.end(), part_ids.begin(), part_ids.end());
        if (cache->has_room()) cache->fill(entry, part, part_ids);
        continue;
      }
      const int32_t* const known = cache->ids(entry);
      ids.insert(ids.end(), known, known + entry.count);
    }
    caches.give_back(std::move(cache));
    return ids;
  }

  std::vector<int32_t> encode_with_specials(std::string_view text) const override {
    std::vector<int32_t> ids;
    for (size_t begin = 0; begin < text.size();) {
      const NameMatcher::Match found = controls.find(text, begin);
      const size_t end = found.id < 0 ? text.size() : found.begin;
      const std::vector<int32_t> between = encode(text.substr(begin, end - begin));
      ids.insert(ids.end(), between.begin(), between.end());
      if (found.id < 0) break;
      ids.push_back(static_cast<int32_t>(found.id));
      begin = found.end;
    }
    return ids;
  }

  std::string decode(const std::vector<int32_t>& ids) const override {
    std::string text;
    const sentencepiece::util::Status status = processor.Decode(std::vector<int>(ids.begin(), ids.end()), &text);
    COPPICE_CHECK(status.ok(), status.ToString());
    return text;
  }

  /// Control pieces and the unknown one stand for no text, byte pieces for one byte, all others for their own, with a
  /// space for U+2581 (three bytes).
  std::vector<int64_t> piece_bytes() const override {
    std::vector<int64_t> lengths;
    for (const Piece& piece : pieces) {
      int64_t bytes = 0;
      if (piece.type == PieceType::byte) {
        bytes = 1;
      } else if (piece.type != PieceType::control && piece.type != PieceType::unknown) {
        bytes = std::ssize(piece.text);
        for (size_t at = 0; (at = piece.text.find(kSpaceSymbol, at)) != std::string::npos; at += kSpaceSymbol.size())
          bytes -= 2;
      }
      lengths.push_back(bytes);
    }
    return lengths;
  }
  bool begins_with_space(const Piece& piece) const override { return piece.text.starts_with(kSpaceSymbol); }

  std::string make_fingerprint() const {
    Json list = Json::array(), merges = Json::array(), added = Json::array();
    for (size_t id = 0; id < pieces.size(); ++id) {
      const Piece& piece = pieces[id];
      list.push_back({piece.text, static_cast<int>(piece.type)});
      if (piece.type == PieceType::unknown || piece.type == PieceType::control || piece.type == PieceType::user_defined)
        added.push_back({{"id", id},
                         {"content", piece.text},
                         {"special", piece.type != PieceType::user_defined},
                         {"normalized", false},
                         {"lstrip", false},
                         {"rstrip", false},
                         {"single_word", false}});
    }
    const auto merge_pairs = merge_list(pieces);
    for (const auto& [left, right] : merge_pairs) merges.push_back({left, right});
    Json description = {{"family", "bpe-byte-fallback"},
                        {"pieces", list},
                        {"merges", merges},
                        {"added_tokens", added},
                        {"normalizer", has_dummy_prefix ? "prefix-and-space-to-U+2581" : "space-to-U+2581"},
                        {"pre_tokenizer", nullptr}};
    // What the lists above leave open, where it is not as in ours.
    if (find_equal_merges(pieces, merge_pairs))
      for (const Piece& piece : pieces) description["scores"].push_back(piece.score);
    if (processor.bos_id() != 1) description["bos_id"] = processor.bos_id();
    if (processor.eos_id() != 2) description["eos_id"] = processor.eos_id();
    return coppice::fingerprint(description);
  }
};

}  // namespace

std::unique_ptr<TokenizerState> read_sentencepiece(std::string bytes, const std::string& path) {
  auto state = std::make_unique<SentencePieceState>();
  SentencePieceState& s = *state;
  s.file_name = "tokenizer.model";
  s.file_bytes = std::move(bytes);
  SentencePieceModel model = walk_sentencepiece_model(s.file_bytes, path);
  s.pieces = std::move(model.pieces);
  s.has_dummy_prefix = model.add_dummy_prefix;
  const sentencepiece::util::Status status = s.processor.LoadFromSerializedProto(model.library_bytes);
  if (!status.ok()) throw UserError::bad_file(path, "SentencePiece refuses the model: " + status.ToString());
  if (static_cast<size_t>(s.processor.GetPieceSize()) != s.pieces.size())
    throw UserError::bad_file(path, "SentencePiece counts other pieces than the file holds");
  if (s.processor.eos_id() < 0)
    throw UserError::bad_file(path,
                              "the model has no control piece that ends a text (eos_id), which documents are separated "
                              "by; train it with eos_id >= 0");
  s.eos_id = s.processor.eos_id();
  s.bos_id = id_or_none(s.processor.bos_id());
  s.pad_id = id_or_none(s.processor.pad_id());
  // By type: the library finds the unknown piece by the name in its settings and answers -1 where that is another.
  s.unk_id = std::ranges::find(s.pieces, PieceType::unknown, &Piece::type) - s.pieces.begin();
  s.cut_spaces = s.cut_newlines = true;
  for (const Piece& piece : s.pieces) {
    // Pieces matched in raw text or taken apart again follow other rules: then whole texts go to the library.
    if (piece.type == PieceType::user_defined || piece.type == PieceType::unused) s.cut_spaces = s.cut_newlines = false;
    if (piece.type != PieceType::normal) continue;
    if (joins_words(piece.text)) s.cut_spaces = false;
    if (piece.text.find('\n') != std::string::npos) s.cut_newlines = false;
  }
  std::vector<std::pair<std::string, int64_t>> controls;
  for (size_t id = 0; id < s.pieces.size(); ++id)
    if (s.pieces[id].type == PieceType::control) controls.emplace_back(s.pieces[id].text, id);
  s.controls = NameMatcher(std::move(controls));
  s.fingerprint = s.make_fingerprint();
  return state;
}

std::vector<std::pair<std::string, std::string>> merge_list(const std::vector<Piece>& pieces) {
  std::vector<const Piece*> normal;
  std::unordered_set<std::string_view> names;
  for (const Piece& piece : pieces)
    if (piece.type == PieceType::normal) {
      normal.push_back(&piece);
      names.insert(piece.text);
    }
  std::ranges::stable_sort(normal, std::greater(), &Piece::score);
  std::vector<std::pair<std::string, std::string>> merges;
  for (const Piece* piece : normal) {
    const std::string_view text = piece->text;
    for (size_t cut = character_bytes(text[0]); cut < text.size(); cut += character_bytes(text[cut]))
      if (names.contains(text.substr(0, cut)) && names.contains(text.substr(cut)))
        merges.emplace_back(text.substr(0, cut), text.substr(cut));
  }
  return merges;
}

std::optional<std::pair<std::string, std::string>> find_equal_merges(
    const std::vector<Piece>& pieces, const std::vector<std::pair<std::string, std::string>>& merges) {
  std::unordered_map<std::string_view, float> score;
  for (const Piece& piece : pieces) score.emplace(piece.text, piece.score);
  std::string last;
  for (const auto& [left, right] : merges) {
    std::string merged = left + right;
    if (!last.empty() && merged != last && score.at(merged) == score.at(last)) return std::pair(last, merged);
    last = std::move(merged);
  }
  return std::nullopt;
}

}  // namespace coppice
