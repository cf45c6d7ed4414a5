#include "src/text/html/formulas.h"

#include <simdjson.h>

#include <algorithm>
#include <cctype>
#include <optional>
#include <string>
#include <utility>

#include "src/text/html/mathml.h"
#include "src/text/html/name_marks.h"

namespace coppice {

namespace {

constexpr uint32_t kNodesBetweenLooks = 4096;  // at the clock

struct Formula {
  std::string tex;
  bool is_display = false;
};

/// One blank for each run of white space, none at the ends.
std::string trimmed(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (!std::isspace(static_cast<unsigned char>(c))) {
      out += c;
    } else if (!out.empty() && out.back() != ' ') {
      out += ' ';
    }
  }
  if (out.ends_with(' ') && !out.ends_with("\\ ")) out.pop_back();
  return out;
}

/// Without what Wikipedia wraps around every formula: {\displaystyle ...}.
std::string unwrapped(std::string tex) {
  for (const std::string_view style : {"{\\displaystyle ", "{\\textstyle "}) {
    if (!tex.starts_with(style) || !tex.ends_with('}')) continue;
    int depth = 0;
    size_t close = std::string::npos;
    for (size_t i = 0; i < tex.size() && close == std::string::npos; ++i) {
      if (tex[i] == '\\') {
        ++i;
      } else if (tex[i] == '{') {
        ++depth;
      } else if (tex[i] == '}' && --depth == 0) {
        close = i;
      }
    }
    if (close + 1 == tex.size()) return trimmed(std::string_view(tex).substr(style.size(), close - style.size()));
  }
  return tex;
}

/// A query's value: %41 decoded, and + into `plus`.
std::string decoded_query(std::string_view query, char plus = ' ') {
  const auto digit = [&](size_t i) {
    const char c = i < query.size() ? query[i] : ' ';
    if (c >= '0' && c <= '9') return c - '0';
    const int letter = std::tolower(static_cast<unsigned char>(c));
    return letter >= 'a' && letter <= 'f' ? letter - 'a' + 10 : -1;
  };
  std::string out;
  for (size_t i = 0; i < query.size(); ++i) {
    if (query[i] == '%' && digit(i + 1) >= 0 && digit(i + 2) >= 0) {
      out += static_cast<char>(digit(i + 1) * 16 + digit(i + 2));
      i += 2;
    } else {
      out += query[i] == '+' ? plus : query[i];
    }
  }
  return out;
}

/// Without what codecogs is told in front of a formula: how the picture is to look.
std::string without_settings(const std::string& tex) {
  static constexpr std::string_view kValued[] = {"dpi", "bg", "fg", "fn"};  // {110}, {white} or _white behind
  static constexpr std::string_view kAlone[] = {"inline", "tiny", "small", "large", "Large", "LARGE", "huge", "Huge"};
  const auto is_letter = [](unsigned char c) { return std::isalpha(c) != 0; };
  for (auto at = tex.begin();;) {
    at = std::find_if_not(at, tex.end(), [](unsigned char c) { return std::isspace(c) != 0; });
    if (at == tex.end() || *at != '\\') return {at, tex.end()};
    auto end = std::find_if_not(at + 1, tex.end(), is_letter);
    const std::string_view name(at + 1, end);
    if (std::ranges::find(kValued, name) != std::end(kValued)) {
      if (end != tex.end() && *end == '{') {
        end = std::find(end, tex.end(), '}');
        if (end != tex.end()) ++end;
      } else if (end != tex.end() && *end == '_') {
        end = std::find_if_not(end + 1, tex.end(), is_letter);
      }
    } else if (std::ranges::find(kAlone, name) == std::end(kAlone)) {
      return {at, tex.end()};
    }
    at = end;
  }
}

/// Codecogs takes a whole query as TeX, + as it stands, and has names for signs that part addresses.
std::string tex_of_codecogs(std::string_view query) {
  static constexpr std::pair<std::string_view, char> kSigns[] = {
      {"&space;", ' '}, {"&plus;", '+'}, {"&hash;", '#'}, {"&amp;", '&'}};
  const std::string decoded = decoded_query(query, '+');
  std::string tex;
  for (size_t i = 0; i < decoded.size();) {
    const std::string_view rest = std::string_view(decoded).substr(i);
    const auto* const sign = std::ranges::find_if(kSigns, [&](const auto& row) { return rest.starts_with(row.first); });
    const bool is_named = sign != std::end(kSigns);
    tex += is_named ? sign->second : rest.front();
    i += is_named ? sign->first.size() : 1;
  }
  return without_settings(tex);
}

std::string decoded_formula(std::string_view src) {
  for (const std::string_view key : {"latex.php?latex=", "chl="}) {  // of blogs, and of charts
    const size_t at = src.find(key);
    if (at == std::string_view::npos || (key == "chl=" && src.find("cht=tx") == std::string_view::npos)) continue;
    const std::string_view query = src.substr(at + key.size());
    return decoded_query(query.substr(0, query.find('&')));
  }
  const size_t question = std::min(src.find('?'), src.size());
  const std::string_view place = src.substr(0, question), query = src.substr(std::min(question + 1, src.size()));
  const bool is_codecogs = place.find("codecogs") != std::string_view::npos &&
                           (place.ends_with("latex") || place.ends_with(".image") || place.ends_with(".download"));
  return is_codecogs || place.ends_with(".latex") ? tex_of_codecogs(query) : std::string();
}

/// The formula in the address of a picture service; nothing where its bytes are no text.
std::string tex_of_address(std::string_view src) {
  std::string tex = decoded_formula(src);
  const bool is_text = simdjson::validate_utf8(tex.data(), tex.size()) && tex.find('\0') == std::string::npos;
  return is_text ? tex : std::string();
}

bool has_class(const PageTree& tree, uint32_t node, std::string_view wanted) {
  const std::string_view classes = tree.attribute(node, Attribute::class_name);
  for (size_t begin = 0; begin < classes.size();) {
    const size_t end = std::min(classes.find_first_of(" \t\r\n\f", begin), classes.size());
    if (classes.substr(begin, end - begin) == wanted) return true;
    begin = end + 1;
  }
  return false;
}

class FormulaKeeper {
 public:
  explicit FormulaKeeper(PageTree& tree) : tree_(tree) {}

  void run() {
    for (uint32_t n = 1; n < tree_.nodes.size(); ++n) {
      if (n % kNodesBetweenLooks == 0 && tree_.deadline.has_passed()) return;
      const PageNode& node = tree_.nodes[n];
      if (node.tag == Tag::text) continue;
      if (is_drawing(n)) {
        show(n, {});
        n = node.end - 1;
        continue;
      }
      const std::optional<Formula> formula = formula_at(n);
      if (!formula) continue;
      show(n, *formula);
      n = tree_.nodes[n].end - 1;
    }
  }

 private:
  bool is_formula(uint32_t n) const {
    return n < tree_.nodes.size() && (tree_.nodes[n].tag == Tag::formula || tree_.nodes[n].tag == Tag::math);
  }

  /// Among the first siblings, or as the first child of one.
  bool is_shown_beside(uint32_t n) const {
    constexpr int kSiblings = 8;
    int seen = 0;
    for (const uint32_t sibling : children(tree_, tree_.nodes[n].parent)) {
      if (is_formula(sibling) || (sibling + 1 < tree_.nodes[sibling].end && is_formula(sibling + 1))) return true;
      if (++seen == kSiblings) break;
    }
    return false;
  }

  /// What shows a formula that is there in another form as well.
  bool is_drawing(uint32_t n) const {
    const PageNode& node = tree_.nodes[n];
    const std::string_view classes = tree_.attribute(n, Attribute::class_name);
    if (classes.empty()) return false;
    if (node.tag == Tag::img) return classes.find("mwe-math-fallback") != std::string_view::npos && is_shown_beside(n);
    if ((name_marks(classes) & kFormula) == 0) return false;
    if (has_class(tree_, n, "katex-html")) return is_shown_beside(n);
    if (has_class(tree_, n, "MathJax_Preview")) return true;
    // Drawn by MathJax 2 in front of the script that holds the formula; without it the drawing's MathML serves.
    return tree_.attribute(n, Attribute::data_mathml).empty() && !holds_math(n) && is_followed_by_script(n);
  }

  bool holds_math(uint32_t n) const {
    for (uint32_t i = n + 1; i < tree_.nodes[n].end; ++i)
      if (tree_.nodes[i].tag == Tag::math) return true;
    return false;
  }

  bool is_tex_script(uint32_t n) const {
    return tree_.nodes[n].tag == Tag::script && tree_.attribute(n, Attribute::type).starts_with("math/tex");
  }

  bool is_followed_by_script(uint32_t n) const {
    for (uint32_t up = n; up != 0; up = tree_.nodes[up].parent) {
      const uint32_t next = tree_.nodes[up].end, parent = tree_.nodes[up].parent;
      if (next < tree_.nodes[parent].end) return is_tex_script(next);
      if (!has_class(tree_, parent, "MathJax_Display") && !has_class(tree_, parent, "MathJax_SVG_Display")) break;
    }
    return false;
  }

  std::optional<Formula> formula_at(uint32_t n) const {
    const PageNode& node = tree_.nodes[n];
    switch (node.tag) {
      case Tag::math:
        return of_math(n);
      case Tag::script:
        if (!is_tex_script(n)) return std::nullopt;
        return Formula{trimmed(tree_.whole_text(n)),
                       tree_.attribute(n, Attribute::type).find("mode=display") != std::string_view::npos};
      case Tag::mjx_container:
        for (uint32_t i = n + 1; i < node.end; ++i)
          if (tree_.nodes[i].tag == Tag::math) {
            Formula formula = of_math(i);
            formula.is_display |= tree_.attribute(n, Attribute::display) == "true";
            return formula;
          }
        return std::nullopt;
      case Tag::img:
        return of_image(n);
      default:
        break;
    }
    if (has_class(tree_, n, "MathJax") || has_class(tree_, n, "MathJax_SVG") || has_class(tree_, n, "MathJax_CHTML"))
      return of_drawing(n);
    return std::nullopt;
  }

  Formula of_math(uint32_t n) const {
    Formula formula{.is_display = tree_.attribute(n, Attribute::display) == "block" || is_in_display(n)};
    for (uint32_t i = n + 1; i < tree_.nodes[n].end && formula.tex.empty(); ++i)
      if (tree_.nodes[i].tag == Tag::annotation &&
          tree_.attribute(i, Attribute::encoding).find("tex") != std::string_view::npos)
        formula.tex = trimmed(tree_.whole_text(i));
    if (formula.tex.empty()) formula.tex = trimmed(tree_.attribute(n, Attribute::alttext));
    if (formula.tex.empty()) formula.tex = linear_mathml(tree_, n);
    return formula;
  }

  bool is_in_display(uint32_t n) const {
    for (int level = 0; n != 0 && level < 3; ++level) {
      n = tree_.nodes[n].parent;
      if (has_class(tree_, n, "katex-display") || has_class(tree_, n, "MathJax_Display")) return true;
    }
    return false;
  }

  std::optional<Formula> of_image(uint32_t n) const {
    if (const std::string_view src = tree_.attribute(n, Attribute::src); !src.empty()) {
      std::string tex = tex_of_address(src);
      if (!tex.empty()) return Formula{trimmed(tex)};
    }
    const bool is_display = has_class(tree_, n, "mwe-math-fallback-image-display");
    if (is_display || has_class(tree_, n, "mwe-math-fallback-image-inline") || has_class(tree_, n, "tex") ||
        has_class(tree_, n, "latex"))
      if (const std::string_view alt = tree_.attribute(n, Attribute::alt); !alt.empty())
        return Formula{trimmed(alt), is_display};
    return std::nullopt;
  }

  /// Of MathJax 2: the MathML in an attribute or below, for screen readers.
  std::optional<Formula> of_drawing(uint32_t n) const {
    for (uint32_t i = n + 1; i < tree_.nodes[n].end; ++i)
      if (tree_.nodes[i].tag == Tag::math) return is_followed_by_script(n) ? Formula{} : of_math(i);
    if (is_followed_by_script(n)) return Formula{};
    const std::string_view source = tree_.attribute(n, Attribute::data_mathml);
    const double seconds = tree_.deadline.seconds_left();
    if (source.empty() || seconds <= 0) return std::nullopt;
    PageTree inner;
    read_page(source, {.seconds = seconds}, inner);
    for (uint32_t i = 1; i < inner.nodes.size(); ++i)
      if (inner.nodes[i].tag == Tag::math) {
        FormulaKeeper keeper(inner);
        Formula formula = keeper.of_math(i);
        formula.is_display |= is_in_display(n);
        return formula;
      }
    return std::nullopt;
  }

  void show(uint32_t n, const Formula& formula) {
    const std::string tex = unwrapped(formula.tex);
    PageNode& node = tree_.nodes[n];
    node.tag = Tag::formula;
    node.text_begin = static_cast<uint32_t>(tree_.text.size());
    if (!tex.empty()) {
      const std::string_view mark = formula.is_display ? "$$" : "$";
      tree_.text.append(mark).append(tex).append(mark);
    }
    node.text_end = static_cast<uint32_t>(tree_.text.size());
    // What surrounds it may have been hidden in favour of a picture.
    for (uint32_t up = node.parent, level = 0; up != 0 && level < 2; up = tree_.nodes[up].parent, ++level)
      if (tree_.attribute(up, Attribute::class_name).find("math") != std::string_view::npos ||
          has_class(tree_, up, "katex"))
        tree_.nodes[up].is_hidden = false;
  }

  PageTree& tree_;
};

}  // namespace

void keep_formulas(PageTree& tree) { FormulaKeeper(tree).run(); }

}  // namespace coppice
