// What a reader sees of a page, worked out by hand.
#include <doctest/doctest.h>

#include "src/base/errors.h"
#include "src/text/html/documentation_page.h"
#include "tests/caught.h"

namespace coppice {

TEST_SUITE("unit") {
  TEST_CASE("html: title first, blocks on lines of their own, white space collapsed, entities") {
    CHECK(html_to_text("<html><head><title> A &amp; B </title><meta name=x></head><body><h1>Head</h1><p>One\n  two "
                       "<b>three</b>.</p><p>&lt;four&gt; "
                       "&eacute;</p></body>") == "A & B\n\nHead\n\nOne two three.\n\n<four> \xC3\xA9");
    CHECK(html_to_text("<div>a</div><div>b<br>c</div>d") == "a\nb\nc\nd");
    CHECK(html_to_text("x<i> y</i>z <i>w</i>") == "x yz w");
  }

  TEST_CASE("html: what looks like a tag inside a script is none") {
    std::string script = "<script>";
    for (int i = 0; i < 6000; ++i) script += "s+='<div>';";
    CHECK(html_to_text(script + "</SCRIPT ><p>yes</p>") == "yes");
    CHECK(html_to_text("<style>" + script + "</style><p>yes</p>") == "yes");
    CHECK(html_to_text("<p>yes</p>" + script) == "yes");  // never closed
    std::string open = script + "</script>";
    for (int i = 0; i < 6000; ++i) open += "<div>";
    try {
      html_to_text(open, "a/page.html");
      CHECK(false);
    } catch (const UserError& error) {
      CHECK(std::string(error.what()).starts_with("a/page.html: "));
    }
  }

  TEST_CASE("html: scripts, styles, navigation and the like are dropped") {
    CHECK(html_to_text("<head><style>p{}</style><script>var a = "
                       "'<p>no</p>';</script></head><header>no</header><nav>no</nav><p>yes</p>"
                       "<noscript>no</noscript><aside>no</aside><footer>no</footer><script>no()</script><!-- no -->") ==
          "yes");
  }

  TEST_CASE("html: lists, tables, preformatted text") {
    CHECK(html_to_text("<ul><li>one<li> two <ul><li>three</ul></ul>after") == "- one\n- two\n\n- three\n\nafter");
    CHECK(html_to_text("<table><tr><td>a</td><td>b</td></tr><tr><th>c<th>d</table>") == "a b\nc d");
    CHECK(html_to_text("<p>see</p><pre>  int x;\n\n    y;\n</pre><p>end</p>") == "see\n\n  int x;\n\n    y;\n\nend");
    CHECK(html_to_text("<p>x</p><pre>\n\n  a</pre><pre><b>\nb</b></pre>") == "x\n\n\n  a\n\n\nb");
    CHECK(html_to_text("<pre>a<span>  b</span><br>c</pre>") == "a  b\nc");
  }

  TEST_CASE("html: nothing, plain text, damaged markup, bytes that are no UTF-8") {
    CHECK(html_to_text("").empty());
    CHECK(html_to_text("  just text \n").compare("just text") == 0);
    CHECK(html_to_text("<p>a<b>b</p>c</i></q><") == "ab\n\nc<");
    CHECK(html_to_text("<p>\xFF</p>") == "\xEF\xBF\xBD");
  }
}

TEST_SUITE("faults") {
  TEST_CASE("html: deep trees end at their limits") {
    std::string page;
    for (int i = 0; i < 600; ++i) page += "<div>" + std::to_string(i) + " ";
    const std::string text = html_to_text(page);
    CHECK(text.ends_with("\n598\n599"));
    page.clear();
    for (int i = 0; i < 1'000'000; ++i) page += "<div>";
    CHECK(caught([&] { html_to_text(page); }).code == 3);
    page.clear();
    for (int i = 0; i < 100'000; ++i) page += "<li>x<p>y";  // ends implied: wide, not deep
    CHECK(html_to_text(page).size() > 300'000);
  }
}

}  // namespace coppice
