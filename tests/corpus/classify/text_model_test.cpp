#include "src/corpus/classify/text_model.h"

#include <doctest/doctest.h>

#include <cmath>

#include "src/base/files.h"
#include "tests/caught.h"
#include "tests/corpus/classify/made_classifier.h"
#include "tests/corpus/classify/made_fasttext.h"

using namespace coppice;

TEST_SUITE("unit") {
  TEST_CASE("text_model: a file's first bytes say which kind it is") {
    const ScratchFolder folder("text-model");
    write_classifier(train_classifier(made_training(folder)), folder / "own.any");
    folder.write("fast.any", test::MadeFastText{}.bytes());
    const auto own = open_text_model(folder / "own.any", "", "corpus.toml:1");
    CHECK(own->start()->score("careful proof of lemma") > 0.5);
    CHECK(std::isnan(own->start()->score("...")));
    CHECK(own->identity() == sha256_file(folder / "own.any"));
    const auto fast = open_text_model(folder / "fast.any", "y", "corpus.toml:1");
    CHECK(fast->start()->score("b") == doctest::Approx(1 / (1 + std::exp(-2.0))).epsilon(1e-4));
    CHECK(std::isnan(fast->start()->score("unknown")));
    CHECK(open_text_model(folder / "fast.any", "__label__x", "")->start()->score("b") < 0.5);
  }

  TEST_CASE("text_model: other files, and labels that are not there, are refused") {
    const ScratchFolder folder("text-model");
    write_classifier(train_classifier(made_training(folder)), folder / "own.h5");
    folder.write("fast.bin", test::MadeFastText{}.bytes());
    folder.write("text.bin", "some text");
    folder.write("empty.bin", "");
    const auto refusal = [&](const char* file, const std::string& label) {
      return caught([&] { open_text_model(folder / file, label, "corpus.toml:7"); });
    };
    CHECK(refusal("text.bin", "").code == 3);
    CHECK(refusal("text.bin", "").says("neither a fastText model (.bin) nor a classifier"));
    CHECK(refusal("empty.bin", "").says("is empty"));
    CHECK(refusal("own.h5", "good").code == 2);
    CHECK(refusal("own.h5", "good").says("corpus.toml:7: label: got 'good'"));
    CHECK(refusal("fast.bin", "").says("has x, y"));
    CHECK(refusal("fast.bin", "z").code == 2);
  }
}
