#include "src/corpus/long_qa/contexts.h"

#include <doctest/doctest.h>

#include "tests/corpus/long_qa/made_text.h"

using namespace coppice;
using namespace coppice::test;

namespace {

CutDocument cut(const std::string& id, const std::string& text, const std::string& license = "MIT") {
  return cut_document({.id = id, .source = "made", .text = text, .license = license}, small_tokenizer());
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("contexts: pieces cover a document and end behind sentences and lines") {
    const CutDocument document = cut("a", "One here. Two there!\nThree\n");
    std::vector<std::string> pieces;
    size_t begin = 0;
    for (const CutDocument::Piece& piece : document.pieces) {
      pieces.push_back(document.document.text.substr(begin, piece.end - begin));
      begin = piece.end;
    }
    CHECK(pieces == std::vector<std::string>{"One here.", " Two there!", "\nThree", "\n"});
    CHECK(document.tokens >= small_tokenizer().encode(document.document.text).size());
    CHECK(cut("b", std::string(5000, 'x')).pieces.empty());
    CHECK(cut("c", "x " + std::string(5000, 'x') + " y").pieces.empty());
    CHECK(cut("d", std::string(3000, 'x') + " " + std::string(3000, 'y')).pieces.size() == 2);
  }

  TEST_CASE("contexts: a long document gives windows, short ones are joined under headings") {
    std::vector<QaContext> contexts;
    ContextMaker maker(1024, false, [&](QaContext&& context) { contexts.push_back(std::move(context)); });
    const std::string text = made_text(3, 12);
    maker.add(cut("long", text));
    REQUIRE(contexts.size() >= 2);
    size_t at = 0;
    for (size_t i = 0; i < contexts.size(); ++i) {
      CHECK(contexts[i].id == fmt::format("long-qa/1024/long/{}", i));
      CHECK(contexts[i].headings.empty());
      CHECK(small_tokenizer().encode(contexts[i].text).size() > 1000);
      at = text.find(contexts[i].text, at);
      REQUIRE(at != std::string::npos);  // one behind the other
      at += contexts[i].text.size();
      CHECK(contexts[i].usable_bytes() < contexts[i].text.size());
    }
    contexts.clear();
    for (int i = 0; contexts.empty(); ++i)
      maker.add(cut(fmt::format("s{}", i), made_text(i, 1), i == 1 ? "CC0-1.0" : "MIT"));
    const QaContext& joined = contexts.front();
    CHECK(joined.id == "long-qa/1024/s0/0");
    REQUIRE(joined.headings.size() == joined.documents.size());
    REQUIRE(joined.headings.size() > 1);
    CHECK(joined.headings[0].of(joined.text) == fmt::format("Document 1 of {}", joined.documents.size()));
    CHECK(joined.licenses == std::vector<std::string>{"CC0-1.0", "MIT"});
  }

  TEST_CASE("contexts: what cannot be cut gives nothing") {
    size_t contexts = 0;
    ContextMaker maker(1024, false, [&](QaContext&&) { ++contexts; });
    maker.add(cut("empty", ""));
    maker.add(cut("word", std::string(100'000, 'x')));
    maker.add(cut("one", "word"));
    CHECK(contexts == 0);
  }
}
