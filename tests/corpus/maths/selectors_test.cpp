// Selectors: what they find, worked out by hand, and what is no selector.
#include "src/corpus/maths/selectors.h"

#include <doctest/doctest.h>

#include "tests/caught.h"

using namespace coppice;

namespace {

const std::string kPage = R"(<html><body class="a  b" id="top">
<div id="d1" class="post first"><p id="p1">one <b id="b1">bold</b></p><p id="p2" class="x-post">two</p></div>
<div id="d2" class="post" data-role="answer"><ul id="u1"><li id="l1"><p id="p3">three</p></li></ul></div>
<DIV ID="d3" CLASS="Post" Data-Score="12" lang="en-GB"><section id="s1"><div id="d4" class="post"><p id="p4">four</p></div></section></DIV>
<my-part id="m1" hidden>five</my-part></body></html>)";

/// Ids of what is found, or what it asks of them.
std::string found(const std::string& selector, const std::string& page = kPage) {
  const Selector asked = parse_selector(selector, "here");
  const Selector ids = parse_selector("[id]@id", "here");
  SelectorWatch watch({&asked, &ids});
  PageTree tree;
  read_page(page, {}, tree, &watch);
  std::string all;
  for (const SelectedNode& node : watch.found()[0]) {
    std::string word = node.value;
    if (asked.attribute.empty())
      for (const SelectedNode& named : watch.found()[1])
        if (named.node == node.node) word = named.value;
    all += (all.empty() ? "" : " ") + word;
  }
  return all;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("selectors: one element") {
    CHECK(found("p") == "p1 p2 p3 p4");
    CHECK(found("P") == "p1 p2 p3 p4");
    CHECK(found("my-part") == "m1");
    CHECK(found(".post") == "d1 d2 d4");  // not Post, not x-post
    CHECK(found(".a.b") == "top");
    CHECK(found("#d2") == "d2");
    CHECK(found("div.post.first#d1") == "d1");
    CHECK(found("[data-role]") == "d2");
    CHECK(found("[DATA-score]") == "d3");
    CHECK(found("[data-role=answer]") == "d2");
    CHECK(found("[data-role = 'answer' ]") == "d2");
    CHECK(found("[data-role=\"ans\"]") == "");
    CHECK(found("[data-role^=ans]") == "d2");
    CHECK(found("[lang^=\"en-\"]") == "d3");
    CHECK(found("[hidden]") == "m1");
    CHECK(found("*[id=top]") == "top");
    CHECK(found("q") == "");
  }

  TEST_CASE("selectors: descendants, children, alternatives") {
    CHECK(found(".post p") == "p1 p2 p3 p4");
    CHECK(found(".post > p") == "p1 p2 p4");
    CHECK(found(".post>p") == "p1 p2 p4");
    CHECK(found("body .post li > p") == "p3");
    CHECK(found("body > .post p") == "p1 p2 p3");
    CHECK(found("#d3 div p") == "p4");
    CHECK(found("#d3 > p") == "");
    CHECK(found("#d1 > p > b, li,#p4") == "b1 l1 p4");
    CHECK(found("p, .x-post") == "p1 p2 p3 p4");  // each once
    CHECK(found("div div") == "d4");
    CHECK(found("p p") == "");
    CHECK(found("section > .post > p") == "p4");
  }

  TEST_CASE("selectors: the attribute they ask for") {
    CHECK(found("[data-score]@data-score") == "12");
    CHECK(found("#d3@LANG") == "en-GB");
    CHECK(found("#d1@lang") == "");
  }

  TEST_CASE("selectors: broken markup does not mislead them") {
    CHECK(found(".a > .b", "<div class=a><div class=b id=x></div></div></div><div class=b id=y>") == "x");
    CHECK(found("td p", "<table><tr><td><p id=x>a<tr><td><p id=y>b</table><p id=z>") == "x y");
    CHECK(found("p", "") == "");
    std::string deep;
    for (int i = 0; i < 2000; ++i) deep += "<div class=a>";
    CHECK(found(".a .a .a .b", deep) == "");
  }

  TEST_CASE("selectors: what is none, with its place") {
    const auto refused = [](const std::string& text) { return caught([&] { parse_selector(text, "my.toml:3"); }); };
    for (const char* text : {"",       " ",     ",",       "p,", "p >",   "> p",   ".",
                             "#",      "p..a",  "[",       "[a", "[a=",   "[a=]",  "[a^b]",
                             "[a='b]", "[=a]",  "[a^='']", "p@", "p@a b", "p @ a", "p:first-child",
                             "p + q",  "p ~ q", "a\\b",    "p)"})
      CHECK_MESSAGE(refused(text).code == 2, text);
    CHECK(refused("p > :x").says("my.toml:3: selector 'p > :x': got :x at byte 4, expected a tag, '.class', '#id' or"));
    CHECK(refused("p,").says("got the end at byte 2"));
    std::string many = "p";
    for (int i = 1; i < 64; ++i) many += " p";
    CHECK(parse_selector(many, "here").parts.size() == 64);
    CHECK(refused(many + ",p").says("expected at most 64 elements in a selector"));
    CHECK(refused(std::string(4097, 'a')).says("expected at most 4096 bytes"));
  }
}
