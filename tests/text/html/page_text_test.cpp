// Whole pages, small and exact: what is the article, and how it reads.
#include "src/text/html/page_text.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cctype>
#include <functional>
#include <string>
#include <vector>

namespace coppice {

namespace {

/// A paragraph of about 190 characters with a comma, told from others by its first word.
std::string prose(const std::string& name) {
  return name +
         " tells in a sentence of some length what happened on that day in the harbour, and goes on to say why nobody "
         "who was there had expected the ship to sail before the storm was over.";
}

std::string paragraphs(const std::string& first, const std::string& second) {
  return "<p>" + prose(first) + "</p><p>" + prose(second) + "</p><p>" + prose("Last") + "</p>";
}

std::string article_of(const std::string& html, PageOptions options = {}) { return extract_page(html, options).text; }

const std::string kThree = prose("One") + "\n\n" + prose("Two") + "\n\n" + prose("Last");

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("page_text: navigation, sidebars and footers around an article go, whatever they are made of") {
    const std::string page =
        "<html><head><title>The ship that sailed | Harbour News</title></head><body>"
        "<nav><a href=/a>Home</a> <a href=/b>News</a></nav>"
        "<div class=sidebar><p>" +
        prose("Sidebar") +
        "</p></div>"
        "<div id=story><h1>The ship that sailed</h1>" +
        paragraphs("One", "Two") +
        "</div>"
        "<div class=related><ul><li><a href=/c>More of this</a></li></ul></div>"
        "<footer>All rights reserved</footer></body></html>";
    const PageText found = extract_page(page);
    CHECK(found.text == kThree);
    CHECK(found.metadata.title == "The ship that sailed");
    CHECK(found.chars == kThree.size());
    CHECK(found.replaced == 0);
  }

  TEST_CASE("page_text: a title has an end, and headings are compared with its words") {
    const std::string title = "Ships " + std::string(1 << 20, 'x') + " sailed";
    CHECK(extract_page("<title>" + title + "</title><p>" + prose("One")).metadata.title == title.substr(0, 1000));
    std::string wide = "a";
    while (wide.size() < 3000) wide += "\u00e9";
    CHECK(extract_page("<title>" + wide + "</title>").metadata.title == wide.substr(0, 999));
    CHECK(extract_page("<meta property=og:title content='" + wide + "'>").metadata.title == wide.substr(0, 999));
    const TitleWords words("The SHIP that sailed");
    CHECK(words.repeated_by("The ship that sailed"));
    CHECK(words.repeated_by("Ship, sailed: the"));
    CHECK(words.repeated_by("The ship that sailed on"));
    CHECK_FALSE(words.repeated_by("The ship that sank"));
    CHECK_FALSE(words.repeated_by(""));
    CHECK_FALSE(TitleWords("").repeated_by("The"));
  }

  TEST_CASE("page_text: names that are unlikely and likely at once stay") {
    CHECK(article_of("<body><div class='article-comment'>" + paragraphs("One", "Two") + "</div>") == kThree);
    CHECK(article_of("<body><div><p>" + prose("Zero") + "</p><div class='banner'>" + prose("Banner") + "</div>" +
                     paragraphs("One", "Two") + "</div>") == prose("Zero") + "\n\n" + kThree);
  }

  TEST_CASE("page_text: what is hidden is not there") {
    for (const std::string hidden :
         {"hidden", "style='display: none'", "style='visibility:hidden'", "aria-hidden=true"})
      CHECK_MESSAGE(article_of("<div>" + paragraphs("One", "Two") + "<p " + hidden + ">" + prose("Hidden") +
                               "</p></div>") == kThree,
                    hidden);
    for (const std::string tag : {"script", "style", "noscript", "button", "select", "textarea", "svg"})
      CHECK_MESSAGE(article_of("<div>" + paragraphs("One", "Two") + "<" + tag + ">" + prose("No") + "</" + tag +
                               "></div>") == kThree,
                    tag);
  }

  TEST_CASE("page_text: comments of readers go unless they are asked for") {
    const std::string page = "<div>" + paragraphs("One", "Two") + "<div class='comments-area body'><p>" +
                             prose("Reader") + "</p></div></div>";
    CHECK(article_of(page) == kThree);
    CHECK(article_of(page, {.comments = true}) == kThree + "\n\n" + prose("Reader"));
  }

  TEST_CASE("page_text: a heading under which nothing is left goes with it") {
    const std::string links =
        "<ul><li><a href=/a>Another story about ships</a></li><li><a href=/b>And one</a></li></ul>";
    CHECK(article_of("<div>" + paragraphs("One", "Two") + "<h2>Read also</h2>" + links + "</div>").find("Read also") ==
          std::string::npos);
    CHECK(article_of("<div><h2>Chapter</h2>" + paragraphs("One", "Two") + "</div>") == "Chapter\n\n" + kThree);
    CHECK(article_of("<div><h2>Chapter</h2><h3>Part</h3>" + paragraphs("One", "Two") + "</div>") ==
          "Chapter\n\nPart\n\n" + kThree);
  }

  TEST_CASE("page_text: the lead in front of the article belongs to it") {
    const std::string lead = "A short summary of what the harbour saw that day.";
    CHECK(article_of("<article><header><div class=standfirst>" + lead + "</div></header><div class=text>" +
                     paragraphs("One", "Two") + "</div></article>") == lead + "\n\n" + kThree);
  }

  TEST_CASE("page_text: a page of <div>s and line breaks has paragraphs too") {
    CHECK(article_of("<div id=main><div>" + prose("One") + "</div><div>" + prose("Two") + "<br>" + prose("Last") +
                     "</div></div>") == prose("One") + "\n" + prose("Two") + "\n" + prose("Last"));
  }

  TEST_CASE("page_text: lists, tables, preformatted text, white space") {
    CHECK(article_of("<div>" + paragraphs("One", "Two") +
                     "<ul><li>first,\n   thing</li><li>second</li></ul><pre>if (x)\n\n    y;</pre>"
                     "<table><tr><th>a<th>b<tr><td>1<td>2</table></div>") ==
          kThree + "\n\n- first, thing\n- second\n\nif (x)\n\n    y;\n\na | b\n1 | 2");
  }

  TEST_CASE("page_text: normal form C, entities, U+FFFD counted") {
    const PageText found = extract_page("<p>Cafe\xCC\x81 &mdash; \xEF\xBF\xBD " + prose("and\xFF") + "</p>");
    CHECK(found.text == "Caf\xC3\xA9 \xE2\x80\x94 \xEF\xBF\xBD " + prose("and\xEF\xBF\xBD"));
    CHECK(found.replaced == 2);
    CHECK(found.chars == 4 + 1 + 1 + 1 + 1 + 1 + prose("and").size() + 1);
  }

  TEST_CASE("page_text: blocks by words and links; what readers say ends the article") {
    const std::string page = "<div><a href=/a>One link</a> <a href=/b>and another</a></div><div>" +
                             paragraphs("One", "Two") + "</div><div><h3>Comments (12)</h3></div><div>" +
                             prose("Reader") + "</div>";
    CHECK(article_of(page, {.join = PageJoin::boilerpipe}).find(kThree) != std::string::npos);
    CHECK(article_of(page, {.join = PageJoin::boilerpipe}).find("Reader") == std::string::npos);
    CHECK(article_of(page, {.join = PageJoin::boilerpipe}).find("Comments") == std::string::npos);
  }

  TEST_CASE("page_text: joins: both, one of them, the longer") {
    // The second <div> is no article to reader mode, whose unlikely names the block classifier does not know.
    const std::string page = "<div><div id=a>" + paragraphs("One", "Two") + "</div><div class=sidebar><p>" +
                             prose("Aside") + "</p><p>" + prose("Beside") + "</p></div></div>";
    const std::string both = kThree + "\n\n" + prose("Aside") + "\n\n" + prose("Beside");
    CHECK(article_of(page, {.join = PageJoin::reader}) == kThree);
    CHECK(article_of(page, {.join = PageJoin::boilerpipe}) == both);
    CHECK(article_of(page, {.join = PageJoin::intersection}) == kThree);
    CHECK(article_of(page, {.join = PageJoin::all}) == both);
    CHECK(article_of(page) == kThree);
    const PageTexts texts = extract_page_by_both(page);
    CHECK(texts.reader.text == kThree);
    CHECK(texts.boilerpipe.text == both);
    CHECK(find_page_join("union") == PageJoin::all);
    CHECK_FALSE(find_page_join("either").has_value());  // of a step, which has two texts then
  }

  TEST_CASE("page_text: formulas stay with their sentence") {
    const std::string page = "<div>" + paragraphs("One", "Two") +
                             "<p>The force <script type='math/tex'>F = ma</script> pulls, as we have seen.</p></div>";
    CHECK(article_of(page) == kThree + "\n\nThe force $F = ma$ pulls, as we have seen.");
    CHECK(article_of(page, {.formulas = false}) == kThree + "\n\nThe force pulls, as we have seen.");
  }

  TEST_CASE("page_text: known formulas of pages made by six kinds of tools are all kept, each once") {
    static const std::vector<std::string> kTex = {
        "E = mc^2",
        "\\frac{\\partial u}{\\partial t} = \\alpha \\nabla^2 u",
        "\\sum_{n=1}^{\\infty} \\frac{1}{n^2} = \\frac{\\pi^2}{6}",
        "\\int_0^1 x^2 \\, dx",
        "\\alpha_i \\in \\{1, 2\\}",
        "\\sqrt{b^2 - 4ac}",
        "\\lim_{x \\to 0} \\sin x / x",
        "\\mathbb{E}[X \\mid Y]",
        "\\begin{pmatrix} a & b \\\\ c & d \\end{pmatrix}",
        "f \\colon A \\to B",
    };
    const auto escaped = [](const std::string& tex) {
      std::string out;
      for (const char c : tex) out += c == '&' ? "&amp;" : std::string(1, c);
      return out;
    };
    const auto query = [](const std::string& tex) {
      std::string out;
      for (const char c : tex)
        out += std::isalnum(static_cast<unsigned char>(c)) ? std::string(1, c) : fmt::format("%{:02X}", c);
      return out;
    };
    const auto mathml = [&](const std::string& tex) {
      return "<math><semantics><mrow><mi>drawn</mi></mrow><annotation encoding='application/x-tex'>" + escaped(tex) +
             "</annotation></semantics></math>";
    };
    const std::vector<std::function<std::string(const std::string&)>> kinds = {
        [&](const std::string& tex) { return mathml(tex); },
        [&](const std::string& tex) {
          return "<span class=katex><span class=katex-mathml>" + mathml(tex) +
                 "</span><span class=katex-html aria-hidden=true><span class=base>drawn</span></span></span>";
        },
        [&](const std::string& tex) {
          return "<span class=MathJax_Preview>drawn</span><span class=MathJax><span>drawn</span></span><script "
                 "type='math/tex'>" +
                 tex + "</script>";
        },
        [&](const std::string& tex) {
          return "<span class=mwe-math-element><span class=mwe-math-mathml-inline style='display: none'>" +
                 mathml(tex) + "</span><img class=mwe-math-fallback-image-inline aria-hidden=true alt='" +
                 escaped(tex) + "'></span>";
        },
        [&](const std::string& tex) {
          return "<img class=latex src='https://s0.wp.com/latex.php?latex=" + query(tex) + "&amp;bg=ffffff' alt='no'>";
        },
        [&](const std::string& tex) { return "<img src='https://latex.codecogs.com/svg.latex?" + query(tex) + "'>"; },
    };
    size_t pages = 0, kept = 0, all = 0;
    for (const auto& kind : kinds)
      for (size_t first = 0; first < kTex.size(); first += 2) {
        std::string page = "<nav><a href=/>Home</a></nav><div class=content>" + paragraphs("One", "Two");
        for (size_t i = first; i < first + 4; ++i)
          page += "<p>It follows that " + kind(kTex[i % kTex.size()]) + " holds, which is what was to be shown.</p>";
        const std::string text = article_of(page + "</div><footer>Imprint</footer>");
        ++pages;
        for (size_t i = first; i < first + 4; ++i) {
          ++all;
          kept += text.find("that $" + kTex[i % kTex.size()] + "$ holds") != std::string::npos;
        }
        CHECK(text.find("drawn") == std::string::npos);
      }
    CHECK(pages == 30);
    CHECK(kept == all);
  }

  TEST_CASE("page_text: a page that must not be used is refused") {
    const std::string body = "<body>" + paragraphs("One", "Two");
    for (const std::string says : {"name=robots content=noindex", "name=ROBOTS content='nofollow, NoAI'",
                                   "name=robots content=none", "name=tdm-reservation content=1"}) {
      const PageText found = extract_page("<head><meta " + says + "></head>" + body);
      CHECK_MESSAGE(found.refusal == Refusal::opt_out, says);
      CHECK_MESSAGE(found.text.empty(), says);
    }
    for (const std::string says : {"name=robots content='index, nofollow'", "name=tdm-reservation content=0",
                                   "name=description content=noindex"})
      CHECK_MESSAGE(extract_page("<head><meta " + says + "></head>" + body).text == kThree, says);
    CHECK(article_of("<meta name=robots content=noindex>" + body, {.respects_opt_out = false}) == kThree);
  }

  TEST_CASE("page_text: title, date, address and language of a page") {
    const PageMetadata found =
        extract_page(
            "<html lang=de><head><title>Ein Titel mit Worten - Zeitung</title><meta name=date "
            "content=2020-01-02><meta property='article:published_time' content='2021-03-04T05:06:07Z'><link "
            "rel=canonical href='https://example.com/x'></head><body><time datetime=2019-01-01></time>")
            .metadata;
    CHECK(found.title == "Ein Titel mit Worten");
    CHECK(found.date == "2021-03-04");
    CHECK(found.url == "https://example.com/x");
    CHECK(found.language == "de");
    const PageMetadata other =
        extract_page(
            "<title>No</title><meta property=og:title content=' Yes  it is'><meta property=og:url "
            "content='http://example.com/'><time datetime='2019-05-06 10:00'>May</time><link rel=canonical "
            "href='/relative'>")
            .metadata;
    CHECK(other.title == "Yes it is");
    CHECK(other.date == "2019-05-06");
    CHECK(other.url == "http://example.com/");
    CHECK(other.language.empty());
    CHECK(extract_page("<p>x").metadata.date.empty());
  }

  TEST_CASE("page_text: nothing, plain text, damaged markup") {
    CHECK(article_of("").empty());
    CHECK(article_of("<html><body></body></html>").empty());
    CHECK(article_of(prose("Plain")) == prose("Plain"));
    CHECK(article_of("<div><p>" + prose("One") + "<div></p></span>" + prose("Two") + "</table>") ==
          prose("One") + "\n\n" + prose("Two"));
  }
}

TEST_SUITE("faults") {
  TEST_CASE("page_text: hostile shapes end, by a refusal or with a text") {
    std::string page;
    for (int i = 0; i < 600; ++i) page += "<div>";
    CHECK(extract_page(page + "x").refusal == Refusal::too_deep);
    page.clear();
    for (int i = 0; i < 500; ++i) page += "<div class=share>";
    for (int i = 0; i < 100'000; ++i) page += "<div class='comment share'>x, <a>y</a></div>";
    CHECK(extract_page(page).refusal == Refusal::none);
    page = "<table>";
    for (int i = 0; i < 120; ++i) page += "<tr><td><table>";
    for (int i = 0; i < 50'000; ++i) page += "<tr><td>some words here, and there";
    CHECK(extract_page(page).refusal == Refusal::none);
    page.clear();
    for (int i = 0; i < 100'000; ++i)
      page += "<img class=mwe-math-fallback-image-inline alt=x><span class=MathJax></span>";
    CHECK(extract_page(page).refusal == Refusal::none);
    CHECK(extract_page(std::string(1 << 20, '<')).refusal == Refusal::none);
    CHECK(extract_page(std::string(8 << 20, 'x')).text.size() == 8 << 20);
  }
}

}  // namespace coppice
