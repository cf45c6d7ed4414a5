#include "src/corpus/classify/document_features.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "src/base/errors.h"
#include "src/base/utf8_byte.h"
#include "src/text/words/normal_form.h"

namespace coppice {
namespace {

constexpr size_t kMaxWords = 2000, kMaxFeatures = 2 * kMaxWords, kSlots = 8192;
constexpr uint32_t kMaxCount = 1023;
constexpr size_t kPieceBytes = 8192;  // normalised at a time
static_assert(2 * kMaxFeatures <= kSlots);

/// Up to kPieceBytes, behind the last blank among them where there is one, between characters otherwise.
std::string_view first_piece(std::string_view text) {
  if (text.size() <= kPieceBytes) return text;
  if (const size_t blank = text.find_last_of(" \n\t", kPieceBytes - 1); blank != std::string_view::npos)
    return text.substr(0, blank + 1);
  return first_bytes(text, kPieceBytes);
}

}  // namespace

const std::array<double, kMaxCount + 1> kFeatureValues = [] {
  std::array<double, kMaxCount + 1> values = {};
  for (uint32_t i = 1; i <= kMaxCount; ++i) values[i] = 1 + std::log(i);
  return values;
}();

double feature_norm(std::span<const Feature> features) {
  double sum = 0;
  for (const Feature& feature : features) sum += feature_value(feature.count) * feature_value(feature.count);
  return std::sqrt(sum);
}

FeatureCounter::FeatureCounter(uint64_t buckets) : buckets_(buckets), slots_(kSlots) {
  COPPICE_CHECK(std::has_single_bit(buckets) && buckets <= kMaxBuckets, "buckets are a power of two up to 2^22");
  features_.reserve(kMaxFeatures);
}

/// The normal form of as many pieces as hold kMaxWords words, one behind the other with a blank between.
void FeatureCounter::read_words(std::string_view text) {
  normal_.clear();
  size_t words = 0;
  while (!text.empty() && words < kMaxWords) {
    const std::string_view piece = first_piece(text);
    text.remove_prefix(piece.size());
    normal_form(piece, piece_);
    if (piece_.empty()) continue;
    words += 1 + static_cast<size_t>(std::ranges::count(piece_, ' '));
    if (!normal_.empty()) normal_ += ' ';
    normal_ += piece_;
  }
}

void FeatureCounter::add(std::string_view words) {
  const auto bucket = static_cast<uint32_t>(XXH3_64bits(words.data(), words.size()) & (buckets_ - 1));
  for (size_t at = bucket % kSlots;; at = (at + 1) % kSlots) {
    if (slots_[at] == 0) {
      features_.push_back({.bucket = bucket, .count = 1});
      slots_[at] = static_cast<uint16_t>(features_.size());
      return;
    }
    if (Feature& feature = features_[slots_[at] - 1U]; feature.bucket == bucket) {
      feature.count += feature.count < kMaxCount;
      return;
    }
  }
}

std::span<const Feature> FeatureCounter::count(std::string_view text) {
  std::ranges::fill(slots_, uint16_t{0});
  features_.clear();
  read_words(text);
  const std::string_view normal = normal_;
  size_t before = 0;
  for (size_t begin = 0, word = 0; begin < normal.size() && word < kMaxWords; ++word) {
    const size_t end = std::min(normal.find(' ', begin), normal.size());
    add(normal.substr(begin, end - begin));
    if (word > 0) add(normal.substr(before, end - before));
    before = begin;
    begin = end + 1;
  }
  return features_;
}

}  // namespace coppice
