// Text of an HTML page. libgumbo parses (it never fails on bad HTML); the walk is iterative and stops at 512 levels.
// gumbo's own clean-up recurses over the tree, so all its memory comes from an arena that is dropped as a whole.
#include "src/text/html.h"

#include <gumbo.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "src/base/errors.h"
#include "src/text/documents.h"

namespace coppice {

namespace {

constexpr size_t kMaxDepth = 512;
constexpr int64_t kMaxOpenElements = 5000;  // the parser's scope checks walk the open elements: time is bytes x depth

class Arena {
 public:
  static void* allocate(void* self, size_t bytes) { return static_cast<Arena*>(self)->take(bytes); }
  static void release(void*, void*) {}

 private:
  void* take(size_t bytes) {
    bytes = (bytes + 15) & ~size_t{15};
    if (bytes > left_) {
      const size_t block = std::max(bytes, size_t{1} << 20);
      blocks_.push_back(std::make_unique<std::byte[]>(block));
      next_ = blocks_.back().get();
      left_ = block;
    }
    void* const result = next_;
    next_ += bytes;
    left_ -= bytes;
    return result;
  }

  std::vector<std::unique_ptr<std::byte[]>> blocks_;
  std::byte* next_ = nullptr;
  size_t left_ = 0;
};

/// Where the raw text behind a start tag like <script> ends: at its end tag, whatever looks like a tag before it.
size_t raw_text_end(std::string_view html, size_t begin, std::string_view name) {
  for (size_t i = html.find("</", begin); i != std::string_view::npos; i = html.find("</", i + 2)) {
    const std::string_view found = html.substr(i + 2, name.size());
    if (std::equal(found.begin(), found.end(), name.begin(), name.end(),
                   [](char a, char b) { return std::tolower(static_cast<unsigned char>(a)) == b; }))
      return i;
  }
  return html.size();
}

/// Refuses pages whose unclosed elements pile up. Counts start tags minus end tags, leaving out elements whose end may
/// be implied.
void check_nesting(std::string_view html, const std::filesystem::path& path) {
  static constexpr std::string_view kRawText[] = {"script", "style", "textarea", "title"};
  static constexpr std::string_view kImplied[] = {
      "a",  "p",  "li",  "dt",    "dd",   "tr",   "td",   "th",   "thead", "tbody", "option", "colgroup", "col",
      "br", "hr", "img", "input", "link", "meta", "area", "base", "param", "wbr",   "source", "embed"};
  int64_t open = 0;
  for (size_t i = html.find('<'); i != std::string_view::npos; i = html.find('<', i + 1)) {
    if (html.compare(i, 4, "<!--") == 0) {
      i = html.find("-->", i);
      if (i == std::string_view::npos) return;
      continue;
    }
    const bool is_end = i + 1 < html.size() && html[i + 1] == '/';
    size_t name_end = i + 1 + is_end;
    std::string name;
    while (name_end < html.size() && std::isalnum(static_cast<unsigned char>(html[name_end])) && name.size() < 16)
      name += static_cast<char>(std::tolower(static_cast<unsigned char>(html[name_end++])));
    if (name.empty() || std::find(std::begin(kImplied), std::end(kImplied), name) != std::end(kImplied)) continue;
    open = std::max<int64_t>(0, open + (is_end ? -1 : 1));
    if (open > kMaxOpenElements)
      throw UserError::bad_file(path.native(), "HTML: more than 5000 elements are open at once");
    if (!is_end && std::find(std::begin(kRawText), std::end(kRawText), name) != std::end(kRawText)) {
      const size_t end = raw_text_end(html, name_end, name);
      if (end == html.size()) return;
      i = end - 1;  // the end tag is next
    }
  }
}

bool is_dropped(GumboTag tag) {
  switch (tag) {
    case GUMBO_TAG_SCRIPT:
    case GUMBO_TAG_STYLE:
    case GUMBO_TAG_NAV:
    case GUMBO_TAG_NOSCRIPT:
    case GUMBO_TAG_HEAD:
    case GUMBO_TAG_HEADER:
    case GUMBO_TAG_FOOTER:
    case GUMBO_TAG_ASIDE:
    case GUMBO_TAG_TEMPLATE:
    case GUMBO_TAG_SVG:
    case GUMBO_TAG_IFRAME:
    case GUMBO_TAG_SELECT:
      return true;
    default:
      return false;
  }
}

/// Whether a class list holds one of `names`.
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
bool is_repeated_navigation(const GumboElement& element) {
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
  const auto attribute = [&](const char* name) -> std::string_view {
    const GumboAttribute* found = gumbo_get_attribute(&element.attributes, name);
    return found == nullptr ? std::string_view{} : std::string_view(found->value);
  };
  return has_word(attribute("role"), kRoles) || has_word(attribute("class"), kClasses) ||
         has_word(attribute("id"), kIds);
}

/// Newlines that a block puts around itself: 2 = an empty line between paragraphs, 1 = a line of its own, 0 = inline.
int newlines_around(GumboTag tag) {
  switch (tag) {
    case GUMBO_TAG_P:
    case GUMBO_TAG_H1:
    case GUMBO_TAG_H2:
    case GUMBO_TAG_H3:
    case GUMBO_TAG_H4:
    case GUMBO_TAG_H5:
    case GUMBO_TAG_H6:
    case GUMBO_TAG_PRE:
    case GUMBO_TAG_BLOCKQUOTE:
    case GUMBO_TAG_UL:
    case GUMBO_TAG_OL:
    case GUMBO_TAG_DL:
    case GUMBO_TAG_TABLE:
    case GUMBO_TAG_SECTION:
    case GUMBO_TAG_ARTICLE:
    case GUMBO_TAG_HR:
      return 2;
    case GUMBO_TAG_DIV:
    case GUMBO_TAG_LI:
    case GUMBO_TAG_TR:
    case GUMBO_TAG_DT:
    case GUMBO_TAG_DD:
    case GUMBO_TAG_CAPTION:
    case GUMBO_TAG_FIGURE:
    case GUMBO_TAG_FIGCAPTION:
    case GUMBO_TAG_ADDRESS:
    case GUMBO_TAG_MAIN:
    case GUMBO_TAG_BODY:
    case GUMBO_TAG_FORM:
    case GUMBO_TAG_FIELDSET:
    case GUMBO_TAG_DETAILS:
    case GUMBO_TAG_SUMMARY:
    case GUMBO_TAG_CENTER:
      return 1;
    default:
      return 0;
  }
}

/// Collects text; separators wait until the next text arrives, so that none leads, trails or doubles.
class TextBuilder {
 public:
  void line_break(int newlines) { newlines_ = std::max(newlines_, newlines); }
  void space() { space_ = true; }
  void bullet() { bullet_ = true; }

  void add_flowing(std::string_view text) {
    size_t i = 0;
    while (i < text.size()) {
      if (is_space(text[i])) {
        space_ = true;
        ++i;
        continue;
      }
      size_t end = i;
      while (end < text.size() && !is_space(text[end])) ++end;
      separate();
      out_.append(text.substr(i, end - i));
      i = end;
    }
  }

  void add_verbatim(std::string_view text) {
    if (text.empty()) return;
    separate();
    out_.append(text);
  }

  std::string take() {
    while (!out_.empty() && is_space(out_.back())) out_.pop_back();
    return std::move(out_);
  }

 private:
  static bool is_space(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r' || c == '\f'; }

  void separate() {
    if (!out_.empty()) {
      if (newlines_ > 0) {
        while (!out_.empty() && out_.back() == '\n') out_.pop_back();  // of verbatim text
        out_.append(static_cast<size_t>(newlines_), '\n');
      } else if (space_ && !is_space(out_.back())) {
        out_ += ' ';
      }
    }
    if (bullet_) out_ += "- ";
    newlines_ = 0;
    space_ = bullet_ = false;
  }

  std::string out_;
  int newlines_ = 0;
  bool space_ = false, bullet_ = false;
};

const GumboVector* children_of(const GumboNode* node) {
  switch (node->type) {
    case GUMBO_NODE_DOCUMENT:
      return &node->v.document.children;
    case GUMBO_NODE_ELEMENT:
      return &node->v.element.children;
    default:
      return nullptr;
  }
}

struct Frame {
  const GumboNode* node;
  unsigned next = 0;
  bool is_pre = false;
};

void leave(const GumboNode* node, TextBuilder& text) {
  if (node->type == GUMBO_NODE_ELEMENT) text.line_break(newlines_around(node->v.element.tag));
}

void walk(const GumboNode* root, TextBuilder& text) {
  std::vector<Frame> stack{{root}};
  while (!stack.empty()) {
    Frame& top = stack.back();
    const GumboVector* children = children_of(top.node);
    if (children == nullptr || top.next == children->length) {
      leave(top.node, text);
      stack.pop_back();
      continue;
    }
    const auto* child = static_cast<const GumboNode*>(children->data[top.next++]);
    const bool is_pre = top.is_pre;
    switch (child->type) {
      case GUMBO_NODE_TEXT:
      case GUMBO_NODE_CDATA:
      case GUMBO_NODE_WHITESPACE:
        is_pre ? text.add_verbatim(child->v.text.text) : text.add_flowing(child->v.text.text);
        break;
      case GUMBO_NODE_ELEMENT: {
        const GumboTag tag = child->v.element.tag;
        if (is_dropped(tag) || is_repeated_navigation(child->v.element)) break;
        if (tag == GUMBO_TAG_BR) {
          is_pre ? text.add_verbatim("\n") : text.line_break(1);
          break;
        }
        if (tag == GUMBO_TAG_TD || tag == GUMBO_TAG_TH) text.space();
        text.line_break(newlines_around(tag));
        if (tag == GUMBO_TAG_LI) text.bullet();
        if (stack.size() < kMaxDepth) stack.push_back({child, 0, is_pre || tag == GUMBO_TAG_PRE});
        break;
      }
      default:
        break;  // comments, templates
    }
  }
}

/// The first <title>; head and title lie at the top of the tree, so the search is short.
const GumboNode* find_title(const GumboNode* html) {
  for (unsigned i = 0; i < html->v.element.children.length; ++i) {
    const auto* head = static_cast<const GumboNode*>(html->v.element.children.data[i]);
    if (head->type != GUMBO_NODE_ELEMENT || head->v.element.tag != GUMBO_TAG_HEAD) continue;
    for (unsigned j = 0; j < head->v.element.children.length; ++j) {
      const auto* child = static_cast<const GumboNode*>(head->v.element.children.data[j]);
      if (child->type == GUMBO_NODE_ELEMENT && child->v.element.tag == GUMBO_TAG_TITLE) return child;
    }
  }
  return nullptr;
}

}  // namespace

std::string html_to_text(std::string_view html, const std::filesystem::path& path) {
  if (html.size() > kMaxDocumentBytes) throw UserError::bad_file(path.native(), "the page is larger than 64 MB");
  check_nesting(html, path);
  Arena arena;
  GumboOptions options = kGumboDefaultOptions;
  options.allocator = &Arena::allocate;
  options.deallocator = &Arena::release;
  options.userdata = &arena;
  options.max_errors = 0;
  const GumboOutput* const output = gumbo_parse_with_options(&options, html.data(), html.size());
  TextBuilder text;
  if (const GumboNode* title = find_title(output->root)) {
    walk(title, text);
    text.line_break(2);
  }
  walk(output->root, text);
  return text.take();
}

}  // namespace coppice
