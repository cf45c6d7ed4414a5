// Pages of questions and answers by the shipped site files and by one's own.
#include "src/corpus/maths/qa_page.h"

#include <doctest/doctest.h>

#include "tests/caught.h"
#include "tests/scratch_folder.h"

using namespace coppice;

namespace {

const std::string kSites = COPPICE_SOURCE_DIR "/recipes/sites/";
const std::string kAddress = "https://math.stackexchange.com/questions/1/what-is-x";

std::string answer_of(const std::string& votes, const std::string& text, const std::string& also = "") {
  return "<div class=\"answer js-answer " + also + "\"><div class=\"js-vote-count\" data-value=\"" + votes + "\">\n" +
         votes + "\n</div><div class=\"s-prose js-post-body\"><p>" + text +
         "</p></div><div class=comments><p>No.</p></div></div>";
}

std::string question_page(const std::string& answers, const std::string& votes = "7") {
  return "<html><head><title>calculus - What is x? - Mathematics</title></head><body "
         "class=question-page><ul><li>Home</ul>"
         "<div id=question-header><h1><a href=/q>What is x?</a></h1></div><div id=question class=question>"
         "<div class=js-vote-count data-value=" +
         votes + ">" + votes +
         "</div><div class=js-post-body><p>Let <script type=\"math/tex\">x^2=2</script>.</p><p>What is "
         "it?</p></div></div>"
         "<div id=answers>" +
         answers + "</div></body></html>";
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("q and a: a question page of Stack Exchange, best answers first") {
    const std::vector<QaSite> sites = read_sites(kSites + "stackexchange.toml");
    const QaPage page =
        read_qa_page(question_page(answer_of("2", "two") + answer_of("0", "none") + answer_of("9", "nine") +
                                   answer_of("2", "also two") + answer_of("1", "right", "accepted-answer")),
                     kAddress, sites);
    CHECK(page.site == &sites[0]);
    CHECK((page.refusal == Refusal::none));
    CHECK(page.votes == 7);
    CHECK(qa_text(page) == "What is x?\n\nLet $x^2=2$.\n\nWhat is it?\n\nAnswer: right\n\nAnswer: nine\n\nAnswer: two");
    CHECK(page.answers[0].is_accepted);
    CHECK(page.answers[1].votes == 9);
    CHECK(read_qa_page(question_page(""), kAddress, sites).answers.empty());
  }

  TEST_CASE("q and a: which pages are a site's") {
    const std::vector<QaSite> sites = read_sites(kSites + "stackexchange.toml");
    for (const char* url : {"https://stackoverflow.com/questions/12/a", "https://mathoverflow.net/questions/9?x",
                            "http://meta.math.stackexchange.com/questions/1"})
      CHECK_MESSAGE(may_be_of(sites[0], url), url);
    for (const char* url :
         {"https://stackoverflow.com/questions/tagged/c", "https://stackoverflow.com/", "https://stackoverflow.com",
          "https://notstackoverflow.com/questions/1", "https://example.org/questions/1", ""})
      CHECK_FALSE_MESSAGE(may_be_of(sites[0], url), url);
    CHECK(read_qa_page(question_page(""), "https://example.org/questions/1", sites).site == nullptr);
    const QaPage changed = read_qa_page("<html><body><div class=new-name>What?</div>", kAddress, sites);
    CHECK(changed.site == &sites[0]);
    CHECK_FALSE(changed.is_found);
  }

  TEST_CASE("q and a: forums of phpBB and Discourse by their markers") {
    std::vector<QaSite> sites = read_sites(kSites + "phpbb.toml");
    for (QaSite& site : read_sites(kSites + "discourse.toml")) sites.push_back(std::move(site));
    const std::string post =
        "<div class=\"post bg1\"><dl class=postprofile><dd>Jane, 5 posts</dl><div class=postbody><h3>Re</h3>"
        "<div class=content>";
    const QaPage forum = read_qa_page(
        "<html><body id=phpbb class=\"ltr section-viewtopic\"><h2 class=topic-title>Limits</h2>" + post +
            "Why?</div></div></div>" + post + "So.</div></div></div>" + post + "Or so.</div></div></div></body></html>",
        "https://forum.example.org/viewtopic.php?t=1", sites);
    CHECK(forum.site == &sites[0]);
    CHECK(qa_text(forum) == "Limits\n\nWhy?\n\nAnswer: So.\n\nAnswer: Or so.");
    CHECK_FALSE(forum.has_votes);
    const auto crawled = [](const std::string& text, int likes) {
      return "<div class=\"topic-body crawler-post\"><div class=crawler-post-meta>Jane</div><div class=post "
             "itemprop=text><p>" +
             text + "</p></div><div itemprop=interactionStatistic><meta itemprop=userInteractionCount content=" +
             std::to_string(likes) + "></div></div>";
    };
    const QaPage topic = read_qa_page(
        "<html><head><meta name=generator content=\"Discourse 3.1\"></head><body>"
        "<div id=topic-title><h1><a>Limits</a></h1></div>" +
            crawled("Why?", 1) + crawled("So.", 2) + crawled("Or so.", 3) + "</body></html>",
        "https://talk.example.org/t/limits/5", sites);
    CHECK(topic.site == &sites[1]);
    CHECK(topic.votes == 1);
    CHECK(qa_text(topic) == "Limits\n\nWhy?\n\nAnswer: Or so.\n\nAnswer: So.");
    CHECK(read_qa_page("<html><body><p>Why?", "https://talk.example.org/t/limits/5", sites).site == nullptr);
  }

  TEST_CASE("q and a: pages that cannot or may not be read") {
    const std::vector<QaSite> sites = read_sites(kSites + "stackexchange.toml");
    std::string deep;
    for (int i = 0; i < 1000; ++i) deep += "<div>";
    CHECK((read_qa_page(deep, kAddress, sites).refusal == Refusal::too_deep));
    CHECK((read_qa_page("<meta name=robots content=noindex>" + question_page(""), kAddress, sites).refusal ==
           Refusal::opt_out));
    std::string many;
    for (int i = 0; i < 20000; ++i) many += answer_of("5", "yes");
    CHECK(read_qa_page(question_page(many), kAddress, sites).answers.size() == 3);
  }

  TEST_CASE("q and a: votes as sites write them") {
    CHECK(read_votes("12") == 12);
    CHECK(read_votes(" -3\n") == -3);
    CHECK(read_votes("+4") == 4);
    CHECK(read_votes("1,204") == 1204);
    CHECK(read_votes("1.2k") == 1200);
    for (const char* text : {"", "k", "-", "x", "12 votes", "nan", "inf", "1e9", "99999999999999999999"})
      CHECK_FALSE_MESSAGE(read_votes(text), text);
  }

  TEST_CASE("site files: errors name file and line") {
    const ScratchFolder folder;
    const auto refused = [&](const std::string& text) {
      return caught([&] { read_sites(folder.write("my.toml", text)); });
    };
    const std::string good = "[[maths.site]]\ndomain = \"a.org\"\nquestion = \"p\"\nanswer = { each = \"q\" }\n";
    CHECK(refused(good).code == 0);
    CHECK(refused("").says("my.toml: got no [[maths.site]], expected one or more"));
    CHECK(refused(good + "quest = 1").says("my.toml:5: unknown key 'quest'; did you mean 'question'?"));
    CHECK(refused(good + "title = \"p:x\"").says("my.toml:5: selector 'p:x': got :x at byte 1"));
    CHECK(refused(good + "marker = \"p@x\"")
              .says("my.toml:5: marker: got the attribute '@x', expected an element alone"));
    CHECK(refused("[[maths.site]]\nquestion = \"p\"\nanswer = { each = \"q\" }").says("my.toml:1: domain: got none"));
    CHECK(refused("[[maths.site]]\ndomain = \"a.org\"\nquestion = \"p\"")
              .says("question, answer.each: expected selectors"));
    CHECK(refused("[[maths.site]]\ndomain = \"a.org\"\nquestion = \"p\"\nanswer = { each = \"q\", best = -1 }")
              .says("answer.best: got -1, expected 0 or more"));
    CHECK(caught([&] { read_sites(folder / "none.toml"); }).code != 0);
    for (const char* file : {"stackexchange.toml", "phpbb.toml", "discourse.toml"})
      CHECK_MESSAGE(read_sites(kSites + file).size() == 1, file);
  }
}
