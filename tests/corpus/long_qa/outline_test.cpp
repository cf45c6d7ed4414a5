#include "src/corpus/long_qa/outline.h"

#include <doctest/doctest.h>

#include <string>

using namespace coppice;

namespace {

std::vector<std::string> sentences_of(std::string_view text) {
  std::vector<std::string> sentences;
  for (const ByteSpan& span : outline_of(text).sentences) sentences.emplace_back(span.of(text));
  return sentences;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("outline: sections by their titles, lists by what stands above them") {
    const std::string text =
        "before it\n\nThe first part\n\nOne sentence here. Another one.\n\n# The *second*\nIts words.\nWe need:\n\n"
        "- salt\n- bread\n- wine\n\nTools\n\n1. saw\n2. axe\n3. knife\n4. file\n\nThe end follows.\n";
    const Outline outline = outline_of(text);
    REQUIRE(outline.sections.size() == 3);
    CHECK(outline.sections[0].title.of(text) == "The first part");
    CHECK(outline.sentences[outline.sections[0].sentence].of(text) == "One sentence here.");
    CHECK(outline.sections[0].end - outline.sections[0].sentence == 2);
    CHECK(outline.sections[1].title.of(text) == "The *second*");
    CHECK(outline.sections[2].title.of(text) == "Tools");
    REQUIRE(outline.lists.size() == 2);
    CHECK(outline.lists[0].title.of(text) == "We need");
    CHECK(outline.lists[0].items.of(text) == "- salt\n- bread\n- wine");
    CHECK(outline.lists[1].title.of(text) == "Tools");
    CHECK(outline.lists[1].count == 4);
  }

  TEST_CASE("outline: no title, no list") {
    CHECK(outline_of("A title\n\nat the start is none.").sections.empty());
    CHECK(outline_of("x\n\nIt ends with a stop.\n\nBody.").sections.empty());
    CHECK(outline_of("x\n\nsmall first\n\nBody.").sections.empty());
    CHECK(outline_of("x\n\nA title without body\n\nAnother title\n\n").sections.empty());
    CHECK(outline_of("We need:\n- one x\n- two x\n").lists.empty());                    // two items
    CHECK(outline_of("No colon\nabove\n- one x\n- two x\n- three x\n").lists.empty());  // no title
  }

  TEST_CASE("outline: where sentences end") {
    using Texts = std::vector<std::string>;
    CHECK(sentences_of("Mr. Fox ran. He won! \"Did he?\" Yes.") ==
          Texts{"Mr. Fox ran.", "He won!", "\"Did he?\"", "Yes."});
    CHECK(sentences_of("J. S. Bach wrote it in c. 1720 or so. It is 3.14 long.") ==
          Texts{"J. S. Bach wrote it in c.", "1720 or so.", "It is 3.14 long."});
    CHECK(sentences_of("over two\nlines it goes. next small. End") ==
          Texts{"over two\nlines it goes. next small.", "End"});
    CHECK(sentences_of("\u4f60\u597d\u3002\u518d\u89c1\u3002") == Texts{"\u4f60\u597d\u3002", "\u518d\u89c1\u3002"});
    CHECK(sentences_of("").empty());
    CHECK(sentences_of(" \n\n \t").empty());
  }

  TEST_CASE("outline: hostile texts take linear time") {
    for (const std::string part : {".", ". ", ". a", "\n", "#", "- x\n", "\xE3", "Ab. ", ".\n\n", " "}) {
      std::string text;
      while (text.size() < 4'000'000) text += part;
      const Outline outline = outline_of(text);
      CHECK(outline.lists.empty());
      CHECK(outline.sentences.size() <= text.size());
    }
  }
}
