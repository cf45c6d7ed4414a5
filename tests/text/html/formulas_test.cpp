// Formulas as pages carry them, each once.
#include "src/text/html/formulas.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>

#include "src/text/html/documentation_page.h"
#include "src/text/html/mathml.h"

namespace coppice {

TEST_SUITE("unit") {
  TEST_CASE("formulas: MathML with its TeX, in an annotation or an attribute") {
    CHECK(html_to_text("<p>As <math><semantics><mrow><mi>x</mi></mrow><annotation encoding='application/x-tex'> x^2 "
                       "</annotation></semantics></math> grows</p>") == "As $x^2$ grows");
    CHECK(html_to_text("<p><math alttext='\\frac{a}{b}' display='block'><mi>a</mi></math></p>") == "$$\\frac{a}{b}$$");
  }

  TEST_CASE("formulas: MathML alone in a plain form") {
    CHECK(html_to_text(
              "<p><math><msup><mi>x</mi><mn>2</mn></msup><mo>+</mo><mfrac><mn>1</mn><mi>y</mi></mfrac></math>") ==
          "$x^{2}+\\frac{1}{y}$");
    CHECK(html_to_text("<math><msqrt><msub><mi>a</mi> <mi>i</mi></msub></msqrt></math>") == "$\\sqrt{a_{i}}$");
    CHECK(html_to_text("<math><munderover><mo>&sum;</mo><mi>i</mi><mi>n</mi></munderover></math>") ==
          "$\xE2\x88\x91_{i}^{n}$");
  }

  TEST_CASE("formulas: KaTeX: the TeX stays, what is drawn goes") {
    CHECK(html_to_text("<p>a <span class='katex'><span class='katex-mathml'><math><semantics><mi>c</mi><annotation "
                       "encoding='application/x-tex'>c = \\pm\\sqrt{a}</annotation></semantics></math></span><span "
                       "class='katex-html' aria-hidden='true'>c=sqrt</span></span> b</p>") ==
          "a $c = \\pm\\sqrt{a}$ b");
    CHECK(html_to_text("<span class='katex-display'><span class='katex'><span class='katex-mathml'><math><annotation "
                       "encoding='application/x-tex'>z</annotation></math></span></span></span>") == "$$z$$");
  }

  TEST_CASE("formulas: MathJax 2: the script stays, preview and drawing go") {
    CHECK(
        html_to_text("<p>a <span class='MathJax_Preview'>x2</span><span class='MathJax' id='E1'><span>x2</span></span>"
                     "<script type='math/tex'>x^2</script> b</p>") == "a $x^2$ b");
    CHECK(html_to_text("<div class='MathJax_Display'><span class='MathJax'>E</span></div><script "
                       "type='math/tex; mode=display'>E = mc^2</script>") == "$$E = mc^2$$");
    CHECK(html_to_text("<span class='MathJax' data-mathml='<math><msup><mi>x</mi><mn>3</mn></msup></math>'><span>x3"
                       "</span></span>") == "$x^{3}$");
  }

  TEST_CASE("formulas: MathJax 3: the MathML for screen readers") {
    CHECK(
        html_to_text("<p>a <mjx-container display='true'><mjx-math>drawn</mjx-math><mjx-assistive-mml><math><mi>y</mi>"
                     "</math></mjx-assistive-mml></mjx-container></p>") == "a $$y$$");
  }

  TEST_CASE("formulas: Wikipedia's, once, without its wrapping") {
    CHECK(html_to_text(
              "<p>is <span class='mwe-math-element'><span class='mwe-math-mathml-inline' style='display: none;'>"
              "<math alttext='{\\displaystyle a_{1}}'><semantics><mi>a</mi><annotation "
              "encoding='application/x-tex'>{\\displaystyle a_{1}}</annotation></semantics></math></span><img "
              "class='mwe-math-fallback-image-inline' alt='{\\displaystyle a_{1}}'></span>.</p>") == "is $a_{1}$.");
    CHECK(html_to_text("<img class='mwe-math-fallback-image-inline' alt='{\\displaystyle b}+{c}'>") ==
          "${\\displaystyle b}+{c}$");
  }

  TEST_CASE("formulas: pictures of formulas by class and by address; other pictures are none") {
    CHECK(html_to_text("<p>a <img class='tex' alt='\\alpha'> b") == "a $\\alpha$ b");
    CHECK(html_to_text("<p>a <img class='latex' src='/i.png' alt='n!'> b") == "a $n!$ b");
    CHECK(html_to_text("<img src='https://s0.wp.com/latex.php?latex=x%5E2+%2B+1&bg=ffffff&fg=000' alt='no'>") ==
          "$x^2 + 1$");
    CHECK(html_to_text("<img src='https://latex.codecogs.com/gif.latex?\\dpi{150}&#32;%5Cfrac%7Ba%7D%7Bb%7D'>") ==
          "$\\frac{a}{b}$");
    CHECK(html_to_text("<p>a <img src='/latex-logo.png' alt='no'> b <img class=photo alt=no>") == "a b");
  }

  TEST_CASE("formulas: addresses of codecogs, in the forms that its editors have written") {
    const auto tex = [](const std::string& path) {
      return html_to_text("<img src='https://latex.codecogs.com/" + path + "'>");
    };
    CHECK(tex("gif.latex?\\dpi{110}&space;x&space;+y") == "$x +y$");
    CHECK(tex("gif.latex?\\inline&space;\\dpi{150}&space;\\bg_white&space;\\large&space;\\frac{a}{b}") ==
          "$\\frac{a}{b}$");
    CHECK(tex("png.latex?\\dpi{300}&amp;space;\\fn_jvn&amp;space;\\bg{white}\\huge&amp;space;a&amp;plus;b") == "$a+b$");
    CHECK(tex("svg.image?x%5E2&plus;1") == "$x^2+1$");
    CHECK(tex("png.image?%5Cdpi%7B110%7D%5Cinline%20n!") == "$n!$");
    CHECK(tex("svg.latex?1+sin(mc^2)") == "$1+sin(mc^2)$");
    CHECK(tex("eq.latex?%5Cfg_blue%20%5Ctiny%20a") == "$a$");
    CHECK(tex("gif.download?b") == "$b$");
    CHECK(tex("gif.latex?\\largest&space;\\bgroup") == "$\\largest \\bgroup$");  // names that begin so
    CHECK(tex("gif.latex?\\inline") == "");
    CHECK(tex("gif.latex?\\dpi{110") == "");
    for (const char* no_text : {"gif.latex?%5Cfrac%8Ba%7D", "svg.image?a%C3", "svg.image?a%00b"})
      CHECK(tex(no_text) == "");
    CHECK(html_to_text("<img src='http://www.codecogs.com/eq.latex?c'>") == "$c$");
    CHECK(html_to_text("<p>a <img src='https://a.example/svg.image?b'> c") == "a c");
  }

  TEST_CASE("formulas: the page's limit of time holds for formulas within attributes") {
    std::string page;
    for (int i = 0; i < 1000; ++i) page += "<span class='MathJax' data-mathml='<math><mi>x</mi></math>'>x</span> ";
    PageTree tree;
    read_page(page, {}, tree);
    tree.deadline = Deadline(-1);
    keep_formulas(tree);
    CHECK(std::ranges::none_of(tree.nodes, [](const PageNode& node) { return node.tag == Tag::formula; }));
    read_page(page, {}, tree);
    keep_formulas(tree);
    CHECK(std::ranges::count(tree.nodes, Tag::formula, &PageNode::tag) == 1000);
  }

  TEST_CASE("formulas: what stands between signs in the text is left alone") {
    CHECK(html_to_text("<p>\\(x_1 &lt; 2\\), \\[y\\] and $$z$$") == "\\(x_1 < 2\\), \\[y\\] and $$z$$");
  }
}

}  // namespace coppice
