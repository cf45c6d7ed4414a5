// Pages as they were fetched, and the steps that they may meet.
#include <doctest/doctest.h>

#include "src/corpus/run/plan_corpus.h"
#include "tests/caught.h"
#include "tests/corpus/run/real_steps.h"

using namespace coppice;
using test::RealCorpus;

TEST_SUITE("unit") {
  TEST_CASE("raw pages: a step that reads texts is refused before work starts, wherever the page is") {
    const RealCorpus corpus;
    const std::string text =
        "The forester cuts the coppice in winter, and the stools that are left grow again. A text of some "
        "words, with commas, so that it is one, and not a menu.";
    spill(corpus.scratch / "in/web/1.html",
          "<html><body><article><p>" + text + "</p><p>" + text + "</p></article></body></html>");
    corpus.add("lines", "1", {{"a", "third text"}});
    spill(corpus.scratch / "list.txt", "example.com\n");
    const std::string list = "\"" + (corpus.scratch / "list.txt").string() + "\"";
    const auto refusal = [&](const std::string& steps, const std::string& out) {
      return caught([&] { corpus.run(steps, out); });
    };
    for (const char* steps :
         {"[[data.step]]\nkind = \"quality\"\n[[data.step]]\nkind = \"extract\"\n", "[[data.step]]\nkind = \"dedup\"\n",
          "[[data.step]]\nkind = \"extract\"\nonly = [\"lines\"]\n[[data.step]]\nkind = \"pii\"\n"}) {
      CAPTURE(std::string(steps));
      const Caught refused = refusal(steps, "refused");
      CHECK(refused.code == 2);
      CHECK(refused.says("got the pages of source 'web' (web/1.html is one of its files), expected texts"));
      CHECK_FALSE(std::filesystem::exists(corpus.scratch / "refused"));
      CHECK(caught([&] {
              plan_corpus(corpus.settings(steps), {.out = corpus.scratch / "planned"});
            }).says("got the pages"));
    }
    const Caught none = refusal("[[data.step]]\nkind = \"opt_out\"\nlists = [" + list + "]\n", "refused");
    CHECK(none.code == 2);
    CHECK(none.says("source 'web' holds pages (web/1.html is one of its files), and no step turns them into texts"));

    const std::string fine = "[[data.step]]\nkind = \"opt_out\"\nlists = [" + list +
                             "]\n[[data.step]]\nkind = \"quality\"\nrules = [\"url\"]\nurl_domains = " + list +
                             "\n[[data.step]]\nkind = \"extract\"\n[[data.step]]\nkind = \"dedup\"\n";
    corpus.run(fine, "fine");
    CHECK(corpus.kept("fine") == std::set<std::string>{"a", "web/1.html"});
  }

  TEST_CASE("raw pages: one among JSON lines is refused by the step that it meets") {
    const RealCorpus corpus;
    spill(corpus.scratch / "in/lines/1.jsonl",
          "{\"id\":\"t\",\"text\":\"a text\"}\n{\"id\":\"p\",\"text\":\"<p>a page\",\"is_page\":true}\n");
    const Caught refused = caught([&] { corpus.run("[[data.step]]\nname = \"rules\"\nkind = \"quality\"\n"); });
    CHECK(refused.code == 2);
    CHECK(refused.says("step 'rules' got the page 'p', expected texts; add a [[data.step]] with kind = \"extract\""));
  }
}
