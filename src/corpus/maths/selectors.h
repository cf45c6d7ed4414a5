// Selectors of a page's elements, a part of CSS: tag, .class, #id, [a], [a=v], [a^=v], a blank for a descendant, > for
// a child, a comma between alternatives. They are matched while the page is read, in time elements x parts.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "src/text/html/page_tree.h"

namespace coppice {

/// One element's test: `div.post[data-role=answer]`.
struct SelectorPart {
  enum class Kind { has, equals, begins, has_word };  // an attribute; a class is a word of `class`
  struct Condition {
    Kind kind;
    std::string name, value;
  };
  enum class Before { nothing, child, descendant };  // how it hangs on the part before it

  std::string tag;  // empty or * = any
  std::vector<Condition> conditions;
  Before before = Before::nothing;
  bool is_last = false;  // of an alternative
};

struct Selector {
  std::vector<SelectorPart> parts;  // of all alternatives, one behind the other; at most 64
  std::string attribute;            // `.vote@data-value`: what is asked of an element; empty = its text
};

/// UserError::recipe at `where`, with the byte, for what is no selector.
Selector parse_selector(std::string_view text, const std::string& where);

/// An element that was found, and the attribute that the selector asks for.
struct SelectedNode {
  uint32_t node = 0;
  std::string value;
};

/// Finds what several selectors ask for in one reading of a page.
class SelectorWatch : public ElementWatcher {
 public:
  explicit SelectorWatch(std::vector<const Selector*> selectors);
  void see(uint32_t node, uint32_t parent, std::string_view name, const char* const* attributes) override;
  /// Of each selector: its elements in the order of the page.
  const std::vector<std::vector<SelectedNode>>& found() const { return found_; }

 private:
  /// Which parts end at an element that is open: bit i = the element passes part i, and what stands before it in the
  /// selector lies above.
  struct Open {
    uint32_t node;
    std::vector<uint64_t> here, here_or_above;  // by selector
  };
  std::vector<const Selector*> selectors_;
  std::vector<Open> open_;  // the first `depth_` are in use
  size_t depth_ = 0;
  std::vector<std::vector<SelectedNode>> found_;
};

}  // namespace coppice
