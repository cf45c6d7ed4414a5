// A page as a flat tree: elements and runs of characters in the order of the page, so that what lies below a node is a
// range of nodes, and its text a range of bytes. No DOM is made; libxml2's events fill it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "src/text/html/deadline.h"
#include "src/text/html/tags.h"

namespace coppice {

/// What some rule reads; other attributes are not kept. Of <img>, `src` only where it may be a picture of a formula.
enum class Attribute : uint8_t {
  alt,
  alttext,
  class_name,
  content,
  data_mathml,
  datatable,
  datetime,
  display,
  encoding,
  href,
  http_equiv,
  id,
  itemprop,
  lang,
  name,
  property,
  rel,
  role,
  src,
  summary,
  type,
};

struct PageNode {
  uint32_t parent = 0;
  uint32_t end = 0;                       // behind the last node below it
  uint32_t text_begin = 0, text_end = 0;  // bytes of PageTree::text: of a text or formula alone
  uint32_t attributes = 0;                // the first one
  uint8_t num_attributes = 0;
  Tag tag = Tag::unknown;
  bool is_hidden = false;    // not shown, by its own attributes
  bool is_fragment = false;  // of <a>: leads to a place of the same page
};

struct PageAttribute {
  Attribute name;
  uint32_t begin = 0, end = 0;  // bytes of PageTree::attribute_text
};

struct PageLimits {
  uint32_t depth = 512;
  uint32_t nodes = 1'000'000;
  uint64_t bytes = uint64_t{64} << 20;
  double seconds = 2;  // of the thread's processor time
};

/// Why a page gives no text.
enum class Refusal : uint8_t { none, too_deep, too_large, timeout, opt_out };

struct PageTree {
  std::vector<PageNode> nodes;  // the first one stands for the page
  std::vector<PageAttribute> attributes;
  std::string text, attribute_text;
  Refusal refusal = Refusal::none;  // else the tree is not whole
  Deadline deadline;                // for whatever is done with the page

  std::string_view text_of(uint32_t node) const {
    return std::string_view(text).substr(nodes[node].text_begin, nodes[node].text_end - nodes[node].text_begin);
  }
  /// "" where the node has none.
  std::string_view attribute(uint32_t node, Attribute name) const;
  /// The text below the node in one piece, as it stands in the page: the first `max_bytes` of it.
  std::string whole_text(uint32_t node, size_t max_bytes = SIZE_MAX) const;
};

/// Sees the elements of a page while it is read, with names and attributes that the tree does not keep.
class ElementWatcher {
 public:
  virtual ~ElementWatcher() = default;
  /// In the order of the page. `name` is in lower case; `attributes` are names, in lower case, and values by turns up
  /// to a nullptr, a value may be nullptr; or it is nullptr itself.
  virtual void see(uint32_t node, uint32_t parent, std::string_view name, const char* const* attributes) = 0;
};

/// Reads a page whatever its markup is like, over the tree's earlier content. Never throws for what the page holds.
void read_page(std::string_view html, const PageLimits& limits, PageTree& tree, ElementWatcher* watcher = nullptr);

/// Children of a node, in order: for (const uint32_t child : children(tree, node)).
struct Children {
  const PageTree& tree;
  uint32_t node;
  struct Iterator {
    const PageTree* tree;
    uint32_t at;
    uint32_t operator*() const { return at; }
    Iterator& operator++() {
      at = tree->nodes[at].end;
      return *this;
    }
    bool operator!=(const Iterator& other) const { return at != other.at; }
  };
  Iterator begin() const { return {&tree, node + 1}; }
  Iterator end() const { return {&tree, tree.nodes[node].end}; }
};
inline Children children(const PageTree& tree, uint32_t node) { return {tree, node}; }

}  // namespace coppice
