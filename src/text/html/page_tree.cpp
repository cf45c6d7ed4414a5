#include "src/text/html/page_tree.h"

#include <libxml/HTMLparser.h>
#include <libxml/parserInternals.h>
#include <simdjson.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstring>
#include <memory>
#include <new>
#include <optional>

#include "src/base/utf8_byte.h"
#include "src/text/text_encoding.h"

namespace coppice {

namespace {

// Names that libxml2 keeps of a page, in bytes: it compares each attribute of an element with those before it, so a
// page of ever new names would take the square of its length. Names that rules know always fit.
constexpr size_t kMaxNameBytes = 16 << 10;
constexpr int kEventsBetweenLooks = 4096;  // at the clock

struct AttributeRow {
  std::string_view name;
  Attribute attribute;
};
constexpr AttributeRow kAnywhere[] = {
    {"class", Attribute::class_name}, {"id", Attribute::id},     {"itemprop", Attribute::itemprop},
    {"role", Attribute::role},        {"lang", Attribute::lang}, {"data-mathml", Attribute::data_mathml},
};
constexpr AttributeRow kOfSomeElements[] = {
    {"alt", Attribute::alt},
    {"alttext", Attribute::alttext},
    {"content", Attribute::content},
    {"datatable", Attribute::datatable},
    {"datetime", Attribute::datetime},
    {"display", Attribute::display},
    {"encoding", Attribute::encoding},
    {"href", Attribute::href},
    {"http-equiv", Attribute::http_equiv},
    {"name", Attribute::name},
    {"property", Attribute::property},
    {"rel", Attribute::rel},
    {"src", Attribute::src},
    {"summary", Attribute::summary},
    {"type", Attribute::type},
};

std::optional<Attribute> find_attribute(Tag tag, std::string_view name) {
  for (const AttributeRow& row : kAnywhere)
    if (row.name == name) return row.attribute;
  switch (tag) {
    case Tag::annotation:
    case Tag::img:
    case Tag::input:
    case Tag::link:
    case Tag::math:
    case Tag::meta:
    case Tag::mjx_container:
    case Tag::script:
    case Tag::table:
    case Tag::time:
      break;
    default:
      return std::nullopt;
  }
  for (const AttributeRow& row : kOfSomeElements)
    if (row.name == name) return row.attribute;
  return std::nullopt;
}

/// display: none or visibility: hidden among the declarations of a style.
bool hides(std::string_view style) {
  std::string packed;
  for (const char c : style)
    if (!std::isspace(static_cast<unsigned char>(c)))
      packed += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  for (const std::string_view declaration : {"display:none", "visibility:hidden"}) {
    const size_t at = packed.find(declaration);
    if (at != std::string::npos && (at == 0 || packed[at - 1] == ';')) return true;
  }
  return false;
}

/// Whether a picture's address may be that of a formula.
bool is_formula_address(std::string_view src) {
  return !src.starts_with("data:") &&
         (src.find("latex") != std::string_view::npos || src.find("chl=") != std::string_view::npos);
}

class TreeBuilder {
 public:
  TreeBuilder(PageTree& tree, const PageLimits& limits, ElementWatcher* watcher)
      : tree_(tree), limits_(limits), watcher_(watcher) {
    tree_.nodes.push_back({});
    open_.push_back(0);
  }
  void set_context(xmlParserCtxt* context) { context_ = context; }

  void start(const xmlChar* name, const xmlChar** attributes) {
    if (!may_go_on()) return;
    if (open_.size() > limits_.depth) return stop(Refusal::too_deep);
    PageNode node{.parent = open_.back(),
                  .attributes = static_cast<uint32_t>(tree_.attributes.size()),
                  .tag = find_tag(reinterpret_cast<const char*>(name))};
    if (attributes != nullptr)
      for (const xmlChar** at = attributes; at[0] != nullptr; at += 2)
        keep_attribute(node, reinterpret_cast<const char*>(at[0]),
                       at[1] == nullptr ? "" : reinterpret_cast<const char*>(at[1]));
    open_.push_back(static_cast<uint32_t>(tree_.nodes.size()));
    tree_.nodes.push_back(node);
    if (watcher_ != nullptr)
      watcher_->see(open_.back(), node.parent, reinterpret_cast<const char*>(name),
                    reinterpret_cast<const char* const*>(attributes));
    raw_ = is_raw(node);
    pre_begins_ = node.tag == Tag::pre;
  }

  void end() {
    if (open_.size() == 1) return;
    pre_begins_ = false;
    tree_.nodes[open_.back()].end = static_cast<uint32_t>(tree_.nodes.size());
    open_.pop_back();
    raw_ = is_raw(tree_.nodes[open_.back()]);
  }

  void characters(std::string_view text) {
    if (raw_ || !may_go_on()) return;
    if (pre_begins_) {  // a line break behind the tag is no part of the text
      pre_begins_ = false;
      if (text.starts_with('\r')) text.remove_prefix(1);
      if (text.starts_with('\n')) text.remove_prefix(1);
      if (text.empty()) return;
    }
    const uint32_t at = static_cast<uint32_t>(tree_.text.size());
    tree_.text += text;
    PageNode& last = tree_.nodes.back();
    if (last.tag == Tag::text && last.parent == open_.back() && last.text_end == at) {
      last.text_end = static_cast<uint32_t>(tree_.text.size());
      return;
    }
    const auto here = static_cast<uint32_t>(tree_.nodes.size());
    tree_.nodes.push_back({.parent = open_.back(),
                           .end = here + 1,
                           .text_begin = at,
                           .text_end = static_cast<uint32_t>(tree_.text.size()),
                           .tag = Tag::text});
  }

  /// What the parser stumbles over, such as the end of an element that was never opened, takes time as well.
  void stumble() { may_go_on(); }

  void finish() {
    while (open_.size() > 1) end();
    tree_.nodes[0].end = static_cast<uint32_t>(tree_.nodes.size());
  }

 private:
  /// Scripts and styles, whose characters nobody reads; but some scripts are formulas.
  bool is_raw(const PageNode& node) const {
    if (node.tag == Tag::style) return true;
    if (node.tag != Tag::script) return false;
    for (uint32_t i = 0; i < node.num_attributes; ++i) {
      const PageAttribute& attribute = tree_.attributes[node.attributes + i];
      if (attribute.name != Attribute::type) continue;
      return !std::string_view(tree_.attribute_text)
                  .substr(attribute.begin, attribute.end - attribute.begin)
                  .starts_with("math/tex");
    }
    return true;
  }

  void keep_attribute(PageNode& node, std::string_view name, std::string_view value) {
    if (name == "hidden") node.is_hidden = true;
    if (name == "style" && hides(value)) node.is_hidden = true;
    if (name == "aria-hidden" && value == "true") node.is_hidden = true;
    if (name == "href" && node.tag == Tag::a) node.is_fragment = value.size() > 1 && value[0] == '#';
    const std::optional<Attribute> attribute = find_attribute(node.tag, name);
    if (!attribute || value.empty() || node.num_attributes == UINT8_MAX) return;
    if (*attribute == Attribute::src && !is_formula_address(value)) return;
    const auto begin = static_cast<uint32_t>(tree_.attribute_text.size());
    tree_.attribute_text += value;
    tree_.attributes.push_back({*attribute, begin, static_cast<uint32_t>(tree_.attribute_text.size())});
    ++node.num_attributes;
  }

  bool may_go_on() {
    if (tree_.refusal != Refusal::none) return false;
    if (tree_.nodes.size() >= limits_.nodes) {
      stop(Refusal::too_large);
      return false;
    }
    if (++events_ % kEventsBetweenLooks == 0 && tree_.deadline.has_passed()) {
      stop(Refusal::timeout);
      return false;
    }
    return true;
  }

  void stop(Refusal refusal) {
    tree_.refusal = refusal;
    xmlStopParser(context_);
  }

  PageTree& tree_;
  const PageLimits& limits_;
  ElementWatcher* watcher_;
  xmlParserCtxt* context_ = nullptr;
  std::vector<uint32_t> open_;
  uint64_t events_ = 0;
  bool raw_ = false, pre_begins_ = false;
};

xmlSAXHandler handler() {
  xmlSAXHandler events{};
  events.startElement = [](void* to, const xmlChar* name, const xmlChar** attributes) {
    static_cast<TreeBuilder*>(to)->start(name, attributes);
  };
  events.endElement = [](void* to, const xmlChar*) { static_cast<TreeBuilder*>(to)->end(); };
  const auto characters = [](void* to, const xmlChar* text, int bytes) {
    static_cast<TreeBuilder*>(to)->characters({reinterpret_cast<const char*>(text), static_cast<size_t>(bytes)});
  };
  events.characters = characters;
  events.ignorableWhitespace = characters;
  events.cdataBlock = characters;
  events.serror = [](void* to, xmlError*) { static_cast<TreeBuilder*>(to)->stumble(); };
  events.initialized = XML_SAX2_MAGIC;  // or errors would not come
  return events;
}

void intern_known_names(xmlDict* names) {
  const auto intern = [&](std::string_view name) {
    xmlDictLookup(names, reinterpret_cast<const xmlChar*>(name.data()), static_cast<int>(name.size()));
  };
  for (auto tag = static_cast<size_t>(Tag::a); tag < kNumTags; ++tag) intern(traits(static_cast<Tag>(tag)).name);
  for (const AttributeRow& row : kAnywhere) intern(row.name);
  for (const AttributeRow& row : kOfSomeElements) intern(row.name);
  for (const std::string_view name : {"hidden", "style", "aria-hidden"}) intern(name);
}

/// Valid UTF-8 without zeros: the page itself, or a copy with U+FFFD for each byte that is neither.
std::string_view mended(std::string_view html, std::string& copy) {
  if (simdjson::validate_utf8(html.data(), html.size()) && html.find('\0') == std::string_view::npos) return html;
  copy.reserve(html.size() + 64);
  size_t zero = html.find('\0');
  for (size_t at = 0; at < html.size(); ++at) {
    const size_t end = std::min(zero, html.size());
    const size_t good = valid_utf8_bytes(html.substr(at, end - at));
    copy += html.substr(at, good);
    at += good;
    if (at == html.size()) break;
    if (at == zero) zero = html.find('\0', at + 1);
    copy += "\xEF\xBF\xBD";
  }
  return copy;
}

}  // namespace

std::string_view PageTree::attribute(uint32_t node, Attribute name) const {
  for (uint32_t i = 0; i < nodes[node].num_attributes; ++i) {
    const PageAttribute& found = attributes[nodes[node].attributes + i];
    if (found.name == name) return std::string_view(attribute_text).substr(found.begin, found.end - found.begin);
  }
  return {};
}

std::string PageTree::whole_text(uint32_t node, size_t max_bytes) const {
  std::string whole;
  for (uint32_t i = node; i < nodes[node].end && whole.size() < max_bytes; ++i) {
    const std::string_view text = text_of(i), part = first_bytes(text, max_bytes - whole.size());
    whole += part;
    if (part.size() < text.size()) break;
  }
  return whole;
}

void read_page(std::string_view html, const PageLimits& limits, PageTree& tree, ElementWatcher* watcher) {
  tree.nodes.clear();
  tree.attributes.clear();
  tree.text.clear();
  tree.attribute_text.clear();
  tree.refusal = Refusal::none;
  tree.deadline = Deadline(limits.seconds);
  TreeBuilder builder(tree, limits, watcher);
  if (html.size() > limits.bytes) tree.refusal = Refusal::too_large;
  std::string copy;
  if (tree.refusal == Refusal::none) html = mended(html, copy);
  if (tree.refusal == Refusal::none && !html.empty()) {
    static const bool initialized = (xmlInitParser(), true);
    static const xmlSAXHandler events = handler();
    (void)initialized;
    const std::unique_ptr<xmlParserCtxt, decltype(&htmlFreeParserCtxt)> context(
        htmlCreateMemoryParserCtxt(html.data(), static_cast<int>(html.size())), htmlFreeParserCtxt);
    if (context == nullptr) throw std::bad_alloc();
    *context->sax = events;
    context->userData = &builder;
    htmlCtxtUseOptions(context.get(), HTML_PARSE_RECOVER | HTML_PARSE_NOERROR | HTML_PARSE_NOWARNING |
                                          HTML_PARSE_NONET | HTML_PARSE_IGNORE_ENC);
    *context->sax = events;  // the options choose handlers for errors
    context->charset = XML_CHAR_ENCODING_UTF8;
    intern_known_names(context->dict);
    xmlDictSetLimit(context->dict, kMaxNameBytes);
    builder.set_context(context.get());
    htmlParseDocument(context.get());
  }
  builder.finish();
}

}  // namespace coppice
