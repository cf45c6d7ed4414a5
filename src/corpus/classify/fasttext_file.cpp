#include "src/corpus/classify/fasttext_file.h"

#include <fmt/format.h>

#include <bit>
#include <cstring>
#include <unordered_set>

#include "src/base/checked.h"
#include "src/base/errors.h"

namespace coppice {
namespace {

static_assert(std::endian::native == std::endian::little, "numbers are read as they lie in the file");
constexpr int32_t kMagic = 793712314, kVersion = 12, kSupervised = 3;
constexpr int32_t kLongest = 64;             // subwords in characters, n-grams in words: time a character is bounded
constexpr uint64_t kEntryBytes = 1 + 8 + 1;  // the least that one takes
constexpr uint64_t kMaxCount = uint64_t{1} << 49;  // of all labels: what libfasttext's tree can tell from its infinity

/// Walks the file; what it hands out lies in it.
class Walk {
 public:
  Walk(std::string_view bytes, const std::string& where) : all_(bytes), where_(where) {}

  uint64_t left() const { return all_.size() - at_; }
  std::string_view take(uint64_t bytes, const char* what) {
    if (bytes > left())
      refuse(fmt::format("{} at byte {}: {} bytes, {} are left in the file", what, at_, bytes, left()));
    const std::string_view taken = all_.substr(at_, bytes);
    at_ += bytes;
    return taken;
  }
  template <class T>
  T number(const char* what) {
    T value;
    std::memcpy(&value, take(sizeof(T), what).data(), sizeof(T));
    return value;
  }
  std::string_view text(const char* what) {
    const size_t end = all_.find('\0', at_);
    if (end == std::string_view::npos) refuse(fmt::format("{} at byte {} has no end", what, at_));
    const std::string_view taken = take(end - at_, what);
    ++at_;
    return taken;
  }
  [[noreturn]] void refuse(const std::string& message) const { throw UserError::bad_file(where_, message); }

 private:
  std::string_view all_;
  const std::string& where_;
  uint64_t at_ = 0;
};

void read_settings(Walk& walk, FastTextFile& file) {
  if (const auto magic = walk.number<int32_t>("the magic"); magic != kMagic)
    walk.refuse(fmt::format("starts with {}, expected {} of a fastText model (.bin)", magic, kMagic));
  if (const auto version = walk.number<int32_t>("the version"); version != kVersion)
    walk.refuse(fmt::format("fastText version {}, {} is read", version, kVersion));
  const auto dim = walk.number<int32_t>("dim");
  for (const char* unused : {"ws", "epoch", "minCount", "neg"}) walk.number<int32_t>(unused);
  file.word_ngrams = walk.number<int32_t>("wordNgrams");
  const auto loss = walk.number<int32_t>("loss"), model = walk.number<int32_t>("model");
  const auto bucket = walk.number<int32_t>("bucket");
  file.min_chars = walk.number<int32_t>("minn");
  file.max_chars = walk.number<int32_t>("maxn");
  walk.number<int32_t>("lrUpdateRate");
  walk.number<double>("t");
  if (model != kSupervised)
    walk.refuse(fmt::format("a model of kind {}, expected {}: a supervised one, which has labels", model, kSupervised));
  if (loss < 1 || loss > 4) walk.refuse(fmt::format("loss: got {}, 1 (hs) to 4 (ova) are known", loss));
  if (dim < 1) walk.refuse(fmt::format("dim: got {}, expected at least 1", dim));
  if (file.word_ngrams > kLongest || file.max_chars > kLongest)
    walk.refuse(
        fmt::format("wordNgrams {} and maxn {}: at most {} are read", file.word_ngrams, file.max_chars, kLongest));
  if (bucket < 0 || (bucket == 0 && (file.word_ngrams > 1 || file.max_chars > 0)))
    walk.refuse(fmt::format("bucket: got {}, and wordNgrams {} and maxn {} need some", bucket, file.word_ngrams,
                            file.max_chars));
  file.dim = static_cast<uint64_t>(dim);
  file.loss = static_cast<FastTextLoss>(loss);
  file.buckets = static_cast<uint32_t>(bucket);
}

void read_dictionary(Walk& walk, FastTextFile& file) {
  const auto entries = walk.number<int32_t>("the number of entries");
  const auto words = walk.number<int32_t>("the number of words"), labels = walk.number<int32_t>("the number of labels");
  walk.number<int64_t>("the number of tokens");
  const auto pruned = walk.number<int64_t>("the number of pruned pairs");
  if (words < 0 || labels < 1 || static_cast<int64_t>(words) + labels != entries)
    walk.refuse(fmt::format("{} entries, {} of them words and {} labels; expected a label or more, and no others",
                            entries, words, labels));
  if (static_cast<uint64_t>(entries) > walk.left() / kEntryBytes)
    walk.refuse(fmt::format("{} entries, {} bytes are left in the file", entries, walk.left()));
  if (pruned != -1)
    walk.refuse("is a pruned model, as quantising makes them (.ftz); give the .bin that it was made from");
  std::unordered_set<std::string_view> known;
  known.reserve(static_cast<size_t>(entries));
  file.words.reserve(static_cast<size_t>(words));
  uint64_t total = 0;
  for (int32_t i = 0; i < entries; ++i) {
    const std::string_view text = walk.text("an entry");
    const auto count = walk.number<int64_t>("a count");
    const auto type = walk.number<int8_t>("the type of an entry");
    if (type != (i < words ? 0 : 1))
      walk.refuse(fmt::format("entry {} ('{}'): type {}; expected {} words (0), then {} labels (1)", i, printable(text),
                              type, words, labels));
    if (!known.insert(text).second) walk.refuse(fmt::format("'{}' stands twice", printable(text)));
    if (i < words) {
      file.words.push_back(text);
      continue;
    }
    if (count < 0 || static_cast<uint64_t>(count) > kMaxCount || (total += static_cast<uint64_t>(count)) > kMaxCount)
      walk.refuse(fmt::format("label '{}': count {}, at most {} of all are read", printable(text), count, kMaxCount));
    file.labels.push_back(text);
    file.label_counts.push_back(static_cast<uint64_t>(count));
  }
}

/// The weights as they lie in the file.
const char* read_matrix(Walk& walk, const char* what, uint64_t rows, uint64_t columns, const std::string& where) {
  const auto quantised = walk.number<uint8_t>("whether weights are quantised");
  if (quantised == 1)
    walk.refuse("is a quantised model (.ftz), which is not read; give the .bin that it was made from");
  if (quantised != 0) walk.refuse(fmt::format("{}: quantised is {}, expected 0 or 1", what, quantised));
  const auto stored_rows = walk.number<int64_t>("rows"), stored_columns = walk.number<int64_t>("columns");
  if (stored_rows < 0 || static_cast<uint64_t>(stored_rows) != rows || stored_columns < 0 ||
      static_cast<uint64_t>(stored_columns) != columns)
    walk.refuse(fmt::format("{}: {} x {} weights, expected {} x {}", what, stored_rows, stored_columns, rows, columns));
  const std::string_view bytes = walk.take(checked_multiply(checked_multiply(rows, columns, where), 4, where), what);
  uint32_t worst = 0;  // the largest exponent; all ones: infinity or no number
  for (size_t at = 0; at < bytes.size(); at += 4) {
    uint32_t bits;
    std::memcpy(&bits, bytes.data() + at, 4);
    worst = std::max(worst, bits & 0x7F800000U);
  }
  if (worst == 0x7F800000U) walk.refuse(fmt::format("{}: weights that are no finite numbers", what));
  return bytes.data();
}

}  // namespace

FastTextFile read_fasttext_file(std::string_view bytes, const std::string& where) {
  Walk walk(bytes, where);
  FastTextFile file;
  read_settings(walk, file);
  read_dictionary(walk, file);
  file.input = read_matrix(walk, "the input matrix", file.words.size() + file.buckets, file.dim, where);
  file.output = read_matrix(walk, "the output matrix", file.labels.size(), file.dim, where);
  if (walk.left() != 0) walk.refuse(fmt::format("{} bytes behind the output matrix", walk.left()));
  return file;
}

bool is_fasttext_file(std::string_view bytes) {
  return bytes.size() >= 4 && std::memcmp(bytes.data(), &kMagic, 4) == 0;
}

}  // namespace coppice
