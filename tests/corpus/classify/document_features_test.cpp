#include "src/corpus/classify/document_features.h"

#include <doctest/doctest.h>
#include <xxhash.h>

#include <cmath>
#include <map>

using namespace coppice;

namespace {

using Counts = std::map<uint32_t, uint32_t>;

Counts counts_of(std::string_view text, uint64_t buckets = kMaxBuckets) {
  FeatureCounter counter(buckets);
  Counts counts;
  for (const Feature& feature : counter.count(text)) CHECK(counts.emplace(feature.bucket, feature.count).second);
  return counts;
}

uint32_t bucket_of(std::string_view words) { return XXH3_64bits(words.data(), words.size()) % kMaxBuckets; }

std::string repeated(const std::string& text, size_t times) {
  std::string all;
  for (size_t i = 0; i < times; ++i) all += text;
  return all;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("document_features: words and pairs of the normal form, counted") {
    const Counts expected = {{bucket_of("the"), 2},     {bucket_of("cat"), 1},   {bucket_of("the cat"), 1},
                             {bucket_of("cat the"), 1}, {bucket_of("the 0"), 1}, {bucket_of("0"), 1}};
    CHECK(counts_of("The  cat, the 3.14!") == expected);
    CHECK(counts_of("").empty());
    CHECK(counts_of(" ... \n").empty());
  }

  TEST_CASE("document_features: no more than 2,000 words and a count of 1,023") {
    const Counts counts = counts_of(repeated("a ", 2000) + "b");
    CHECK(counts == Counts{{bucket_of("a"), 1023}, {bucket_of("a a"), 1023}});
    CHECK(counts_of(repeated("a ", 1999) + "b").contains(bucket_of("a b")));
  }

  TEST_CASE("document_features: words lie in pieces of the text as they lie in it") {
    std::string text;
    Counts expected;
    std::string before;
    for (int i = 0; i < 1900; ++i) {  // 30 kB: several pieces
      const std::string word = "word" + std::string(1, static_cast<char>('a' + i % 26)) + std::string(i % 20, 'x');
      text += word + (i % 7 == 0 ? "\n" : " ");
      ++expected[bucket_of(word)];
      if (i > 0) ++expected[bucket_of(before + " " + word)];
      before = word;
    }
    CHECK(counts_of(text) == expected);
  }

  TEST_CASE("document_features: a word of 64 MB costs no more than its pieces, cut between characters") {
    const std::string letters = repeated("\xC3\xA4\xE6\x96\x87", 1 << 20);
    const Counts counts = counts_of(letters, 1 << 10);
    CHECK(counts.size() > 2);
    CHECK(counts.size() <= 1 << 10);
  }

  TEST_CASE("document_features: value and norm by hand") {
    CHECK(feature_value(1) == 1);
    CHECK(feature_value(3) == doctest::Approx(1 + std::log(3)));
    CHECK(feature_norm(std::vector<Feature>{{1, 1}, {2, 3}}) ==
          doctest::Approx(std::sqrt(1 + std::pow(1 + std::log(3), 2))));
    CHECK(feature_norm({}) == 0);
  }
}
