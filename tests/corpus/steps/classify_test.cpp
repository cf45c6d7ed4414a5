// Scores of documents, and the share that stays by them.
#include "src/corpus/steps/classify.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "src/base/files.h"
#include "src/corpus/classify/kept_share.h"
#include "tests/caught.h"
#include "tests/corpus/classify/made_fasttext.h"
#include "tests/corpus/run/real_steps.h"
#include "tests/corpus/step_of.h"
#include "tests/corpus/steps/look_at.h"

using namespace coppice;

namespace {

/// Of a text of figures: their value.
class NumberModel : public TextModel {
 public:
  std::unique_ptr<TextScorer> start() const override {
    struct Scorer : TextScorer {
      double score(std::string_view text) override {
        return text.empty() ? std::nan("") : std::stod(std::string(text));
      }
    };
    return std::make_unique<Scorer>();
  }
  std::string identity() const override { return "numbers"; }
};

std::string toml(const ScratchFolder& folder, const std::string& more) {
  return "kind = \"classify\"\nmodel = \"" + (folder / "fast.bin").string() + "\"\nlabel = \"y\"\n" + more + "\n";
}

/// Values of the documents of files, and the scores that they get.
std::vector<double> shares(const KeptShareStep& step, const std::vector<std::vector<std::string>>& files,
                           const std::vector<uint32_t>& order) {
  const ScratchFolder folder("share");
  GroupPlace place{.folder = folder.path};
  for (size_t i = 0; i < files.size(); ++i) place.files.push_back("f" + std::to_string(i));
  for (const uint32_t file : order) {
    const auto notes = step.note(place, file);
    for (size_t i = 0; i < files[file].size(); ++i)
      notes->add({.id = std::to_string(file) + "#" + std::to_string(i), .text = files[file][i]});
    notes->commit();
  }
  CHECK(step.num_parts(place) == 0);
  step.settle(place);
  std::vector<double> values;
  for (uint32_t file = 0; file < files.size(); ++file) {
    const auto decisions = step.decide(place, file);
    for (const std::string& text : files[file]) {
      Document document{.text = text};
      double value = std::nan("");
      std::string details;
      decisions->look(document, {&value, 1}, details);
      CHECK(document.scores.size() == (text.empty() ? 0 : 1));
      values.push_back(value);
    }
  }
  return values;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("classify: the score is stored, and documents below the limit go") {
    const ScratchFolder folder("classify");
    folder.write("fast.bin", test::MadeFastText{}.bytes());
    const auto step = test::step_of(folder, toml(folder, "score = \"quality\"\nmin_score = 0.5"));
    CHECK(step->inputs() == std::vector<std::string>{sha256_file(folder / "fast.bin")});
    const test::LookedThrough good = test::look_at(*step, "b"), bad = test::look_at(*step, "a"),
                              none = test::look_at(*step, "?");
    REQUIRE(good.document.scores.size() == 1);
    CHECK(good.document.scores[0].name == "quality");
    CHECK(good.document.scores[0].value == good.values[0]);
    CHECK(good.dropped_by.empty());
    CHECK(bad.dropped_by == "quality");
    CHECK(bad.document.scores.size() == 1);
    CHECK(none.dropped_by.empty());
    CHECK(none.document.scores.empty());
  }

  TEST_CASE("classify: without a limit nothing goes; the score is called as the file is") {
    const ScratchFolder folder("classify");
    folder.write("fast.bin", test::MadeFastText{}.bytes());
    const auto step = test::step_of(folder, toml(folder, ""));
    const test::LookedThrough bad = test::look_at(*step, "a a a");
    CHECK(bad.dropped_by.empty());
    CHECK(bad.document.scores.at(0).name == "fast");
  }

  TEST_CASE("classify: a score of the input is replaced") {
    Document document{.scores = {{"other", 1}, {"quality", 2}}};
    store_score(document, "quality", 3);
    store_score(document, "new", 4);
    REQUIRE(document.scores.size() == 3);
    CHECK(document.scores[1].value == 3);
    CHECK(document.scores[2].name == "new");
  }

  TEST_CASE("classify: options that cannot be are refused") {
    const ScratchFolder folder("classify");
    folder.write("fast.bin", test::MadeFastText{}.bytes());
    const auto says = [&](const std::string& text, std::string_view part) {
      const std::string refusal = test::refusal_of_step(folder, text);
      CAPTURE(refusal);
      CHECK(refusal.find(part) != std::string::npos);
    };
    says("kind = \"classify\"", "my.toml:1: model: none is given");
    says(toml(folder, "min_score = 0.5\nkeep_share = 0.1"), "my.toml:6: min_score and keep_share: got both");
    says(toml(folder, "keep_share = 0"), "my.toml:5: keep_share: got 0, expected above 0");
    says(toml(folder, "keep_share = 1.5"), "keep_share: got 1.5");
    says("kind = \"classify\"\nmodel = \"" + folder.path.string() + "\"", "my.toml:3: model: " + folder.path.string());
  }

  TEST_CASE("classify: a folder is opened by whoever knows language models") {
    const ScratchFolder folder("classify");
    const std::string text = "kind = \"classify\"\nmodel = \"" + folder.path.string() + "\"\nmin_score = -1.5\n";
    std::filesystem::path opened;
    set_language_model_opener([&](const std::filesystem::path& path) {
      opened = path;
      return std::make_shared<NumberModel>();
    });
    const auto step = test::step_of(folder, text);
    CHECK(test::refusal_of_step(folder, text + "label = \"y\"\n").find("label: got 'y', but ") != std::string::npos);
    set_language_model_opener(nullptr);
    CHECK(test::refusal_of_step(folder, text).find("language models are not read here") != std::string::npos);
    CHECK(opened == folder.path);
    CHECK(step->inputs() == std::vector<std::string>{"numbers"});
    CHECK(test::look_at(*step, "-1.4").dropped_by.empty());
    CHECK(!test::look_at(*step, "-1.6").dropped_by.empty());
  }

  TEST_CASE("classify: the best share stays, the best document always") {
    const KeptShareStep step(std::make_shared<NumberModel>(), "quality", 0.5);
    CHECK(step.rules()[0].name == "quality_share");
    CHECK(step.rules()[0].most == 0.5);
    // ten scores 1 ... 10: 6 to 10 are half of them
    const std::vector<std::vector<std::string>> files = {
        {"10", "1", "2"}, {}, {"9", "8", "3", "4", ""}, {"5", "6", "7"}};
    const std::vector<double> values = shares(step, files, {0, 1, 2, 3});
    const std::vector<double> expected = {0, 1, 0.9, 0.2, 0.3, 0.8, 0.7, std::nan(""), 0.6, 0.5, 0.4};
    REQUIRE(values.size() == expected.size());
    for (size_t i = 0; i < values.size(); ++i) {
      CAPTURE(i);
      CHECK((values[i] == expected[i] || (std::isnan(values[i]) && std::isnan(expected[i]))));
    }
    const std::vector<double> reversed = shares(step, files, {3, 2, 1, 0});
    for (size_t i = 0; i < values.size(); ++i) CHECK((reversed[i] == values[i] || std::isnan(values[i])));
    CHECK(shares(step, {{"1", "3", "2"}}, {0}) == std::vector<double>{1, 0, 2.0 / 3});  // a share of 0.1 keeps one
  }

  TEST_CASE("classify: of equal scores the same part stays in every order, as large as the share") {
    const KeptShareStep step(std::make_shared<NumberModel>(), "quality", 0.1);
    std::vector<std::vector<std::string>> files(4, std::vector<std::string>(250, "1"));
    files[3] = std::vector<std::string>(250, "0.5");
    const std::vector<double> values = shares(step, files, {0, 1, 2, 3});
    CHECK(std::ranges::count_if(values, [](double value) { return value <= 0.1; }) == 100);
    CHECK(std::ranges::count_if(values, [](double value) { return value <= 0.75; }) == 750);
    CHECK(*std::ranges::min_element(values.begin() + 750, values.end()) > 0.75);
    CHECK(shares(step, files, {3, 1, 0, 2}) == values);
  }

  TEST_CASE("classify: a dedup right behind a share keeps the copy of the best score") {
    set_language_model_opener([](const std::filesystem::path&) { return std::make_shared<NumberModel>(); });
    const test::RealCorpus corpus;
    corpus.add("a", "1", {{"low", "1"}, {"mid", "5"}, {"high", "9"}, {"worst", "0.1 and other words"}});
    const std::string folder = "\"" + corpus.scratch.path.string() + "\"";
    corpus.run("[[data.step]]\nkind = \"classify\"\nmodel = " + folder +
               "\nscore = \"quality\"\nkeep_share = 0.75\n"
               "[[data.step]]\nkind = \"dedup\"\nkeep = \"score:quality\"\n");
    set_language_model_opener(nullptr);
    CHECK(corpus.kept() == std::set<std::string>{"high"});
    CHECK(corpus.removed("classify").contains("worst"));
    CHECK(corpus.removed("dedup").at("low")["kept_id"] == "high");
  }

  TEST_CASE("classify: a share is of what the steps right in front of it have left") {
    const KeptShareStep step(std::make_shared<NumberModel>(), "quality", 0.5);
    const ScratchFolder folder("share");
    GroupPlace place{.folder = folder.path, .files = {"a"}};
    place.left = [](uint32_t) { return std::vector<bool>{true, false, false, true}; };
    const auto notes = step.note(place, 0);
    for (const char* score : {"1", "8", "9", "2"}) notes->add({.id = score, .text = score});
    notes->commit();
    step.settle(place);
    const auto decisions = step.decide(place, 0);
    std::vector<double> values;
    for (int i = 0; i < 4; ++i) {
      Document document;
      double value = 0;
      std::string details;
      decisions->look(document, {&value, 1}, details);
      values.push_back(value);
    }
    CHECK(values == std::vector<double>{1, 0, 0, 0});
  }

  TEST_CASE("classify: scores of another number of documents are no decision") {
    const KeptShareStep step(std::make_shared<NumberModel>(), "quality", 0.5);
    const ScratchFolder folder("share");
    const GroupPlace place{.folder = folder.path, .files = {"a"}};
    const auto notes = step.note(place, 0);
    notes->add({.id = "a", .text = "1"});
    notes->commit();
    step.settle(place);
    const auto decisions = step.decide(place, 0);
    Document document;
    double value = 0;
    std::string details;
    decisions->look(document, {&value, 1}, details);
    CHECK(document.scores.at(0).value == 1);
    CHECK(caught([&] { decisions->look(document, {&value, 1}, details); }).says("1 scores, and the file has more"));
    folder.write("scores-000000", "torn");
    CHECK(caught([&] { step.settle(place); }).says("4 bytes are no whole records"));
  }
}
