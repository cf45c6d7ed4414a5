// The flat tree: what is kept of a page, and where reading stops.
#include "src/text/html/page_tree.h"

#include <doctest/doctest.h>

#include <string>

namespace coppice {

namespace {

PageTree read(std::string_view html, const PageLimits& limits = {}) {
  PageTree tree;
  read_page(html, limits, tree);
  return tree;
}

/// `div(p("a")p("b"))`
std::string outline(const PageTree& tree, uint32_t node) {
  if (tree.nodes[node].tag == Tag::text) return "\"" + std::string(tree.text_of(node)) + "\"";
  std::string below;
  for (const uint32_t child : children(tree, node)) below += outline(tree, child);
  return std::string(traits(tree.nodes[node].tag).name) + "(" + below + ")";
}

std::string repeated(std::string_view piece, size_t times) {
  std::string all;
  all.reserve(piece.size() * times);
  for (size_t i = 0; i < times; ++i) all += piece;
  return all;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("page_tree: every element is found by its name, in any case") {
    for (int tag = static_cast<int>(Tag::a); tag <= static_cast<int>(Tag::semantics); ++tag)
      CHECK_MESSAGE(find_tag(traits(static_cast<Tag>(tag)).name) == static_cast<Tag>(tag),
                    traits(static_cast<Tag>(tag)).name);
    CHECK(find_tag("x-unheard-of") == Tag::unknown);
    CHECK(outline(read("<DIV><P>a"), 0) == "(html(body(div(p(\"a\")))))");
  }

  TEST_CASE("page_tree: elements in the order of the page, ends implied, entities decoded") {
    CHECK(outline(read("<div><p>a<p>b &amp; &#x263A;</div>c"), 0) ==
          "(html(body(div(p(\"a\")p(\"b & \xE2\x98\xBA\"))\"c\")))");
    CHECK(outline(read("<ul><li>one<li>two</ul>"), 0) == "(html(body(ul(li(\"one\")li(\"two\")))))");
    CHECK(outline(read("<p>a<!-- no --><b>b</p>c</i></q>"), 0) == "(html(body(p(\"a\"b(\"b\"))\"c\")))");
    CHECK(outline(read(""), 0) == "()");
  }

  TEST_CASE("page_tree: characters of scripts and styles are left out, those of formulas are not") {
    CHECK(outline(read("<p>a</p><script>var s = '<p>b</p>';</script><style>p { }</style>"), 0) ==
          "(html(body(p(\"a\")script()style())))");
    CHECK(outline(read("<p>a<script type=\"math/tex; mode=display\">x < y</script>"), 0) ==
          "(html(body(p(\"a\"script(\"x < y\")))))");
  }

  TEST_CASE("page_tree: attributes that rules read, and whether an element is shown") {
    const PageTree tree = read(
        "<div class='a b' id=c onclick=no data-x=no><p hidden>1</p><p style='color:red; Display : NONE'>2</p>"
        "<p style='display:block'>3</p><p aria-hidden=true>4</p><a href='#x'>5</a><a href='/x'>6</a></div>");
    const uint32_t div = 3;  // page, html, body, div
    REQUIRE(tree.nodes[div].tag == Tag::div);
    CHECK(tree.attribute(div, Attribute::class_name) == "a b");
    CHECK(tree.attribute(div, Attribute::id) == "c");
    CHECK(tree.attribute(div, Attribute::role) == "");
    CHECK(tree.nodes[div].num_attributes == 2);
    std::string hidden, fragments;
    for (const uint32_t child : children(tree, div)) {
      hidden += tree.nodes[child].is_hidden ? '1' : '0';
      fragments += tree.nodes[child].is_fragment ? '1' : '0';
    }
    CHECK(hidden == "110100");
    CHECK(fragments == "000010");
  }

  TEST_CASE("page_tree: a byte that is no UTF-8 and a zero are U+FFFD each") {
    const PageTree tree = read(std::string_view("<p>a\xFF\xC3(\0b", 9));
    CHECK(tree.text ==
          "a\xEF\xBF\xBD\xEF\xBF\xBD(\xEF\xBF\xBD"
          "b");
    CHECK(read("<meta charset=latin1><p>\xC3\xA9").text == "\xC3\xA9");  // it is UTF-8 whatever it says
  }

  TEST_CASE("page_tree: reading stops at its limits and says at which") {
    CHECK(read(repeated("<div>", 510) + "x").refusal == Refusal::none);  // with page, html and body
    CHECK(read(repeated("<div>", 511) + "x").refusal == Refusal::too_deep);
    CHECK(read(repeated("<p>x", 100), {.nodes = 203}).refusal == Refusal::none);
    CHECK(read(repeated("<p>x", 100), {.nodes = 202}).refusal == Refusal::too_large);
    CHECK(read("<p>four", {.bytes = 6}).refusal == Refusal::too_large);
    CHECK(read("<p>four", {.bytes = 7}).refusal == Refusal::none);
    CHECK(read(repeated("<p>x", 10'000), {.seconds = -1}).refusal == Refusal::timeout);
  }
}

TEST_SUITE("faults") {
  TEST_CASE("page_tree: bombs") {
    CHECK(read(repeated("<div>", 1'000'000)).refusal == Refusal::too_deep);
    CHECK(read(repeated("<b>", 1'000'000)).refusal == Refusal::too_deep);
    CHECK(read(repeated("<br>", 1'100'000)).refusal == Refusal::too_large);
    CHECK(read(repeated("</div>", 1'000'000) + "x").text == "x");
    CHECK(read(repeated("<", 1'000'000)).refusal == Refusal::none);
    CHECK(read("<p>x<!--" + repeated("-", 1'000'000)).text == "x");
    // Ever new names: libxml2 compares each attribute of an element with those before it.
    std::string many = "<p";
    for (int i = 0; i < 1'000'000; ++i) many += " a" + std::to_string(i) + "=1";
    CHECK(read(many + ">x</p>y").text.ends_with("y"));
  }
}

}  // namespace coppice
