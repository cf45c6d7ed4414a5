// The first look at a corpus, and what is told of it later.
#include "src/text/survey_corpus.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "src/base/json.h"
#include "src/text/corpus_record.h"
#include "tests/scratch_folder.h"

namespace fs = std::filesystem;
using namespace coppice;

TEST_SUITE("unit") {
  TEST_CASE(
      "survey: held-out texts and texts for tuning that stand in a training part, within a domain and across, in any "
      "order of the records") {
    const ScratchFolder scratch("survey");
    // 400 documents a domain out of 150 texts (the second domain: half of them its own), so that most texts stand on
    // both sides of the split
    std::vector<std::vector<std::string>> lines(2);
    std::vector<std::set<std::string>> held(2), tuned(2), trained(2);
    for (size_t domain = 0; domain < 2; ++domain)
      for (size_t i = 0; i < 400; ++i) {
        const std::string id = std::to_string(domain) + "-" + std::to_string(i),
                          text = "text " + std::to_string(i * 7 % 151 + 75 * domain);
        lines[domain].push_back(nlohmann::json({{"id", id}, {"text", i % 3 == 0 ? " " + text + "\n" : text}}).dump());
        (is_heldout(id, 0.3) ? held : is_tuning(id, 0.2) ? tuned : trained)[domain].insert(text);
      }
    const auto common = [&](const std::set<std::string>& texts, size_t training) {
      return static_cast<uint64_t>(
          std::ranges::count_if(texts, [&](const std::string& text) { return trained[training].contains(text); }));
    };
    const auto path = [&](size_t domain) { return (scratch.path / (std::to_string(domain) + ".jsonl")).string(); };
    const SurveyOptions options = {.domains = {{.name = "zero", .path = path(0)}, {.name = "one", .path = path(1)}},
                                   .heldout_share = 0.3,
                                   .tuning_share = 0.2,
                                   .sample_bytes = uint64_t{1} << 20};
    for (int turn = 0; turn < 2; ++turn) {
      for (size_t domain = 0; domain < 2; ++domain) {
        std::string text;
        for (const std::string& line : lines[domain]) text += line + "\n";
        spill(path(domain), text + "{}\n");
        std::ranges::reverse(lines[domain]);
      }
      const CorpusSurvey survey = survey_corpus(options);
      CHECK(survey.sample.size() > 300);
      for (const std::string& text : survey.sample) {  // all of the training parts and nothing else
        const size_t begin = text.find_first_not_of(' ');
        const std::string plain = text.substr(begin, text.find_last_not_of('\n') + 1 - begin);
        CHECK((trained[0].contains(plain) || trained[1].contains(plain)));
      }
      REQUIRE(survey.held_texts.size() == 2);
      CHECK(survey.held_texts[0].size() == held[0].size());
      for (size_t training = 0; training < 2; ++training) {
        RepeatedTexts repeated(survey.held_texts), tuning(survey.tuning_texts);
        for_each_document(path(training), [&](Document&& document) {
          if (is_heldout(document.id, 0.3) || is_tuning(document.id, 0.2)) return;
          repeated.look(document.text);
          tuning.look(document.text);
        });
        const std::vector<uint64_t> expected = {common(held[0], training), common(held[1], training)};
        CHECK(repeated.counts() == expected);
        CHECK(tuning.counts() == std::vector<uint64_t>{common(tuned[0], training), common(tuned[1], training)});
        CHECK(expected[training] > 10);
        CHECK(expected[1 - training] < expected[training]);
        spill(scratch.path / "data" / "corpus" / (options.domains[training].name + ".json"),
              seal(corpus_record(survey, training, repeated, tuning)));
      }
    }
    const std::vector<CorpusNote> notes = corpus_notes(scratch.path / "data");
    // of each domain: its bad record, the held-out texts it repeats, the other's and its own, and texts for tuning
    REQUIRE(notes.size() == 10);
    CHECK(notes[0].about == "domain 'one'");
    CHECK(notes[0].text.starts_with("1 records were no documents"));
    CHECK_FALSE(notes[0].spoils);
    CHECK(notes[1].about == "domain 'zero'");
    CHECK(notes[1].text.starts_with(std::to_string(common(held[0], 1)) + " of " + std::to_string(held[0].size()) +
                                    " held-out texts ("));
    CHECK(notes[1].text.find("the training part of 'one'") != std::string::npos);
    CHECK(notes[1].spoils);
    CHECK(notes[2].text.find("its training part too") != std::string::npos);
    CHECK(notes[3].about == "domain 'zero'");
    CHECK(notes[3].text.starts_with(std::to_string(common(tuned[0], 1)) + " of " + std::to_string(tuned[0].size()) +
                                    " tuning texts ("));
    CHECK_FALSE(notes[3].spoils);
    CHECK(corpus_notes(scratch.path / "nowhere").empty());
  }
}
