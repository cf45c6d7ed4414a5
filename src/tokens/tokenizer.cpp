// Encoding. The library encodes whole texts; most of a text is words seen before, so the text is cut where no piece can
// reach across and the ids of short parts are remembered: 2-3 times the speed, the same ids. A cut is safe
//   - before a run of spaces (or U+2581, which is the same to the model) that follows another character, if no piece
//   holds such a place,
//   - around a newline, if no piece holds one,
// because BPE merges only towards pieces, and merges on two sides of a cut do not see each other.
// The dummy prefix belongs to a text, not to a part: it is written here, and the library is told to leave it out.
#include "src/tokens/tokenizer.h"

#include <fmt/format.h>
#include <sentencepiece_processor.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <mutex>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <unordered_set>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/json.h"
#include "src/tokens/sentencepiece_walk.h"

namespace coppice {

namespace {

constexpr size_t kMaxPartBytes = 32;

/// Ids of short parts, open addressing over 2^18 places; full means no more entries: the first half of a corpus holds
/// the frequent words.
class PartCache {
 public:
  PartCache() : entries_(kPlaces) {}

  /// The entry of this part, or the free one where it belongs.
  struct Entry {
    std::array<char, kMaxPartBytes> key{};
    uint32_t first = 0;
    uint8_t length = 0;  // 0 = free
    uint8_t count = 0;
  };
  Entry& find(std::string_view part) {
    std::array<char, kMaxPartBytes> key{};
    std::memcpy(key.data(), part.data(), part.size());
    for (uint64_t place = XXH3_64bits(part.data(), part.size());; ++place) {
      Entry& entry = entries_[place & (kPlaces - 1)];
      if (entry.length == 0 || (entry.length == part.size() && entry.key == key)) return entry;
    }
  }
  bool has_room() const { return used_ < kPlaces / 2; }
  void fill(Entry& entry, std::string_view part, const std::vector<int>& ids) {
    std::memcpy(entry.key.data(), part.data(), part.size());
    entry.length = static_cast<uint8_t>(part.size());
    entry.count = static_cast<uint8_t>(ids.size());
    entry.first = static_cast<uint32_t>(ids_.size());
    ids_.insert(ids_.end(), ids.begin(), ids.end());
    ++used_;
  }
  const int32_t* ids(const Entry& entry) const { return ids_.data() + entry.first; }

 private:
  static constexpr size_t kPlaces = size_t{1} << 18;
  std::vector<Entry> entries_;
  std::vector<int32_t> ids_;
  size_t used_ = 0;
};

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

}  // namespace

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

struct Tokenizer::State {
  sentencepiece::SentencePieceProcessor processor;
  std::vector<Piece> pieces;
  std::string model_bytes, fingerprint;
  int64_t unk_id = 0;
  bool dummy_prefix = false, cut_spaces = false, cut_newlines = false;
  std::mutex mutex;                                // guards the list below, not the caches in it
  std::vector<std::unique_ptr<PartCache>> caches;  // one per thread that encodes at the same time

  std::unique_ptr<PartCache> take_cache() {
    const std::lock_guard lock(mutex);
    if (caches.empty()) return std::make_unique<PartCache>();
    std::unique_ptr<PartCache> cache = std::move(caches.back());
    caches.pop_back();
    return cache;
  }
  void give_back(std::unique_ptr<PartCache> cache) {
    const std::lock_guard lock(mutex);
    caches.push_back(std::move(cache));
  }

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
                        {"normalizer", dummy_prefix ? "prefix-and-space-to-U+2581" : "space-to-U+2581"},
                        {"pre_tokenizer", nullptr}};
    // What the lists above leave open, where it is not as in ours.
    if (find_equal_merges(pieces, merge_pairs))
      for (const Piece& piece : pieces) description["scores"].push_back(piece.score);
    if (processor.bos_id() != 1) description["bos_id"] = processor.bos_id();
    if (processor.eos_id() != 2) description["eos_id"] = processor.eos_id();
    return coppice::fingerprint(description);
  }
};

Tokenizer::Tokenizer() : state_(std::make_unique<State>()) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Tokenizer Tokenizer::load(const std::filesystem::path& model_file) {
  const std::string path = model_file.string();
  Tokenizer tokenizer;
  State& s = *tokenizer.state_;
  s.model_bytes = read_file(model_file, kMaxModelBytes);
  SentencePieceModel model = walk_sentencepiece_model(s.model_bytes, path);
  s.pieces = std::move(model.pieces);
  s.dummy_prefix = model.add_dummy_prefix;
  const sentencepiece::util::Status status = s.processor.LoadFromSerializedProto(model.library_bytes);
  if (!status.ok()) throw UserError::bad_file(path, "SentencePiece refuses the model: " + status.ToString());
  if (static_cast<size_t>(s.processor.GetPieceSize()) != s.pieces.size())
    throw UserError::bad_file(path, "SentencePiece counts other pieces than the file holds");
  if (s.processor.eos_id() < 0)
    throw UserError::bad_file(path,
                              "the model has no control piece that ends a text (eos_id), which documents are separated "
                              "by; train it with eos_id >= 0");
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
  s.fingerprint = s.make_fingerprint();
  return tokenizer;
}

int64_t Tokenizer::vocab_size() const { return static_cast<int64_t>(state_->pieces.size()); }
int64_t Tokenizer::unk_id() const { return state_->unk_id; }
std::optional<int64_t> Tokenizer::bos_id() const { return id_or_none(state_->processor.bos_id()); }
int64_t Tokenizer::eos_id() const { return state_->processor.eos_id(); }
std::optional<int64_t> Tokenizer::pad_id() const { return id_or_none(state_->processor.pad_id()); }
bool Tokenizer::has_dummy_prefix() const { return state_->dummy_prefix; }
const std::vector<Piece>& Tokenizer::pieces() const { return state_->pieces; }
const std::string& Tokenizer::model_bytes() const { return state_->model_bytes; }
const std::string& Tokenizer::fingerprint() const { return state_->fingerprint; }

std::vector<int32_t> Tokenizer::encode(std::string_view text) const {
  State& s = *state_;
  std::vector<int32_t> ids;
  std::vector<int> part_ids;
  std::string prefixed;
  if (s.dummy_prefix && !text.empty()) text = prefixed.append(kSpaceSymbol).append(text);
  if (!s.cut_spaces && !s.cut_newlines) {
    s.encode_plain(text, part_ids);
    return {part_ids.begin(), part_ids.end()};
  }
  std::unique_ptr<PartCache> cache = s.take_cache();
  ids.reserve(text.size() / 3);
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = s.part_end(text, begin);
    const std::string_view part = text.substr(begin, end - begin);
    begin = end;
    if (part.size() > kMaxPartBytes) {
      s.encode_plain(part, part_ids);
      ids.insert(ids.end(), part_ids.begin(), part_ids.end());
      continue;
    }
    PartCache::Entry& entry = cache->find(part);
    if (entry.length == 0) {
      s.encode_plain(part, part_ids);
      ids.insert(ids.end(), part_ids.begin(), part_ids.end());
      if (cache->has_room()) cache->fill(entry, part, part_ids);
      continue;
    }
    const int32_t* const known = cache->ids(entry);
    ids.insert(ids.end(), known, known + entry.count);
  }
  s.give_back(std::move(cache));
  return ids;
}

std::string Tokenizer::decode(const std::vector<int32_t>& ids) const {
  std::string text = decode_continuation(ids);
  if (!state_->dummy_prefix) return text;
  const auto first = std::ranges::find_if(
      ids, [&](int32_t id) { return state_->pieces[static_cast<size_t>(id)].type != PieceType::control; });
  const bool has_prefix = first != ids.end() && *first != state_->unk_id &&
                          state_->pieces[static_cast<size_t>(*first)].text.starts_with(kSpaceSymbol);
  return has_prefix ? text.substr(1) : text;
}

std::string Tokenizer::decode_continuation(const std::vector<int32_t>& ids) const {
  for (const int32_t id : ids)
    COPPICE_CHECK(id >= 0 && id < vocab_size(), fmt::format("id {} of a vocabulary of {}", id, vocab_size()));
  std::string text;
  const sentencepiece::util::Status status = state_->processor.Decode(std::vector<int>(ids.begin(), ids.end()), &text);
  COPPICE_CHECK(status.ok(), status.ToString());
  return text;
}

}  // namespace coppice
