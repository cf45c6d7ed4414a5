// The step `language`: what it writes into documents, and which stay.
#include <doctest/doctest.h>

#include "src/text/document_metadata.h"
#include "tests/corpus/classify/made_fasttext.h"
#include "tests/corpus/step_of.h"
#include "tests/corpus/steps/look_at.h"

#include <nlohmann/json.hpp>

using namespace coppice;

namespace {

constexpr const char* kEnglish = "The committee met on Tuesday to discuss how the new library should be paid for.";
constexpr const char* kGerman = "Der Ausschuss tagte am Dienstag, um zu besprechen, wie die Bibliothek bezahlt wird.";
constexpr const char* kFrench = "Le comité s'est réuni mardi pour discuter du financement de la nouvelle bibliothèque.";

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("language step: without keep it says the language and keeps all") {
    const ScratchFolder folder("language");
    const auto step = test::step_of(folder, "kind = \"language\"\n");
    CHECK(step->rules().empty());
    const test::LookedThrough looked = test::look_at(*step, kGerman);
    CHECK(metadata_text(looked.document, "language") == "de");
    CHECK(find_metadata(looked.document, "language_score").value().get<double>() > 0.9);
  }

  TEST_CASE("language step: a table and a list of texts say the same") {
    const ScratchFolder folder("language");
    for (const char* keep : {"keep = { en = 0.65, de = 1.0 }\n", "keep = [\"en=0.65\", \"de=1.0\"]\n",
                             "[data.step.keep]\nen = 0.65\nde = 1\n"}) {
      CAPTURE(keep);
      const auto step = test::step_of(folder, std::string("kind = \"language\"\n") + keep);
      REQUIRE(step->rules().size() == 3);
      CHECK(step->rules()[0].name == "other_language");
      CHECK(step->rules()[1].name == "de_score");
      CHECK(step->rules()[1].least == 1);
      CHECK(step->rules()[2].name == "en_score");
      CHECK(step->rules()[2].least == 0.65);
      CHECK(test::look_at(*step, kEnglish).dropped_by.empty());
      CHECK(test::look_at(*step, kGerman).dropped_by == "de_score");  // CLD2 gives 99 of 100
      CHECK(test::look_at(*step, kFrench).dropped_by == "other_language");
      CHECK(test::look_at(*step, "").dropped_by == "other_language");
    }
  }

  TEST_CASE("language step: a fastText model in place of CLD2") {
    const ScratchFolder folder("language");
    test::MadeFastText made;
    made.entries[2].text = "__label__en";
    made.entries[3].text = "__label__de";
    folder.write("lid.bin", made.bytes());
    const std::string model = "model = \"" + (folder / "lid.bin").string() + "\"\n";
    const auto step = test::step_of(folder, "kind = \"language\"\n" + model + "keep = { de = 0.5 }\n");
    CHECK(step->inputs().size() == 1);
    const test::LookedThrough looked = test::look_at(*step, "b");
    CHECK(metadata_text(looked.document, "language") == "de");
    CHECK(looked.values[1] == doctest::Approx(0.8808).epsilon(1e-3));
    CHECK(looked.dropped_by.empty());
    CHECK(test::look_at(*step, "a a").dropped_by == "other_language");
    CHECK(metadata_text(test::look_at(*step, "?").document, "language") == "un");
    CHECK(test::refusal_of_step(folder, "kind = \"language\"\n" + model + "keep = { fr = 0.5 }\n")
              .find("no language is called 'fr' by the model") != std::string::npos);
  }

  TEST_CASE("language step: what cannot be a language or a score is refused where it stands") {
    const ScratchFolder folder("language");
    const auto says = [&](const std::string& text, std::string_view part) {
      const std::string refusal = test::refusal_of_step(folder, "kind = \"language\"\n" + text);
      CAPTURE(refusal);
      CHECK(refusal.find(part) != std::string::npos);
    };
    says("keep = { en = 2 }", "my.toml:3: keep: got en = 2");
    says("keep = { en = \"much\" }", "keep: got en = \"much\"");
    says("keep = [\"en\"]", "my.toml:3: keep: got en = , expected");
    says("keep = [\"en=0.5\", \"en=0.6\"]", "en stands twice");
    says("keep = { english = 0.65 }", "no language is called 'english' by CLD2");
    says("keep = 0.65", "keep: got 0.65");
    says("model = \"absent.bin\"", "absent.bin");
  }
}
