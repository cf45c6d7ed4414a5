#include "src/text/html/documentation_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "src/base/errors.h"
#include "src/text/html/formulas.h"
#include "src/text/html/page_tree.h"
#include "src/text/html/text_writer.h"

namespace coppice {

namespace {

// Wider than for pages of the web: a manual on one page is long, and nobody means harm.
constexpr PageLimits kLimits{.depth = 5000, .nodes = 10'000'000, .bytes = uint64_t{64} << 20, .seconds = 60};

bool is_dropped(Tag tag) {
  switch (tag) {
    case Tag::script:
    case Tag::style:
    case Tag::nav:
    case Tag::noscript:
    case Tag::head:
    case Tag::header:
    case Tag::footer:
    case Tag::aside:
    case Tag::svg:
    case Tag::iframe:
    case Tag::select:
      return true;
    default:
      return false;
  }
}

/// Whether a list separated by white space holds one of `names`.
bool has_word(std::string_view words, std::span<const std::string_view> names) {
  for (size_t begin = 0; begin < words.size();) {
    const size_t end = std::min(words.find_first_of(" \t\r\n\f", begin), words.size());
    if (std::find(names.begin(), names.end(), words.substr(begin, end - begin)) != names.end()) return true;
    begin = end + 1;
  }
  return false;
}

/// Links that documentation tools repeat on every page, by ARIA role or by the class or id the tool gives them: kept,
/// they would be a good part of a short page.
bool is_repeated_navigation(const PageTree& tree, uint32_t node) {
  static constexpr std::string_view kRoles[] = {"navigation", "search", "menu", "menubar", "banner", "contentinfo"};
  static constexpr std::string_view kClasses[] = {
      "navheader",
      "navfooter",
      "docnav",  // DocBook, Publican
      "related",
      "sphinxsidebar",
      "headerlink",
      "footer",  // Sphinx
      "menu-bar",
      "nav-chapters",
      "theme-popup",  // mdBook
      "header",
      "nav-panel",
      "copiable-anchor",
      "copiable-link",  // Texinfo
      "chlinktop",
      "chlinkbot",
      "chlinkprevnexttop",
      "chlinkprevnextbot",
      "foot",             // GAPDoc
      "book-navigation",  // Drupal
  };
  static constexpr std::string_view kIds[] = {"banner", "mathjaxlink", "menu-bar", "searchbar-outer"};
  return has_word(tree.attribute(node, Attribute::role), kRoles) ||
         has_word(tree.attribute(node, Attribute::class_name), kClasses) ||
         has_word(tree.attribute(node, Attribute::id), kIds);
}

std::vector<uint8_t> body(const PageTree& tree) {
  std::vector<uint8_t> selected(tree.nodes.size(), 0);
  for (uint32_t n = 1; n < tree.nodes.size(); ++n) {
    const Tag tag = tree.nodes[n].tag;
    if (tag == Tag::text || tag == Tag::formula) {
      selected[n] = 1;
      n = tree.nodes[n].end - 1;
    } else if (is_dropped(tag) || is_repeated_navigation(tree, n)) {
      n = tree.nodes[n].end - 1;
    }
  }
  return selected;
}

std::vector<uint8_t> title(const PageTree& tree) {
  std::vector<uint8_t> selected(tree.nodes.size(), 0);
  const auto node = std::ranges::find(tree.nodes, Tag::title, &PageNode::tag);
  if (node == tree.nodes.end()) return selected;
  const auto n = static_cast<uint32_t>(node - tree.nodes.begin());
  for (uint32_t i = n; i < node->end; ++i) selected[i] = tree.nodes[i].tag == Tag::text;
  return selected;
}

}  // namespace

std::string html_to_text(std::string_view html, const std::filesystem::path& path) {
  if (html.size() > kLimits.bytes) throw UserError::bad_file(path.native(), "the page is larger than 64 MB");
  PageTree tree;
  read_page(html, kLimits, tree);
  if (tree.refusal == Refusal::too_deep)
    throw UserError::bad_file(path.native(),
                              fmt::format("HTML: more than {} elements are open at once", kLimits.depth));
  if (tree.refusal == Refusal::too_large)
    throw UserError::bad_file(path.native(), fmt::format("HTML: more than {} elements", kLimits.nodes));
  if (tree.refusal == Refusal::timeout)
    throw UserError::bad_file(path.native(), fmt::format("HTML: reading it took {} seconds", kLimits.seconds));
  keep_formulas(tree);
  std::string text = write_text(tree, title(tree), " ");
  const std::string rest = write_text(tree, body(tree), " ");
  if (!text.empty() && !rest.empty()) text += "\n\n";
  return text + rest;
}

}  // namespace coppice
