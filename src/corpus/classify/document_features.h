// What coppice's own classifier sees of a document: words and pairs of neighbouring words of its normal form, counted
// in buckets by hash. The value of a bucket is (1 + ln count) / norm, so that every document has length 1.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace coppice {

/// A bucket that occurs in a document, and how often (1023 at most).
struct Feature {
  uint32_t bucket : 22;
  uint32_t count : 10;
};
inline constexpr uint64_t kMaxBuckets = uint64_t{1} << 22;

extern const std::array<double, 1024> kFeatureValues;  // 1 + ln count, by count
inline double feature_value(uint32_t count) { return kFeatureValues[count]; }
/// sqrt of the sum of squares of the values; 0 for none.
double feature_norm(std::span<const Feature> features);

/// One thread's; reuses its tables from text to text.
class FeatureCounter {
 public:
  /// `buckets`: a power of two up to kMaxBuckets.
  explicit FeatureCounter(uint64_t buckets);
  /// Of the first 2,000 words of `text` (valid UTF-8), of which no more is read than that takes; each bucket once, in
  /// the order of first occurrence. Valid until the next call.
  std::span<const Feature> count(std::string_view text);

 private:
  void read_words(std::string_view text);
  void add(std::string_view words);

  uint64_t buckets_;
  std::string piece_, normal_;
  std::vector<uint16_t> slots_;  // of features_ by bucket; place + 1, 0 = empty
  std::vector<Feature> features_;
};

}  // namespace coppice
