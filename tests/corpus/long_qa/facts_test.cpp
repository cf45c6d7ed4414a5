#include "src/corpus/long_qa/facts.h"

#include <doctest/doctest.h>

#include <string>

using namespace coppice;

namespace {

/// `n:` numbers, `d:` dates, `c:` names.
std::vector<std::string> facts_of(std::string_view sentence) {
  std::vector<std::string> facts;
  for (const Fact& fact : find_facts(sentence))
    facts.push_back(std::string(1, "ndc"[static_cast<int>(fact.type)]) + ":" + std::string(fact.span.of(sentence)));
  return facts;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("facts: numbers, dates and names of a sentence") {
    using Facts = std::vector<std::string>;
    CHECK(facts_of("On 12 March 1887 he paid 1,024.50 francs to Anna Karlova of Turin.") ==
          Facts{"d:12 March 1887", "n:1,024.50", "c:Anna Karlova", "c:Turin"});
    CHECK(facts_of("They left on March 12, 1887 at 12:30.") == Facts{"d:March 12, 1887", "n:12:30"});
    CHECK(facts_of("In May 1901 or in May, and 7 of B2B went.") == Facts{"d:May 1901"});
    CHECK(facts_of("Paris (Texas) has \u00c9lan Vital in it.") == Facts{"c:\u00c9lan Vital"});  // first, bracket
    CHECK(facts_of("Old John Smith slept.") == Facts{"c:John Smith"});
    CHECK(facts_of("see One Two Three Four Five Six").empty());
    CHECK(facts_of("").empty());
    CHECK(facts_of("12,") == Facts{"n:12"});
  }

  TEST_CASE("facts: stop words") {
    CHECK(is_stop_word("The"));
    CHECK(is_stop_word("I'm"));
    CHECK_FALSE(is_stop_word("river"));
    CHECK(is_stop_words("However They"));
    CHECK_FALSE(is_stop_words("The Hague"));
    CHECK_FALSE(is_stop_words("1887"));
  }
}
