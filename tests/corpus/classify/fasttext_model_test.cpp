// Probabilities by hand (libfasttext's own are compared in tests/parity/fasttext_test.py), and damaged files.
#include "src/corpus/classify/fasttext_model.h"

#include <doctest/doctest.h>

#include <cmath>

#include "tests/caught.h"
#include "tests/corpus/classify/made_fasttext.h"
#include "tests/scratch_folder.h"

using namespace coppice;
using test::MadeFastText;

namespace {

std::vector<float> predicted(const MadeFastText& made, std::string_view text) {
  const std::string bytes = made.bytes();
  const FastTextModel model(bytes, "made.bin");
  FastTextModel::Room room;
  const std::span<const float> probabilities = model.predict(text, room);
  return {probabilities.begin(), probabilities.end()};
}

Caught refusal(const MadeFastText& made) {
  const std::string bytes = made.bytes();
  return caught([&] { FastTextModel(bytes, "made.bin"); });
}

float sigmoid(double x) { return static_cast<float>(1 / (1 + std::exp(-x))); }

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("fasttext: softmax over the mean of the words by hand") {
    // a = (1, 0), b = (0, 2): the mean of `a b b` is (1/3, 4/3), and the output matrix is the identity
    const std::vector<float> p = predicted({}, "a b\nb");
    REQUIRE(p.size() == 2);
    CHECK(p[0] == doctest::Approx(sigmoid(-1)).epsilon(1e-4));
    CHECK(p[1] == doctest::Approx(sigmoid(1)).epsilon(1e-4));
    CHECK(predicted({}, "a b unknown\tb") == p);  // which has no row
    CHECK(predicted({}, "a b __label__x __label__new b") == p);
    CHECK(predicted({}, "a b b </s> a a a") == p);
    CHECK(predicted({}, "nothing known").empty());
    CHECK(predicted({}, "").empty());
  }

  TEST_CASE("fasttext: each label for itself, by the table of sigmoids") {
    MadeFastText made{.loss = 4};
    const std::vector<float> p = predicted(made, "b");  // hidden (0, 2), outputs 0 and 2
    CHECK(p[0] == doctest::Approx(0.5 + 1e-5).epsilon(1e-6));
    CHECK(p[1] == doctest::Approx(sigmoid(2) + 1e-5).epsilon(1e-6));
    made.input[3] = 100;
    CHECK(predicted(made, "b")[1] == doctest::Approx(1.00001).epsilon(1e-6));
    made.loss = 2;
    CHECK(predicted(made, "b")[1] == doctest::Approx(1.00001).epsilon(1e-6));
  }

  TEST_CASE("fasttext: hierarchical softmax walks a tree of counts") {
    MadeFastText made{.loss = 1, .labels = 3};
    made.entries = {{"a"}, {"b"}, {"__label__x", 3, 1}, {"__label__y", 2, 1}, {"__label__z", 1, 1}};
    made.num_entries = 5;
    made.output_rows = 3;
    made.output = {1, 0, 0, 1, 9, 9};
    // Leaves x 3, y 2, z 1; node 0 = (z, y) with 3, node 1 = (node 0, x): libfasttext takes a leaf only where it is
    // less, so node 0 comes first. a = (1, 0): node 1 turns right by sigmoid(0), node 0 by sigmoid(1).
    const std::vector<float> p = predicted(made, "a");
    REQUIRE(p.size() == 3);
    CHECK(p[0] == doctest::Approx(0.5).epsilon(1e-4));
    CHECK(p[1] == doctest::Approx(0.5 * sigmoid(1)).epsilon(1e-4));
    CHECK(p[2] == doctest::Approx(0.5 * sigmoid(-1)).epsilon(1e-4));
  }

  TEST_CASE("fasttext: one row for all buckets is counted once a subword and word pair") {
    MadeFastText made{.word_ngrams = 2, .bucket = 1, .minn = 2, .maxn = 3, .input_rows = 3};
    made.input = {1, 0, 0, 2, 10, 10};
    // `<a>`: a, and <a a> <a> in the bucket; `<c>`: three of them; pairs `a c` and `c </s>`: (1 + 8 * 10, 80) / 9
    const std::vector<float> p = predicted(made, "a c");
    CHECK(p[0] == doctest::Approx(sigmoid(1.0 / 9)).epsilon(1e-4));
    // a character of several bytes is one: `<é>` has 2 subwords of two characters and one of three
    CHECK(predicted(made, "a \xC3\xA9") == p);
  }

  TEST_CASE("fasttext: what overflows is no crash") {
    MadeFastText made;
    made.input = {3e38F, -3e38F, 3e38F, -3e38F};
    for (int32_t loss = 1; loss <= 4; ++loss) {
      made.loss = loss;
      CHECK(predicted(made, "a b a b").size() == 2);
    }
  }

  TEST_CASE("fasttext: a file cut anywhere is refused") {
    const ScratchFolder folder("fasttext");
    const std::string bytes =
        MadeFastText{.word_ngrams = 2, .bucket = 1, .input_rows = 3, .input = {1, 0, 0, 2, 3, 3}}.bytes();
    CHECK_NOTHROW(FastTextModel(folder.write("whole.bin", bytes)));
    size_t refused = 0;
    for (size_t size = 0; size < bytes.size(); ++size)
      refused += caught([&] { FastTextModel(folder.write("cut.bin", bytes.substr(0, size))); }).code == 3;
    CHECK(refused == bytes.size());
    CHECK(caught([&] { FastTextModel(folder.write("long.bin", bytes + "x")); }).says("1 bytes behind"));
    CHECK(caught([&] { FastTextModel(folder / "absent.bin"); }).code == 3);
  }

  TEST_CASE("fasttext: sizes that are flipped are refused, whatever the file says of them") {
    const std::string bytes = MadeFastText{}.bytes();
    const size_t end = 14 * 4 + 8 + 3 * 4 + 16;  // settings and counts; then the entries
    int loaded = 0;
    for (size_t at = 0; at < bytes.size(); ++at) {
      for (const int bit : {0, 7}) {
        std::string changed = bytes;
        changed[at] = static_cast<char>(changed[at] ^ (1 << bit));
        const Caught error = caught([&] {
          const FastTextModel model(changed, "made.bin");
          FastTextModel::Room room;
          model.predict("a b c", room);
        });
        CHECK((error.code == 0 || error.code == 3));
        loaded += error.code == 0 && at < end;
      }
    }
    CHECK(loaded < 90);  // what is not used: epochs, rates, tokens
  }

  TEST_CASE("fasttext: every reason has its words") {
    const auto says = [](const MadeFastText& made, std::string_view part) {
      const Caught error = refusal(made);
      CAPTURE(error.text);
      CHECK(error.code == 3);
      CHECK(error.says("made.bin"));
      CHECK(error.says(part));
    };
    says({.magic = 1}, "starts with 1, expected 793712314");
    says({.version = 11}, "version 11, 12 is read");
    says({.dim = 0}, "dim: got 0");
    says({.dim = 1 << 30}, "8589934592 bytes, 49 are left");
    says({.word_ngrams = 65, .bucket = 1}, "at most 64 are read");
    says({.loss = 5}, "loss: got 5");
    says({.model = 1}, "a model of kind 1");
    says({.word_ngrams = 2}, "bucket: got 0");
    says({.bucket = -1}, "bucket: got -1");
    says({.bucket = 5}, "expected 7 x 2");
    says({.entries = {{"a"}, {"a"}, {"x", 1, 1}, {"y", 1, 1}}}, "'a' stands twice");
    says({.entries = {{"a"}, {"b", 1, 1}, {"x", 1, 1}, {"y", 1, 1}}}, "entry 1 ('b'): type 1");
    says({.entries = {{"a"}, {"b"}, {"x", -1, 1}, {"y", 1, 1}}}, "label 'x': count -1");
    says({.num_entries = 5}, "5 entries, 2 of them words and 2 labels");
    says({.num_entries = 1 << 30, .words = (1 << 30) - 2}, "bytes are left in the file");
    says({.num_entries = 2, .words = 2, .labels = 0}, "expected a label or more");
    says({.pruned = 3}, "pruned model");
    says({.quantised = 1}, "quantised model (.ftz)");
    says({.quantised = 2}, "quantised is 2");
    says({.input_rows = 1}, "the input matrix: 1 x 2 weights, expected 2 x 2");
    says({.output_rows = -2}, "the output matrix: -2 x 2 weights");
    says({.input = {1, 0, 0, INFINITY}}, "no finite numbers");
  }
}
