// report.html and report.svg: well-formed, without script and network, whatever ids and texts hold; no text over
// another.
#include "src/corpus/report/corpus_page.h"

#include <doctest/doctest.h>
#include <libxml/parser.h>
#include <libxml/tree.h>

#include <memory>
#include <set>

#include "src/corpus/report/flow_picture.h"
#include "tests/corpus/report/reported_corpus.h"

using namespace coppice;
using namespace coppice::test;

namespace {

std::string text_of(const xmlChar* text) { return text == nullptr ? "" : reinterpret_cast<const char*>(text); }

struct Element {
  std::string name, text;
  std::map<std::string, std::string> attributes;
};

/// All elements in their order; none of a page that is not well-formed.
std::vector<Element> elements_of(const std::string& markup) {
  const std::unique_ptr<xmlDoc, void (*)(xmlDoc*)> document(
      xmlReadMemory(markup.data(), static_cast<int>(markup.size()), "page", "UTF-8",
                    XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING),
      xmlFreeDoc);
  std::vector<Element> elements;
  if (document == nullptr) return elements;
  const auto visit = [&](const auto& self, xmlNode* node) -> void {
    for (; node != nullptr; node = node->next) {
      if (node->type != XML_ELEMENT_NODE) continue;
      Element element{.name = text_of(node->name)};
      const std::unique_ptr<xmlChar, void (*)(void*)> text(xmlNodeGetContent(node), xmlFree);
      element.text = text_of(text.get());
      for (const xmlAttr* of = node->properties; of != nullptr; of = of->next) {
        const std::unique_ptr<xmlChar, void (*)(void*)> value(xmlGetProp(node, of->name), xmlFree);
        element.attributes[text_of(of->name)] = text_of(value.get());
      }
      elements.push_back(std::move(element));
      self(self, node->children);
    }
  };
  visit(visit, xmlDocGetRootElement(document.get()));
  return elements;
}

struct Box {
  double left, right, top, bottom;
  std::string text;
};

std::vector<Box> text_boxes(const std::vector<Element>& elements) {
  std::vector<Box> boxes;
  for (const Element& of : elements) {
    if (of.name != "text") continue;
    const double x = std::stod(of.attributes.at("x")), y = std::stod(of.attributes.at("y"));
    const double width = text_width(of.text, 11);
    boxes.push_back({x, x + width, y - 9, y + 3, of.text});
  }
  return boxes;
}

/// 12 steps and 6 sources, each step taking something of each.
CompleteCorpus large_corpus() {
  CompleteCorpus corpus;
  std::vector<uint64_t> bytes;
  for (int i = 0; i < 6; ++i) {
    ToldSource source;
    source.options.name = fmt::format("source-{}-of-a-long-name-that-goes-on-and-on", i);
    source.in = {uint64_t{1000} << i, uint64_t{9'000'000} << i};
    bytes.push_back(source.in.text_bytes);
    corpus.in += source.in;
    corpus.sources.push_back(source);
  }
  for (int i = 0; i < 12; ++i) {
    ToldStep step;
    step.name = fmt::format("step-{}-decontaminate-by-benchmarks", i);
    for (size_t k = 0; k < bytes.size(); ++k) {
      StepCounts& of = step.by_source[corpus.sources[k].options.name];
      of.seen = {1000, bytes[k]};
      bytes[k] -= i == 5 ? 0 : bytes[k] / static_cast<uint64_t>(i == 2 ? 2 : 9 + i);
      of.kept = {900, bytes[k]};
      step.seen += of.seen;
      step.kept += of.kept;
    }
    corpus.steps.push_back(step);
  }
  for (size_t k = 0; k < bytes.size(); ++k) {
    corpus.sources[k].out = {500, bytes[k]};
    corpus.out += corpus.sources[k].out;
  }
  return corpus;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("corpus page: well-formed, no script, nothing fetched, every text escaped and masked") {
    const ReportedCorpus made;
    made.run("out");
    const std::string page = slurp(made.scratch / "out/report.html");
    const std::vector<Element> elements = elements_of(page);
    REQUIRE_FALSE(elements.empty());
    CHECK(page.find("<script") == std::string::npos);
    CHECK(page.find("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;") != std::string::npos);
    CHECK(page.find("jane.doe") == std::string::npos);
    CHECK(page.find("&lt;EMAIL&gt;") != std::string::npos);
    const std::set<std::string> active = {"script", "img", "link", "iframe", "object", "embed", "a", "image", "use"};
    std::string headings;
    for (const Element& of : elements) {
      CHECK_FALSE(active.contains(of.name));
      for (const auto& [name, value] : of.attributes) {
        CHECK(value.find("http") == std::string::npos);
        CHECK_FALSE((name == "src" || name == "href" || name.starts_with("on")));
      }
      if (of.name == "h2") headings += of.text + "|";
    }
    CHECK(headings == "Sources|Steps|What went|Rules and their thresholds|Copies|Benchmarks|Documents that are left|");
    const size_t largest = page.find("Largest clusters"), sample = page.find("aaaa baaa caaa daaa", largest);
    CHECK(sample < page.find("Copies between sources", largest));
    CHECK(page.find("now &gt; 0.15") != std::string::npos);
    CHECK(page.find("what goes: the nearest 4") != std::string::npos);
    CHECK(page.find("what stays: the nearest 5") != std::string::npos);
    CHECK_FALSE(elements_of(slurp(made.scratch / "out/report.svg")).empty());
  }

  TEST_CASE("corpus page: the same bytes again, also from the folder alone") {
    const ReportedCorpus made;
    const CompleteCorpus corpus = made.run("out");
    made.run("again");
    CHECK(slurp(made.scratch / "out/report.html") == slurp(made.scratch / "again/report.html"));
    CHECK(slurp(made.scratch / "out/report.svg") == slurp(made.scratch / "again/report.svg"));
    CHECK(corpus_page(corpus) == slurp(made.scratch / "out/report.html"));
  }

  TEST_CASE("flow picture: 12 steps and 6 sources, no text over another or over the edge") {
    const Svg picture = flow_picture(large_corpus());
    const std::vector<Box> boxes = text_boxes(elements_of(picture.document("flow")));
    CHECK(boxes.size() == 2 + 2 * 6 + 2 * 12);
    for (size_t i = 0; i < boxes.size(); ++i) {
      CHECK_MESSAGE(boxes[i].right <= picture.width(), boxes[i].text);
      CHECK(boxes[i].bottom <= picture.height());
      for (size_t k = 0; k < i; ++k) {
        const bool apart = boxes[i].left >= boxes[k].right || boxes[k].left >= boxes[i].right ||
                           boxes[i].top >= boxes[k].bottom || boxes[k].top >= boxes[i].bottom;
        CHECK_MESSAGE(apart, boxes[i].text << " / " << boxes[k].text);
      }
    }
    CHECK(picture.document("flow").find("removed nothing") == std::string::npos);  // documents went at step 5
  }

  TEST_CASE("flow picture: more sources than colours are one; an empty corpus is drawn") {
    CompleteCorpus corpus = large_corpus();
    ToldSource small = corpus.sources[0];
    small.in = small.out = {1, 10};
    for (const char* name : {"tiny", "tinier"}) small.options.name = name, corpus.sources.push_back(small);
    const std::string picture = flow_picture(corpus).document("flow");
    CHECK(picture.find(">2 others<") != std::string::npos);
    CHECK(picture.find("tiny") == std::string::npos);
    CHECK_FALSE(elements_of(flow_picture(CompleteCorpus()).document("flow")).empty());
  }
}
