// The step `qa`: its rules, what it writes, and what it counts for the end of a run.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "src/base/json.h"
#include "src/text/document_metadata.h"
#include "tests/caught.h"
#include "tests/corpus/steps/looked_at.h"

using namespace coppice;

namespace {

const std::string kSite =
    "[[maths.site]]\ndomain = \"a.org\"\npaths = [\"/q/\"]\ntitle = \"h1\"\nquestion = \".q\"\nvotes = \".v@data-n\"\n"
    "answer = { each = \".a\" }\nmin_votes = 2\n";

Document page_of(const std::string& url, const std::string& html) {
  Document document{.id = "a", .text = html, .is_page = true};
  set_metadata(document, "url", url);
  return document;
}

std::string html(int votes, const std::string& answers) {
  return "<h1>T</h1><p class=v data-n=" + std::to_string(votes) + "></p><p class=q>Why?</p>" + answers;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("qa step: rules, in order") {
    const ScratchFolder folder;
    const std::string sites = "sites = \"" + folder.write("a.toml", kSite).string() + "\"\n";
    const auto step = document_step("qa", sites), only = document_step("qa", sites + "only_sites = true");
    Document good = page_of("https://a.org/q/1", html(2, "<p class=a>So.</p>"));
    CHECK(look_at(*step, good).first == "");
    CHECK(good.text == "T\n\nWhy?\n\nAnswer: So.");
    CHECK_FALSE(good.is_page);
    CHECK(metadata_text(good, "site") == "a.org");
    CHECK(metadata_text(good, "title") == "T");
    CHECK(find_metadata(good, "votes")->get<double>() == 2);
    CHECK(look_at(*step, good).values.empty());  // a text now

    Document beside{
        .id = "a", .text = "<meta name=date content=2021-01-01>" + html(2, "<p class=a>So."), .is_page = true};
    beside.fields = R"("url":"https://a.org/q/1","date":"2020-01-01")";
    CHECK(look_at(*step, beside).first == "");
    CHECK_FALSE(beside.is_page);
    CHECK_FALSE(find_metadata(beside, "date").has_value());

    Document other = page_of("https://b.org/q/1", html(2, "")), list = page_of("https://a.org/", html(2, ""));
    CHECK(look_at(*step, other).values.empty());
    CHECK(other.is_page);
    CHECK(look_at(*only, other).first == "other_site");
    CHECK(look_at(*only, list).first == "other_site");
    Document changed = page_of("https://a.org/q/1", "<p>Why?"),
             low = page_of("https://a.org/q/1", html(1, "<p class=a>b"));
    CHECK(look_at(*step, changed).first == "unmatched");
    CHECK(look_at(*step, low).first == "votes");
    Document open = page_of("https://a.org/q/1", html(2, ""));
    CHECK(look_at(*step, open).first == "answers");
    Document asked = page_of("https://a.org/q/1", html(2, ""));
    CHECK(look_at(*document_step("qa", sites + "min_answers = 0"), asked).first == "");
    Document private_page = page_of("https://a.org/q/1", "<meta name=robots content=noai>" + html(2, ""));
    CHECK(look_at(*step, private_page).first == "opt_out");
    std::string deep;
    for (int i = 0; i < 1000; ++i) deep += "<div>";
    Document nested = page_of("https://a.org/q/1", deep);
    CHECK(look_at(*step, nested).first == "unreadable");
  }

  TEST_CASE("qa step: a site whose selectors find nothing is an error at the end") {
    const ScratchFolder folder;
    const auto step = document_step("qa", "sites = \"" + folder.write("a.toml", kSite).string() + "\"\n");
    const auto look = step->start();
    for (int i = 0; i < 5; ++i) {
      Document document = page_of("https://a.org/q/1", i == 0 ? "<p>Why?" : html(2, ""));
      look_at(*step, *look, document);
    }
    Counts counts;
    look->add_counts(counts);
    CHECK(counts == Counts{{"pages of a.org", 5}, {"unmatched pages of a.org", 1}});
    CHECK_NOTHROW(step->finish(counts));
    CHECK_NOTHROW(step->finish({}));
    counts["unmatched pages of a.org"] = 2;
    const Caught error = caught([&] { step->finish(counts); });
    CHECK(error.code == 3);
    CHECK(error.says("a.org: the selectors found no question on 2 of 5 pages, expected at most 20%"));
  }

  TEST_CASE("qa step: options that cannot be meant") {
    CHECK(caught([] { document_step("qa", ""); }).says("sites: got no file, expected site files such as"));
    CHECK(caught([] { document_step("qa", "sites = \"/nowhere.toml\""); }).code != 0);
    const ScratchFolder folder;
    CHECK(caught([&] {
            document_step("qa", "sites = \"" + folder.write("a.toml", kSite).string() + "\"\nmax_unmatched = 20");
          }).says("max_unmatched: got 20, expected 0 to 1"));
  }
}
