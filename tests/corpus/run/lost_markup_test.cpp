// Texts whose markup is gone, and steps that look for it.
#include <doctest/doctest.h>

#include "src/corpus/run/plan_corpus.h"
#include "tests/corpus/run/real_steps.h"

using namespace coppice;
using test::RealCorpus;

namespace {

/// A WET file of one text.
std::string wet(const std::string& text) {
  return fmt::format(
      "WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Record-ID: <urn:uuid:1>\r\nContent-Type: text/plain\r\n"
      "Content-Length: {}\r\n\r\n{}\r\n\r\n",
      text.size(), text);
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("lost markup: one warning a source, of plan and of the run") {
    const RealCorpus corpus;
    for (const char* name : {"1", "2"}) spill(corpus.scratch / "in/wet" / (std::string(name) + ".wet"), wet("a text"));
    spill(corpus.scratch / "in/only/1.warc.wet", wet("another text"));
    corpus.add("lines", "1", {{"a", "third text"}});
    const std::string warning =
        "source 'wet' holds texts without markup (WET): the steps 'extract', 'rights' look for what only pages have, "
        "and find none of it there; WARC files hold pages";
    const std::string steps =
        "[[data.step]]\nkind = \"extract\"\nonly = [\"wet\", \"lines\"]\n[[data.step]]\nkind = \"licences\"\n"
        "name = \"rights\"\ndeny = [\"CC-BY-NC-*\"]\nonly = [\"wet\"]\n[[data.step]]\nkind = \"dedup\"\n";
    corpus.run(steps);
    const Json report = read_sealed(corpus.scratch / "out/report.json", "coppice.corpus", 1);
    CHECK(report["warnings"] == Json({warning}));
    const CorpusPlan plan = plan_corpus(corpus.settings(steps), {.out = corpus.scratch / "planned"});
    CHECK(plan_text(plan).find("warning: " + warning + "\n") != std::string::npos);
  }

  TEST_CASE("lost markup: which steps look for it depends on their options") {
    const RealCorpus corpus;
    spill(corpus.scratch / "in/wet/1.wet", wet("a text"));
    spill(corpus.scratch / "list.txt", "example.com\n");
    const auto warnings = [&](const std::string& step) {
      static int run = 0;
      const std::string out = fmt::format("out{}", run++);
      corpus.run("[[data.step]]\n" + step, out);
      return read_sealed(corpus.scratch / out / "report.json", "coppice.corpus", 1)["warnings"].size();
    };
    CHECK(warnings("kind = \"maths\"\n") == 1);
    CHECK(warnings("kind = \"maths\"\nmin_templates = 0\n") == 0);
    CHECK(warnings("kind = \"opt_out\"\n") == 1);
    const std::string lists = "kind = \"opt_out\"\nlists = [\"" + (corpus.scratch / "list.txt").string() + "\"]\n";
    CHECK(warnings(lists) == 1);
    CHECK(warnings(lists + "directives = []\ntdm_reservation = false\n") == 0);
    CHECK(warnings("kind = \"licences\"\ndeny = [\"MIT\"]\n") == 1);
    CHECK(warnings("kind = \"licences\"\ndeny = [\"MIT\"]\npage = false\n") == 0);
    CHECK(warnings("kind = \"dedup\"\n") == 0);
  }
}
