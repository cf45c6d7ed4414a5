// The index of n-grams and what is found by it.
#include "src/corpus/decontaminate/ngram_index.h"

#include <doctest/doctest.h>

#include <map>

#include "src/base/errors.h"
#include "src/corpus/decontaminate/hits.h"
#include "src/corpus/decontaminate/verdict.h"
#include "tests/scratch_folder.h"

using namespace coppice;

namespace {

Benchmark benchmark(std::vector<BenchmarkItem> items) { return {.name = "b", .items = std::move(items)}; }

std::vector<std::string> texts(const NgramIndex& index, std::span<const uint32_t> ngrams) {
  std::vector<std::string> all;
  for (const uint32_t ngram : ngrams) all.emplace_back(index.text(ngram));
  return all;
}

/// `text@word` of every hit.
std::vector<std::string> found(const NgramIndex& index, std::string_view text) {
  NgramSearch search(index);
  std::vector<std::string> all;
  for (const NgramHit& hit : search.find(text))
    all.push_back(std::string(index.text(hit.ngram)) + "@" + std::to_string(hit.word));
  return all;
}

std::string words(int from, int count) {
  std::string text;
  for (int i = from; i < from + count; ++i)
    text +=
        (i > from ? " " : "") + std::string(1, static_cast<char>('a' + i / 26 % 26)) + static_cast<char>('a' + i % 26);
  return text;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("n-gram index: the longest windows, or all") {
    const std::vector<Benchmark> one = {benchmark({{"A b, c d E", ""}, {"too short it", ""}, {words(0, 14), ""}})};
    const NgramIndex longest(one, {});
    CHECK(longest.size() == 3);
    CHECK(texts(longest, longest.ngrams_of(0)) == std::vector<std::string>{"a b c d e"});
    CHECK(longest.ngrams_of(1).empty());
    CHECK(texts(longest, longest.ngrams_of(2)) == std::vector<std::string>{words(0, 13), words(1, 13)});
    const NgramIndex all(one, {.every_length = true});
    CHECK(texts(all, all.ngrams_of(0)) == std::vector<std::string>{"a b c d", "b c d e", "a b c d e"});
    size_t windows = 0;
    for (int n = 4; n <= 13; ++n) windows += 14 - n + 1;
    CHECK(all.ngrams_of(2).size() == windows);
  }

  TEST_CASE("n-gram index: question, and question with answer, are parts of one item") {
    const std::vector<Benchmark> one = {
        benchmark({{"who made the moon", "who made the moon of cheese"}, {"is it", "is it so"}})};
    const NgramIndex both(one, {});
    CHECK(texts(both, both.ngrams_of(0)) ==
          std::vector<std::string>{"who made the moon", "who made the moon of cheese"});
    CHECK(both.ngrams_of(1).empty());
    CHECK(texts(NgramIndex(one, {.questions = false}), NgramIndex(one, {.questions = false}).ngrams_of(0)) ==
          std::vector<std::string>{"who made the moon of cheese"});
    CHECK(NgramIndex(one, {.answers = false}).size() == 1);
    CHECK(both.hash() != NgramIndex(one, {.answers = false}).hash());
  }

  TEST_CASE("n-gram index: hits, with words and lengths, at both ends and again") {
    const NgramIndex index({benchmark({{"red blue green grey", ""}, {"red blue green grey white", ""}})}, {});
    CHECK(found(index, "Red, blue (green) grey!") == std::vector<std::string>{"red blue green grey@0"});
    CHECK(found(index, "x red blue green grey white red blue green grey") ==
          std::vector<std::string>{"red blue green grey@1", "red blue green grey white@1", "red blue green grey@6"});
    CHECK(found(index, "red blue green").empty());
    CHECK(found(index, "").empty());
    CHECK(index.items_of(index.ngrams_of(0)[0]).size() == 1);
  }

  TEST_CASE("n-gram index: as exact sets of windows, on texts drawn at random") {
    uint64_t state = 1;
    const auto text = [&](size_t count) {
      std::string words;
      for (size_t i = 0; i < count; ++i) {
        state = state * 6364136223846793005 + 1442695040888963407;
        words += (i > 0 ? " " : "") + std::string(1, static_cast<char>('a' + (state >> 33) % 3));
      }
      return words;
    };
    const auto word = [](const std::string& text, size_t i, size_t n) { return text.substr(2 * i, 2 * n - 1); };
    for (const bool all : {false, true}) {
      std::vector<BenchmarkItem> items;
      for (size_t i = 0; i < 200; ++i) items.push_back({text(1 + i % 20), ""});
      const NgramIndex index({benchmark(items)}, {.every_length = all});
      std::map<std::string, std::set<uint32_t>> wanted;
      for (uint32_t item = 0; item < items.size(); ++item) {
        const size_t count = (items[item].question.size() + 1) / 2, longest = std::min<size_t>(13, count);
        if (count < 4) continue;
        for (size_t n = all ? 4 : longest; n <= longest; ++n)
          for (size_t i = 0; i + n <= count; ++i) wanted[word(items[item].question, i, n)].insert(item);
      }
      REQUIRE(index.size() == wanted.size());
      for (uint32_t ngram = 0; ngram < index.size(); ++ngram) {
        const auto holders = index.items_of(ngram);
        CHECK(std::set<uint32_t>(holders.begin(), holders.end()) == wanted[std::string(index.text(ngram))]);
      }
      NgramSearch search(index);
      size_t hits = 0;
      for (int round = 0; round < 50; ++round) {
        const std::string document = text(60);
        std::map<std::pair<std::string, uint32_t>, int> expected, got;
        for (size_t n = 4; n <= 13; ++n)
          for (uint32_t i = 0; i + n <= 60; ++i)
            if (wanted.contains(word(document, i, n))) ++expected[{word(document, i, n), i}];
        for (const NgramHit& hit : search.find(document)) ++got[{std::string(index.text(hit.ngram)), hit.word}];
        CHECK(got == expected);
        hits += got.size();
      }
      CHECK(hits > 100);
    }
  }

  TEST_CASE("n-gram index: nothing to look for is refused") {
    CHECK_THROWS_WITH_AS(NgramIndex({benchmark({{"a b c", ""}})}, {}),
                         "benchmarks: no item has four words; nothing can be looked for", UserError);
  }

  TEST_CASE("verdict: coverage counts exempt n-grams, a hit does not; report-only benchmarks are named") {
    std::vector<Benchmark> benchmarks = {benchmark({{words(0, 16), ""}}), benchmark({{words(100, 13), ""}})};
    benchmarks[1].name = "wiki";
    const NgramIndex index(benchmarks, {});
    const uint32_t first = index.ngrams_of(0)[0], second = index.ngrams_of(0)[1], wiki = index.ngrams_of(1)[0];
    const std::vector<DocumentHit> hits = {{0, first, 1}, {0, second, 2}};
    CHECK(Verdict(index, {}, 0, {}).held(hits).size() == 1);
    CHECK(Verdict(index, {{first, 1000}, {second, 1000}}, 0, {}).held(hits).empty());
    CHECK(Verdict(index, {{first, 1000}}, 0.5, {}).held(hits).size() == 1);  // two of four, one of them exempt
    CHECK(Verdict(index, {{first, 1000}}, 0.51, {}).held(hits).empty());
    CHECK(Verdict(index, {{first, 1000}}, 0, {}).held(hits).at(0).ngram == second);
    const Verdict report(index, {}, 0, {"wiki"});
    CHECK(report.held(std::vector<DocumentHit>{{0, wiki, 1}}).size() == 1);
    CHECK(report.is_report_only(1));
    CHECK_FALSE(report.is_report_only(0));
  }

  TEST_CASE("windows: they go with 200 characters on both sides, one line end stays") {
    const NgramIndex index({benchmark({{"red blue green grey", ""}})}, {});
    NgramSearch search(index);
    uint64_t cuts = 0;
    const auto cut = [&](const std::string& text) { return without_windows(text, search, {0}, cuts); };
    const auto many = [](const std::string& unit, int count) {
      std::string text;
      for (int i = 0; i < count; ++i) text += unit;
      return text;
    };
    const std::string leak = "Red, blue-green: (grey)";
    CHECK(cut(many("x", 299) + " " + leak + " " + many("y", 299)) == many("x", 100) + "\n" + many("y", 100));
    CHECK(cuts == 1);
    CHECK(cut(many("é", 299) + " " + leak + "\n" + many("値", 299)) == many("é", 100) + "\n" + many("値", 100));
    CHECK(cut(leak).empty());
    CHECK(cut("a " + leak + " b").empty());
    CHECK(cut(leak + many(" z", 300)) == many(" z", 200).substr(0, 400));
    CHECK(cut("x" + leak) == "x" + leak);  // another word
    CHECK(cuts == 0);
    CHECK(cut(many("x ", 150) + leak + many(" y", 150) + " " + leak + many(" z", 150)) ==
          many("x ", 50) + "\n" + many(" z", 50));  // windows that meet
    CHECK(cuts == 1);
    CHECK(cut(many("x ", 150) + leak + many(" y", 300) + " " + leak + many(" z", 150)) ==
          many("x ", 50) + "\n" + many(" y", 100) + " " + "\n" + many(" z", 50));
    CHECK(cuts == 2);
  }

  TEST_CASE("hits and counts: what is written is read, and nothing else") {
    const ScratchFolder scratch;
    const auto refusal = [&](auto read) -> std::string {
      try {
        read();
      } catch (const UserError& error) {
        return error.what();
      }
      return "";
    };
    const FileHits hits{.words = {40, 0, 0, 9, 0, 0, 50}, .hits = {{0, 3, 1}, {0, 5, 2}, {6, 3, 4}}};
    write_hits(scratch / "hits", 42, hits);
    const FileHits again = read_hits(scratch / "hits", 42);
    CHECK(again.hits == hits.hits);
    CHECK(again.words == hits.words);
    CHECK(refusal([&] {
            read_hits(scratch / "hits", 43);
          }).ends_with("hits: made with other benchmarks; remove it, and it is made again"));
    CHECK(refusal([&] {
            read_counts(scratch / "hits", 42);
          }).ends_with("hits: damaged or cut off; remove it, and it is made again"));
    std::string bytes = slurp(scratch / "hits");
    for (const size_t at : {size_t{0}, size_t{9}, size_t{45}, bytes.size() - 1}) {
      std::string damaged = bytes;
      damaged[at] ^= 1;
      spill(scratch / "hits", damaged);
      CHECK(refusal([&] { read_hits(scratch / "hits", 42); }) != "");
    }
    spill(scratch / "hits", bytes.substr(0, bytes.size() - 12));
    CHECK(refusal([&] { read_hits(scratch / "hits", 42); }).find("damaged or cut off") != std::string::npos);
    spill(scratch / "hits", "x");
    CHECK(refusal([&] { read_hits(scratch / "hits", 42); }).find("1 bytes, expected at least 40") != std::string::npos);
    write_hits(scratch / "hits", 42, {.words = {4, 5}, .hits = {{1, 3, 1}, {0, 5, 2}}});
    CHECK(refusal([&] { read_hits(scratch / "hits", 42); }).find("out of order") != std::string::npos);
    write_counts(scratch / "counts", 42, {{1, 1000}, {9, 1}});
    CHECK(read_counts(scratch / "counts", 42) == std::vector<NgramCount>{{1, 1000}, {9, 1}});
  }
}
