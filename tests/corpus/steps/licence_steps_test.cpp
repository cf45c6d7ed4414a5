// The steps licences and opt_out, read from recipes.
#include <doctest/doctest.h>

#include "src/cli/options.h"
#include "src/corpus/step.h"
#include "tests/caught.h"
#include "tests/scratch_folder.h"

namespace coppice {
extern const StepKind kLicencesStep, kOptOutStep, kExtractStep, kQaStep;
}

using namespace coppice;

namespace {

std::shared_ptr<const Step> step_of(const StepKind& kind, const std::string& toml) {
  const ScratchFolder folder;
  RecipeSource source = RecipeSource::load(folder.write("corpus.toml", toml), {}, {});
  OptionTable root = source.root();
  const std::shared_ptr<const Step> step = kind.read(root);
  root.finish();
  return step;
}

/// Names of the rules that drop the document.
std::string dropped_by(const Step& step, Document document) {
  const auto& rules = step.rules();
  std::vector<double> values(rules.size(), std::numeric_limits<double>::quiet_NaN());
  CHECK_FALSE(dynamic_cast<const DocumentStep&>(step).start()->look(document, values, true));
  std::string names;
  for (size_t i = 0; i < rules.size(); ++i)
    if (rules[i].drops(values[i])) names += (names.empty() ? "" : " ") + rules[i].name;
  return names;
}

/// A page behind the step that makes a text of it.
Document taken_out(const Step& step, const std::string& head, const std::string& metadata = "") {
  Document document{.text = "<head><title>A title</title>" + head +
                            "</head><h1>T</h1><p class=q>Why is it so, the "
                            "question asks, of a page that has enough to say?</p><p class=a>Because it is.</p>",
                    .is_page = true,
                    .metadata = "\"url\":\"https://a.org/1\"" + (metadata.empty() ? "" : "," + metadata)};
  std::vector<double> values(step.rules().size());
  CHECK(dynamic_cast<const DocumentStep&>(step).start()->look(document, values, true));
  CHECK_FALSE(document.is_page);
  return document;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("licences, opt_out: what a page says of its use outlives the step that makes a text of it") {
    const ScratchFolder folder;
    const auto sites = folder.write("a.toml",
                                    "[[maths.site]]\ndomain = \"a.org\"\ntitle = \"h1\"\nquestion = \".q\"\n"
                                    "answer = { each = \".a\" }\n");
    const auto licences = step_of(kLicencesStep, "allow = [\"CC-BY-4.0\"]\n");
    const auto opt_out = step_of(kOptOutStep, "directives = [\"noai\", \"nosnippet\"]\n");
    const std::string by = "<link rel=license href=https://creativecommons.org/licenses/by/4.0/>",
                      by_nc = "<link rel=license href=https://creativecommons.org/licenses/by-nc/4.0/>";
    for (const auto& taker : {step_of(kExtractStep, "opt_out = false\nmin_length = 10\n"),
                              step_of(kExtractStep, "opt_out = false\njoin = \"boilerpipe\"\nmin_length = 10\n"),
                              step_of(kQaStep, "sites = \"" + sites.string() + "\"\n")}) {
      const auto licensed = [&](const std::string& head) { return dropped_by(*licences, taken_out(*taker, head)); };
      CHECK(licensed("") == "no_licence");
      CHECK(licensed(by).empty());
      CHECK(licensed(by_nc) == "licence_not_allowed");
      CHECK(licensed(by + by_nc) == "licence_not_allowed");
      const auto opted = [&](const std::string& head, const std::string& metadata = "") {
        return dropped_by(*opt_out, taken_out(*taker, head, metadata));
      };
      CHECK(opted("").empty());
      CHECK(opted("<meta name=robots content=index><meta name=ROBOTS content=nosnippet>") == "robots_meta");
      CHECK(opted("", "\"x_robots_tag\":\"noai\"") == "x_robots_tag");
      CHECK(opted("", "\"tdm_reservation\":\"1\"") == "tdm_reservation");
      CHECK(opted("<meta name=tdm-reservation content=0>", "\"tdm_reservation\":\"1\"") == "tdm_reservation");
      CHECK(opted("<meta name=tdm-reservation content=0>").empty());
    }
    const auto extract = step_of(kExtractStep, "opt_out = false\nmin_length = 10\n");
    CHECK(dropped_by(*opt_out, taken_out(*extract, "<meta name=robots content=noai>")) == "robots_meta");
    CHECK(dropped_by(*opt_out, taken_out(*extract, "<meta name=tdm-reservation content=1>",
                                         "\"tdm_reservation\":\"0\"")) == "tdm_reservation");
    CHECK(taken_out(*extract, by + by_nc).metadata.ends_with("\"page_license\":[\"CC-BY-4.0\",\"CC-BY-NC-4.0\"]"));
    CHECK(taken_out(*extract, "").metadata == "\"url\":\"https://a.org/1\",\"title\":\"A title\"");
  }

  TEST_CASE("licences: allow, deny, none, and what pages say") {
    const auto step = step_of(kLicencesStep, "allow = [\"CC-BY-*\", \"MIT\", \"CC0-1.0\"]\ndeny = [\"CC-BY-NC*\"]\n");
    const auto by = [&](const std::string& license, const std::string& metadata = "") {
      return dropped_by(*step, {.text = "x", .license = license, .metadata = metadata});
    };
    CHECK(by("MIT").empty());
    CHECK(by("CC-BY-4.0").empty());
    CHECK(by("https://creativecommons.org/licenses/by/4.0/").empty());
    CHECK(by("CC-BY-NC-4.0") == "licence_denied");
    CHECK(by("MIT OR CC-BY-NC-4.0").empty());
    CHECK(by("GPL-3.0-only") == "licence_not_allowed");
    CHECK(by("unknown") == "no_licence");
    CHECK(by("") == "no_licence");
    CHECK(by("unknown", "\"page_license\":\"CC-BY-4.0\"").empty());
    CHECK(by("unknown", "\"page_license\":[\"CC-BY-4.0\",\"CC-BY-NC-4.0\"]") == "licence_denied");
    CHECK(by("MIT", "\"page_license\":\"CC-BY-NC-4.0\"").empty());
    CHECK(by("", "\"license\":[\"MIT\",\"GPL-3.0-only\"]") == "licence_not_allowed");
    const Document page{.text = "<a rel=license href=https://creativecommons.org/licenses/by-nc/4.0/>",
                        .is_page = true};
    CHECK(dropped_by(*step, page) == "licence_denied");
    const auto by_source = [&](const std::string& metadata, const std::string& fields = "") {
      return dropped_by(
          *step, {.text = "x", .license = "MIT", .is_source_license = true, .fields = fields, .metadata = metadata});
    };
    CHECK(by_source("").empty());
    CHECK(by_source("\"license\":[\"GPL-3.0-only\"]") == "licence_not_allowed");
    CHECK(by_source("", "\"license\":[\"GPL-3.0-only\"]") == "licence_not_allowed");
    CHECK(by_source("\"page_license\":\"CC-BY-NC-4.0\"") == "licence_denied");
    const auto beside = [&](const std::string& fields) { return dropped_by(*step, {.text = "x", .fields = fields}); };
    CHECK(beside("\"license\":\"CC-BY-NC-4.0\"") == "licence_denied");
    CHECK(beside("\"license\":[\"MIT\",\"CC-BY-NC-4.0\"]") == "licence_denied");
    CHECK(beside("\"license\":\"MIT\"").empty());
    CHECK(beside("\"page_license\":\"MIT\"").empty());
    const auto only_deny = step_of(kLicencesStep, "deny = [\"GPL*\"]\npage = false\n");
    CHECK(dropped_by(*only_deny, {.license = "unknown"}).empty());
    CHECK(dropped_by(*only_deny, {.license = "GPL-2.0-only WITH Classpath-exception-2.0"}) == "licence_denied");
    CHECK(dropped_by(*only_deny, page).empty());
    const Caught refused = caught([] { step_of(kLicencesStep, ""); });
    CHECK(refused.code == 2);
    CHECK(refused.says("keeps everything; name licences"));
  }

  TEST_CASE("opt_out: lists, robots, headers, reservations, each by a rule of its own") {
    const ScratchFolder folder;
    const auto list =
        folder.write("list.txt", "\xEF\xBB\xBF# opted out\nexample.com  # all of it\n\nother.example/private/\r\n");
    const auto step = step_of(kOptOutStep, "lists = \"" + list.string() + "\"\n");
    const auto by = [&](const std::string& metadata, const std::string& page = "") {
      return dropped_by(*step, {.text = page, .is_page = !page.empty(), .metadata = metadata});
    };
    CHECK(step->inputs().size() == 1);
    CHECK(by("").empty());
    CHECK(by("\"url\":\"https://www.example.com/x\"") == "listed");
    CHECK(by("\"url\":\"https://other.example/private/x\"") == "listed");
    CHECK(by("\"url\":\"https://other.example/\"").empty());
    CHECK(dropped_by(*step, {.fields = "\"url\":\"http://example.com\""}) == "listed");
    CHECK(by("\"robots\":\"index, NoAI\"") == "robots_meta");
    CHECK(by("", "<meta name=robots content='none'>") == "robots_meta");
    CHECK(by("\"x_robots_tag\":\"noindex\"") == "x_robots_tag");
    CHECK(by("\"x_robots_tag\":\"otherbot: noindex, nofollow; max-snippet:5, noai\"") == "x_robots_tag");
    CHECK(by("\"x_robots_tag\":\"otherbot: noindex, nofollow\"").empty());
    CHECK(by("\"x_robots_tag\":\"nofollow, noimageindex\"").empty());
    CHECK(by("\"tdm_reservation\":\"1\"") == "tdm_reservation");
    CHECK(by("\"tdm_reservation\":\"0\"").empty());
    CHECK(by("", "<meta name=tdm-reservation content=1>") == "tdm_reservation");
    const auto lax = step_of(kOptOutStep, "directives = [\"noai\"]\ntdm_reservation = false\n");
    CHECK(dropped_by(*lax, {.metadata = "\"robots\":\"noindex\",\"tdm_reservation\":\"1\""}).empty());
    const auto bad = folder.write("bad.txt", "ok.example\nm\xC3\xBCnchen.example\n");
    const Caught refused = caught([&] { step_of(kOptOutStep, "lists = \"" + bad.string() + "\"\n"); });
    CHECK(refused.code == 3);
    CHECK(refused.says("line 2: got 'm\xC3\xBCnchen.example', expected a domain or an address in ASCII"));
    CHECK(caught([&] { step_of(kOptOutStep, "lists = \"" + (folder / "none").string() + "\"\n"); }).code == 3);
  }
}
