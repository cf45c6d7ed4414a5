// Labels that stand one place beside their tokens are found for teachers that are seldom right; labels that stand right
// are never taken for moved ones.
#include "src/data/label_alignment.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <random>

using namespace coppice;

namespace {

constexpr int64_t kVocab = 400;
using Ids = std::vector<int64_t>;
using Place = LabelAlignment::Place;

/// Documents of a chain in which every token has a few likely followers of its own; tokens are as unevenly frequent as
/// words.
struct Text {
  std::vector<std::vector<int64_t>> followers;
  std::vector<Ids> documents;
  explicit Text(uint64_t seed, int64_t tokens) : followers(kVocab) {
    std::mt19937_64 random(seed);
    const auto any = [&] {
      return std::min<int64_t>(
          kVocab - 1,
          static_cast<int64_t>(std::exp(std::uniform_real_distribution<>(0, std::log(kVocab))(random))) - 1);
    };
    for (auto& row : followers)
      for (int i = 0; i < 4; ++i) row.push_back(any());
    for (int64_t left = tokens; left > 0; left -= 500) {
      Ids& document = documents.emplace_back();
      for (int64_t token = any(); document.size() < 500;) {
        document.push_back(token);
        const uint64_t draw = random() % 10;
        token = draw < 6 ? followers[static_cast<size_t>(token)][std::min<uint64_t>(draw / 2, 3)] : any();
      }
    }
  }
};

/// A number in [0, 1) for every (seed, token): what a teacher knows, it always knows.
double chance(uint64_t seed, int64_t token) {
  uint64_t bits = (seed * 1'000'003 + static_cast<uint64_t>(token) + 1) * 0x9E3779B97F4A7C15;
  bits = (bits ^ bits >> 29) * 0xBF58476D1CE4E5B9;
  return static_cast<double>((bits ^ bits >> 32) >> 11) * 0x1p-53;
}

/// What a teacher says at every token of a document.
using Teacher = std::function<int64_t(const Ids& document, size_t i)>;

/// Label i becomes the choice that belongs to token i + by, inside each document.
LabelAlignment judge(const Text& text, const Teacher& teacher, int by = 0, double error_rate = kAlignmentErrorRate) {
  LabelSample sample;
  for (const Ids& document : text.documents) {
    Ids label(document.size(), -1);
    for (size_t i = 0; i < document.size(); ++i)
      if (const auto from = static_cast<int64_t>(i) + by; from >= 0 && from < static_cast<int64_t>(document.size()))
        label[i] = teacher(document, static_cast<size_t>(from));
    sample.add(document, label);
  }
  return sample.judge(error_rate);
}

/// Knows the likeliest follower of a `share` of the tokens, says the most frequent token elsewhere: what a model learns
/// first.
Teacher weak_teacher(const Text& text, double share, uint64_t seed) {
  return [&text, share, seed](const Ids& document, size_t i) -> int64_t {
    return chance(seed, document[i]) < share ? text.followers[static_cast<size_t>(document[i])][0] : 0;
  };
}

/// A model that has learned nothing: another answer for every token, always the same one.
Teacher fresh_teacher(uint64_t seed) {
  return [seed](const Ids& document, size_t i) { return static_cast<int64_t>(chance(seed, document[i]) * kVocab); };
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE(
      "label alignment: moved labels of a teacher that knows a twentieth of the tokens are found, either way; its "
      "right ones stand") {
    for (uint64_t seed = 1; seed <= 8; ++seed) {
      const Text text(seed, 60'000);
      for (const double share : {0.05, 0.3, 1.0}) {
        CAPTURE(seed);
        CAPTURE(share);
        const Teacher teacher = weak_teacher(text, share, seed);
        const LabelAlignment right = judge(text, teacher), before = judge(text, teacher, 1),
                             behind = judge(text, teacher, -1);
        CHECK_FALSE(right.moved());
        CHECK(right.place == Place::here);
        CHECK(before.place == Place::one_before);
        CHECK(behind.place == Place::one_behind);
        CHECK(before.complaint().find("one place before their tokens") != std::string::npos);
        CHECK(behind.labels == 60'000 - 120);
      }
    }
  }

  TEST_CASE(
      "label alignment: moved labels are found even of a model that has learned nothing, and its right ones stand") {
    const Text text(11, 10'000);
    for (uint64_t seed = 1; seed <= 40; ++seed) {
      CAPTURE(seed);
      CHECK(judge(text, fresh_teacher(seed)).place == Place::here);
      CHECK(judge(text, fresh_teacher(seed), 1).place == Place::one_before);
      CHECK(judge(text, fresh_teacher(seed), -1).place == Place::one_behind);
      // one answer but behind a few tokens: what a model of a few steps says
      const Teacher nearly_one = [seed](const Ids& document, size_t i) -> int64_t {
        return chance(seed, document[i]) < 0.02 ? 1 : 0;
      };
      CHECK_FALSE(judge(text, nearly_one).moved());
      CHECK(judge(text, nearly_one).z_before <= 0);
      CHECK(judge(text, nearly_one).z_behind <= 0);
    }
  }

  TEST_CASE(
      "label alignment: the error rate is what it says where labels have nothing to do with the text, far into the "
      "tail") {
    constexpr uint64_t kTeachers = 400;
    int above_3 = 0, above_4 = 0, refused = 0;
    double squares = 0;
    std::vector<Text> texts;
    for (uint64_t seed = 1000; seed < 1008; ++seed) texts.emplace_back(seed, 8'000);
    for (uint64_t i = 0; i < kTeachers; ++i) {
      std::mt19937_64 random(i);
      // even ones among many ids, odd ones nearly always the same
      const Teacher noise = [&](const Ids&, size_t) -> int64_t {
        const auto id = static_cast<int64_t>(random() % kVocab);
        return i % 2 == 0 ? id : id < 380 ? 0 : id % 4;
      };
      const LabelAlignment found = judge(texts[i % 8], noise);
      for (const double z : {found.z_before, found.z_behind})
        above_3 += z / 1.5 > 2, above_4 += z / 1.5 > 3, squares += z * z;
      refused += found.moved();
    }
    CHECK(refused == 0);
    // P(z / 1.5 > t) <= exp(-t^2 / 2): 108 and 9 of 800 at most, were they all independent
    CHECK(above_3 <= 108);
    CHECK(above_4 <= 9);
    CHECK(std::sqrt(squares / (2 * kTeachers)) < 1.5);
    CHECK(std::sqrt(squares / (2 * kTeachers)) > 0.5);  // it is no wide miss either
    CHECK(judge(Text(1, 8'000), fresh_teacher(1), 0, 1e-6).threshold ==
          doctest::Approx(1.5 * std::sqrt(2 * std::log(2e6))));
  }

  TEST_CASE(
      "label alignment: where every second token says nothing a good teacher's labels follow from the one before it, "
      "and are right") {
    std::mt19937_64 random(4);
    Text text(1, 0);
    for (int document = 0; document < 40; ++document) {  // 5, 17, 5, 42, ...: a comma between numbers
      Ids& tokens = text.documents.emplace_back();
      for (int64_t number = 1; tokens.size() < 500; tokens.push_back(0)) {
        number = random() % 10 < 7 ? 1 + number * 37 % 211 : 1 + static_cast<int64_t>(random() % 211);
        tokens.push_back(number);
      }
    }
    const Teacher good = [](const Ids& document, size_t i) {
      return document[i] > 0 || i == 0 ? 0 : 1 + document[i - 1] * 37 % 211;
    };
    CHECK_FALSE(judge(text, good).moved());
    CHECK(judge(text, good).z_behind > judge(text, good).threshold);  // but for what speaks for itself
    CHECK(judge(text, good, -1).moved());
  }

  TEST_CASE(
      "label alignment: teachers that repeat what they have read, or always say one thing, are not refused; nor is a "
      "good one") {
    const Text text(3, 60'000);
    const Teacher good = weak_teacher(text, 1, 3), repeats = [](const Ids&document, size_t i) { return document[i]; };
    CHECK(judge(text, repeats).place == Place::unknown);  // as likely a perfect teacher, moved
    for (const double share : {0.1, 0.5, 0.9}) {          // tied weights after a few steps
      const LabelAlignment found = judge(text, [&](const Ids& document, size_t i) {
        return chance(1, document[i]) < share ? repeats(document, i) : good(document, i);
      });
      CAPTURE(share);
      CHECK_FALSE(found.moved());
    }
    const LabelAlignment one = judge(text, [](const Ids&, size_t) { return 0; });
    CHECK(one.place == Place::unknown);
    CHECK(one.z_before == 0);
    // the text itself is the best teacher there is
    const Teacher perfect = [](const Ids& document, size_t i) { return i + 1 < document.size() ? document[i + 1] : 0; };
    CHECK_FALSE(judge(text, perfect).moved());
    CHECK(judge(text, perfect, 1).place == Place::one_before);
  }

  TEST_CASE("label alignment: holes, single tokens and nothing at all are no evidence") {
    LabelSample sample;
    CHECK(sample.judge(kAlignmentErrorRate).place == Place::unknown);
    for (int64_t i = 0; i < 100; ++i) sample.add(Ids{i}, Ids{i + 1});
    sample.add(Ids{}, Ids{});
    sample.add(Ids{5, 6, 7}, Ids{-1, -100, -1});
    const LabelAlignment found = sample.judge(kAlignmentErrorRate);
    CHECK(found.labels == 100);
    CHECK(found.z_before == 0);
    CHECK(found.place == Place::unknown);
    // with three labels of four missing there is enough left
    const Text text(9, 100'000);
    const Teacher teacher = weak_teacher(text, 0.5, 9);
    const auto holed = [&](const Ids& document, size_t i) { return i % 4 == 0 ? teacher(document, i) : -1; };
    CHECK(judge(text, holed, 1).place == Place::one_before);
    CHECK(judge(text, holed, -1).place == Place::one_behind);
    CHECK_FALSE(judge(text, holed).moved());
  }
}
