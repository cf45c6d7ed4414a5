// Domains of addresses, their labels, and the list for people to label.
#include "src/corpus/maths/domains.h"

#include <doctest/doctest.h>

#include "tests/caught.h"
#include "tests/scratch_folder.h"

using namespace coppice;

TEST_SUITE("unit") {
  TEST_CASE("domains: of addresses") {
    CHECK(host_of("https://www.Example.org/a?b#c") == "example.org");
    CHECK(host_of("http://user:pw@math.example.org:8080/") == "math.example.org");
    CHECK(host_of("HTTP://example.org.") == "example.org");
    CHECK(host_of("https://example.org?x@y") == "example.org");
    for (const char* url : {"", "example.org/a", "ftp://example.org/", "://example.org", "mailto:a@b"})
      CHECK_MESSAGE(host_of(url) == "", url);
    CHECK(belongs_to("a.example.org", "example.org"));
    CHECK(belongs_to("example.org", "example.org"));
    CHECK_FALSE(belongs_to("badexample.org", "example.org"));
    CHECK_FALSE(belongs_to("org", "example.org"));
  }

  TEST_CASE("domains: labels reach what lies below, the nearest counts") {
    const ScratchFolder folder;
    const DomainLabels labels(folder.write(
        "labels.tsv", "# by hand\n\nexample.org\tmaths\r\nshop.example.org\tno\nExample.org\tmaths\nac.uk\t maths \n"));
    CHECK(labels.of("example.org") == "maths");
    CHECK(labels.of("a.b.example.org") == "maths");
    CHECK(labels.of("x.shop.example.org") == "no");
    CHECK(labels.of("ox.ac.uk") == "maths");
    CHECK(labels.of("example.com") == "other");
    CHECK(labels.of("") == "other");
    CHECK(DomainLabels().of("example.org") == "other");
    for (const char* line : {"example.org", "\tmaths", "example.org maths"}) {
      const Caught error = caught([&] { DomainLabels(folder.write("bad.tsv", "a.org\tmaths\n" + std::string(line))); });
      CHECK_MESSAGE(error.code == 3, line);
      CHECK_MESSAGE(error.says("bad.tsv:2: got '"), line);
    }
    CHECK(caught([&] {
            DomainLabels(folder.write("bad.tsv", "a.org\tmaths\na.org\tno"));
          }).says("bad.tsv:2: a.org: got the label 'no', but a line above says 'maths'"));
    CHECK(caught([&] { DomainLabels(folder / "none.tsv"); }).code == 3);
  }

  TEST_CASE("domains: the list for people is the file of labels; what they leave empty has none") {
    const ScratchFolder folder;
    std::string lines = domain_lines({{"a.org", 7, {"17\tnames", "Two"}}, {"b.a.org", 2, {"Three"}}, {"c.org", 1, {}}});
    CHECK(DomainLabels(folder.write("labels.tsv", lines)).labels().empty());
    CHECK(DomainLabels(folder / "labels.tsv").of("a.org") == "other");
    lines.insert(lines.find("a.org\t") + 6, " maths ");
    const DomainLabels labels(folder.write("labels.tsv", lines));
    CHECK(labels.labels() == std::set<std::string>{"maths"});
    CHECK(labels.of("a.org") == "maths");
    CHECK(labels.of("b.a.org") == "maths");  // as what lies below a labelled one
    CHECK(labels.of("c.org") == "other");
  }

  TEST_CASE("domains: by count with three samples, the same in any order") {
    std::string lines, reversed;
    const auto add = [&](const std::string& line) {
      lines += line + "\n";
      reversed = line + "\n" + reversed;
    };
    for (int i = 0; i < 5; ++i)
      add("{\"id\":\"a" + std::to_string(i) + "\",\"text\":\"Text\\n\\t number " + std::to_string(i) +
          "\",\"metadata\":{\"url\":\"https://www.a.org/" + std::to_string(i) + "\"}}");
    add(R"({"id":"b","text":"Other","url":"http://b.org/","metadata":{"source_url":"http://no.org/"}})");
    add(R"({"id":"c","text":"Another","metadata":{"url":"http://aa.org/"}})");
    add(R"({"id":"d","text":"No address"})");
    const ScratchFolder folder;
    const std::vector<DomainCount> domains = list_domains(folder.write("in/a.jsonl", lines));
    REQUIRE(domains.size() == 3);
    CHECK(domains[0].domain == "a.org");
    CHECK(domains[0].documents == 5);
    CHECK(domains[0].samples.size() == 3);
    CHECK(domains[0].samples[0].starts_with("Text number "));
    CHECK(domains[1].domain == "aa.org");
    CHECK(domains[2].domain == "b.org");
    CHECK(domain_lines(domains) == domain_lines(list_domains(folder.write("other/a.jsonl", reversed))));
    CHECK(domain_lines({{"b.org", 1, {"Other", "More"}}}) ==
          "# domain\tlabel, to be filled in\tdocuments\thow some of them begin\nb.org\t\t1\tOther\tMore\n");
  }
}
