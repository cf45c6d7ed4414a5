#include "src/corpus/dedup/signature.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

#include "src/base/json.h"
#include "src/base/random.h"
#include "src/text/words/normal_form.h"
#include "tests/project_folders.h"

using namespace coppice;

namespace {

std::vector<uint64_t> random_hashes(size_t count, uint64_t step) {
  std::vector<uint64_t> hashes;
  for (size_t i = 0; i < count; ++i) hashes.push_back(random_bits(1, Purpose::test, step, i));
  return hashes;
}

std::vector<uint64_t> shingle_set(const std::string& text, const ShingleOptions& options) {
  std::string normal;
  normal_form(text, normal);
  std::vector<uint64_t> hashes;
  shingle_hashes(normal, options, hashes);
  std::ranges::sort(hashes);
  hashes.erase(std::ranges::unique(hashes).begin(), hashes.end());
  return hashes;
}

const Json& fixture() {
  static const Json json = read_json(source_folder() / "tests/corpus/fixtures/near_duplicates.json");
  return json;
}

struct Caught {
  double caught = 0, mean = 0;  // shares of the pairs, of the values
};

/// Pairs of sets of `size` shingles that have `common` of them in common.
Caught catch_pairs(size_t size, size_t common, size_t pairs) {
  const SignatureShape shape;
  SignatureMaker maker(shape, 1);
  std::vector<uint32_t> a(shape.width()), b(shape.width());
  std::vector<uint64_t> bands_a(14), bands_b(14);
  uint64_t caught = 0, agreeing = 0;
  for (size_t pair = 0; pair < pairs; ++pair) {
    const std::vector<uint64_t> all = random_hashes(2 * size - common, (size << 40) + (common << 20) + pair);
    maker.make(std::span(all).first(size), a);
    maker.make(std::span(all).last(size), b);
    band_hashes(a, shape, 0, bands_a);
    band_hashes(b, shape, 0, bands_b);
    bool met = false;
    for (size_t band = 0; band < bands_a.size(); ++band) met = met || bands_a[band] == bands_b[band];
    caught += met ? 1 : 0;
    agreeing += agreements(a.data(), b.data(), a.size());
  }
  const auto count = static_cast<double>(pairs);
  return {.caught = static_cast<double>(caught) / count,
          .mean = static_cast<double>(agreeing) / count / static_cast<double>(shape.width())};
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("signature: pairs meet as often as the curve says, and agree in as many values as they are similar") {
    constexpr size_t kPairs = 2000;
    for (const size_t size : {20, 300})
      for (const double wanted : {0.5, 0.6, 0.7, 0.72, 0.75, 0.8, 0.85, 0.9}) {
        const auto common = static_cast<size_t>(std::lround(2 * wanted / (1 + wanted) * static_cast<double>(size)));
        const double similarity = static_cast<double>(common) / static_cast<double>(2 * size - common);
        const double expected = catch_probability(similarity, {});
        const Caught found = catch_pairs(size, common, kPairs);
        const double z = (found.caught - expected) / std::sqrt(expected * (1 - expected) / kPairs);
        CAPTURE(size);
        CAPTURE(similarity);
        CAPTURE(found.caught);
        CHECK(std::abs(z) < 3);
        CHECK(std::abs(found.mean - similarity) < 0.003);
      }
  }

  TEST_CASE("signature: the curve of 14 x 8 is the fixture's, and of other shapes their own") {
    for (const auto& [similarity, probability] : fixture()["curve_14x8"].items())
      CHECK(catch_probability(std::stod(similarity), {}) == doctest::Approx(probability.get<double>()).epsilon(1e-12));
    CHECK(catch_probability(0.5, {.bands = 1, .rows = 1}) == doctest::Approx(0.5));
    CHECK(catch_probability(0.8, {.bands = 20, .rows = 13}) ==
          doctest::Approx(1 - std::pow(1 - std::pow(0.8, 13), 20)));
    CHECK(catch_curve({}) == "0.5: 0.053, 0.6: 0.211, 0.7: 0.565, 0.8: 0.924, 0.9: 1.000, 0.95: 1.000");
  }

  TEST_CASE("signature: vectors of every width compute what the plain loop does") {
    for (const int bands : {1, 2, 14, 15, 20, 33})
      for (const size_t count : {0, 1, 2, 47, 2048, 2049, 5000}) {
        const SignatureShape shape{.bands = bands, .rows = 7};
        const std::vector<uint64_t> hashes = random_hashes(count, 7);
        std::vector<uint32_t> plain(shape.width()), avx2(shape.width()), avx512(shape.width());
        SignatureMaker(shape, 3, SignatureMaker::Code::portable).make(hashes, plain);
        SignatureMaker(shape, 3, SignatureMaker::Code::avx2).make(hashes, avx2);
        SignatureMaker(shape, 3, SignatureMaker::Code::avx512).make(hashes, avx512);
        CHECK(avx2 == plain);
        CHECK(avx512 == plain);
        CHECK((count > 0) == (*std::ranges::min_element(plain) < 0xffffffff));
      }
  }

  TEST_CASE("signature: the order of shingles and their number do not count, the seed does") {
    std::vector<uint64_t> hashes = random_hashes(50, 9);
    std::vector<uint32_t> first(112), second(112);
    SignatureMaker(SignatureShape(), 1).make(hashes, first);
    std::ranges::reverse(hashes);
    hashes.push_back(hashes[3]);
    SignatureMaker(SignatureShape(), 1).make(hashes, second);
    CHECK(first == second);
    SignatureMaker(SignatureShape(), 2).make(hashes, second);
    CHECK(agreements(first.data(), second.data(), 112) < 10);
  }

  TEST_CASE("shingles: words in a row, or code points; a shorter text is one, a text without words none") {
    std::vector<uint64_t> hashes;
    const auto count = [&](const char* normal, const ShingleOptions& options) {
      shingle_hashes(normal, options, hashes);
      return hashes.size();
    };
    CHECK(count("", {}) == 0);
    CHECK(count("a", {}) == 1);
    CHECK(count("a b c d", {}) == 1);
    CHECK(count("a b c d e", {}) == 1);
    CHECK(count("a b c d e f", {}) == 2);
    const ShingleOptions three{.unit = ShingleUnit::chars, .length = 3};
    CHECK(count("ab", three) == 1);
    CHECK(count("漢字仮名", three) == 2);
    CHECK(count("a字b名", three) == 2);
    shingle_hashes("x y", {.unit = ShingleUnit::words, .length = 1}, hashes);
    const std::vector<uint64_t> words = hashes;
    shingle_hashes("y x", {.unit = ShingleUnit::words, .length = 1}, hashes);
    CHECK(hashes == std::vector<uint64_t>(words.rbegin(), words.rend()));
  }

  TEST_CASE("shingles: options by name") {
    ShingleOptions options;
    CHECK(parse_shingle("chars:24", options));
    CHECK(options.unit == ShingleUnit::chars);
    CHECK(options.length == 24);
    CHECK(parse_shingle("words:1", options));
    CHECK(options.unit == ShingleUnit::words);
    CHECK(parse_shingle("code:5", options));
    CHECK(options.length == 5);
    CHECK_FALSE(parse_shingle("code", options));
    for (const char* text : {"", "words", "words:", "words:0", "words:1001", "words:5x", "lines:5", "words:-1"})
      CHECK_FALSE(parse_shingle(text, options));
  }

  TEST_CASE("jaccard: the pairs of the fixture, exactly") {
    for (const Json& pair : fixture()["pairs"]) {
      const std::vector<uint64_t> a = shingle_set(pair["a"], {}), b = shingle_set(pair["b"], {});
      CHECK(a.size() == pair["shingles_a"]);
      CHECK(b.size() == pair["shingles_b"]);
      CHECK(jaccard(a, b) == pair["jaccard"].get<double>());
    }
  }
}
