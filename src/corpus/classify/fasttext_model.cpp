#include "src/corpus/classify/fasttext_model.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "src/base/utf8_byte.h"

namespace coppice {
namespace {

constexpr std::string_view kEndOfLine = "</s>", kLabelPrefix = "__label__";
constexpr std::string_view kSeparators(" \n\r\t\v\f\0", 7);

/// 32-bit FNV-1a, bytes taken as signed numbers.
constexpr uint32_t kHashStart = 2166136261U;
uint32_t hash_on(uint32_t hash, char byte) {
  return (hash ^ static_cast<uint32_t>(static_cast<int8_t>(byte))) * 16777619U;
}
uint32_t hash_of(std::string_view text) {
  uint32_t hash = kHashStart;
  for (const char byte : text) hash = hash_on(hash, byte);
  return hash;
}

float log_of(float x) { return static_cast<float>(std::log(x + 1e-5)); }

/// libfasttext's table: steps of 1/32 between -8 and 8.
float sigmoid(float x) {
  constexpr int64_t kSteps = 512, kMost = 8;
  static const std::vector<float> table = [] {
    std::vector<float> values;
    for (int64_t i = 0; i <= kSteps; ++i) {
      const float at = static_cast<float>(i * 2 * kMost) / static_cast<float>(kSteps) - static_cast<float>(kMost);
      values.push_back(static_cast<float>(1.0 / (1.0 + std::exp(-at))));
    }
    return values;
  }();
  if (!(x >= -kMost)) return 0;  // also what is no number, from weights near the limit of float
  if (x > kMost) return 1;
  return table[static_cast<size_t>((x + kMost) * kSteps / kMost / 2)];
}

}  // namespace

std::string_view bare_label(std::string_view label) {
  return label.starts_with(kLabelPrefix) ? label.substr(kLabelPrefix.size()) : label;
}

FastTextModel::FastTextModel(std::string_view bytes, const std::string& where)
    : file_(read_fasttext_file(bytes, where)) {
  const size_t entries = file_.words.size() + file_.labels.size();
  slots_.assign(std::bit_ceil(2 * entries), -1);
  for (size_t id = 0; id < entries; ++id) {
    size_t at = hash_of(entry(id)) & (slots_.size() - 1);
    while (slots_[at] >= 0) at = (at + 1) & (slots_.size() - 1);
    slots_[at] = static_cast<int32_t>(id);
  }
  if (file_.loss == FastTextLoss::hierarchical_softmax) make_tree();
}

FastTextModel::FastTextModel(const std::filesystem::path& path)
    : FastTextModel(path, std::make_unique<MappedFile>(path)) {}

FastTextModel::FastTextModel(const std::filesystem::path& path, std::unique_ptr<MappedFile> mapping)
    : FastTextModel(mapping->bytes(), path.native()) {
  mapping_ = std::move(mapping);
}

/// Huffman's, of labels sorted by falling counts: leaves 0 to labels - 1, then the nodes in the order of their making.
void FastTextModel::make_tree() {
  const size_t labels = file_.labels.size();
  std::vector<uint64_t> counts = file_.label_counts;
  size_t leaf = labels, node = labels;  // the next leaf from behind, the next node
  for (size_t made = labels; made + 1 < 2 * labels; ++made) {
    const auto take = [&] {
      const bool takes_leaf = leaf > 0 && (node == counts.size() || counts[leaf - 1] < counts[node]);
      return takes_leaf ? --leaf : node++;
    };
    const size_t left = take(), right = take();
    tree_.push_back({static_cast<int32_t>(left), static_cast<int32_t>(right)});
    counts.push_back(counts[left] + counts[right]);
  }
}

std::string_view FastTextModel::entry(size_t id) const {
  return id < file_.words.size() ? file_.words[id] : file_.labels[id - file_.words.size()];
}

int32_t FastTextModel::find_entry(std::string_view text, uint32_t hash) const {
  size_t at = hash & (slots_.size() - 1);
  while (slots_[at] >= 0 && entry(static_cast<size_t>(slots_[at])) != text) at = (at + 1) & (slots_.size() - 1);
  return slots_[at];
}

uint64_t FastTextModel::add_row(uint64_t row, Room& room) const {
  const char* __restrict from = file_.input + row * file_.dim * sizeof(float);
  float* __restrict to = room.hidden.data();
  for (uint64_t j = 0; j < file_.dim; ++j) {
    float value;
    std::memcpy(&value, from + j * sizeof(float), sizeof(float));
    to[j] += value;
  }
  return 1;
}

/// Of `<word>`: all runs of min_chars to max_chars characters, a bracket alone being none.
uint64_t FastTextModel::add_subwords(std::string_view word, Room& room) const {
  if (file_.max_chars <= 0) return 0;
  uint64_t added = 0;
  std::string& text = room.word;
  text.assign(1, '<').append(word).push_back('>');
  for (size_t begin = 0; begin < text.size(); ++begin) {
    if (is_continuation_byte(text[begin])) continue;
    uint32_t hash = kHashStart;
    size_t end = begin;
    for (int32_t chars = 1; end < text.size() && chars <= file_.max_chars; ++chars) {
      do hash = hash_on(hash, text[end++]);
      while (end < text.size() && is_continuation_byte(text[end]));
      const bool is_bracket = chars == 1 && (begin == 0 || end == text.size());
      if (chars >= file_.min_chars && !is_bracket) added += add_row(file_.words.size() + hash % file_.buckets, room);
    }
  }
  return added;
}

uint64_t FastTextModel::add_word(std::string_view word, Room& room) const {
  const uint32_t hash = hash_of(word);
  const int32_t id = find_entry(word, hash);
  const bool is_label = id < 0 ? word.starts_with(kLabelPrefix) : static_cast<size_t>(id) >= file_.words.size();
  if (is_label) return 0;
  room.word_hashes.push_back(static_cast<int32_t>(hash));
  uint64_t added = id < 0 ? 0 : add_row(static_cast<uint64_t>(id), room);
  if (word != kEndOfLine) added += add_subwords(word, room);
  return added;
}

uint64_t FastTextModel::add_word_ngrams(Room& room) const {
  uint64_t added = 0;
  const std::vector<int32_t>& hashes = room.word_hashes;
  const auto longest = static_cast<size_t>(std::max(file_.word_ngrams, 1));
  for (size_t begin = 0; begin < hashes.size(); ++begin) {
    auto hash = static_cast<uint64_t>(int64_t{hashes[begin]});  // with their signs
    for (size_t at = begin + 1; at < hashes.size() && at < begin + longest; ++at) {
      hash = hash * 116049371 + static_cast<uint64_t>(int64_t{hashes[at]});
      added += add_row(file_.words.size() + hash % file_.buckets, room);
    }
  }
  return added;
}

std::span<const float> FastTextModel::predict(std::string_view text, Room& room) const {
  room.word_hashes.clear();
  room.hidden.assign(file_.dim, 0.0F);
  uint64_t added = 0;
  bool ended = false;
  for (size_t begin = 0; !ended && (begin = text.find_first_not_of(kSeparators, begin)) != std::string_view::npos;) {
    const size_t end = std::min(text.find_first_of(kSeparators, begin), text.size());
    const std::string_view word = text.substr(begin, end - begin);
    added += add_word(word, room);
    ended = word == kEndOfLine;
    begin = end;
  }
  if (!ended) added += add_word(kEndOfLine, room);
  added += add_word_ngrams(room);
  if (added == 0) return {};
  const auto scale = static_cast<float>(1.0 / static_cast<double>(added));
  for (float& value : room.hidden) value *= scale;
  room.probabilities.resize(file_.labels.size());
  if (file_.loss == FastTextLoss::hierarchical_softmax) {
    walk_tree(room);
  } else if (file_.loss == FastTextLoss::softmax) {
    softmax(room);
  } else {
    sigmoids(room);
  }
  return room.probabilities;
}

float FastTextModel::output(uint64_t row, const Room& room) const {
  const char* from = file_.output + row * file_.dim * sizeof(float);
  float sum = 0;
  for (uint64_t j = 0; j < file_.dim; ++j) {
    float value;
    std::memcpy(&value, from + j * sizeof(float), sizeof(float));
    sum += value * room.hidden[j];
  }
  return sum;
}

void FastTextModel::softmax(Room& room) const {
  for (size_t i = 0; i < room.probabilities.size(); ++i) room.probabilities[i] = output(i, room);
  const float most = std::ranges::max(room.probabilities);
  float sum = 0;
  for (float& value : room.probabilities) sum += value = std::exp(value - most);
  for (float& value : room.probabilities) value = std::exp(log_of(value / sum));
}

void FastTextModel::sigmoids(Room& room) const {
  for (size_t i = 0; i < room.probabilities.size(); ++i)
    room.probabilities[i] = std::exp(log_of(sigmoid(output(i, room))));
}

void FastTextModel::walk_tree(Room& room) const {
  const size_t labels = file_.labels.size();
  room.nodes.assign(labels + tree_.size(), 0.0F);  // log-probabilities; the root stands last
  for (size_t node = tree_.size(); node-- > 0;) {
    const auto right = static_cast<float>(1.0 / (1.0F + std::exp(-output(node, room))));
    const float above = room.nodes[labels + node];
    room.nodes[static_cast<size_t>(tree_[node].left)] = above + log_of(static_cast<float>(1.0 - right));
    room.nodes[static_cast<size_t>(tree_[node].right)] = above + log_of(right);
  }
  for (size_t i = 0; i < labels; ++i) room.probabilities[i] = std::exp(room.nodes[i]);
}

}  // namespace coppice
