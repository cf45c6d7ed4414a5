// Start tags of HTML one after another, by their signs alone and in one pass: for what stands in attributes, a charset,
// robots, licences. Whoever needs the tree has a parser.
#pragma once

#include <optional>
#include <string_view>

namespace coppice {

struct MarkupTag {
  std::string_view name;        // as written; `/footer` for an end tag
  std::string_view attributes;  // everything up to the '>'
  size_t begin = 0;             // of its '<'

  bool is(std::string_view other) const;  // ignoring case
  /// Without quotes, entities as they stand; "" for an attribute without a value.
  std::optional<std::string_view> find(std::string_view attribute) const;
};

class TagScanner {
 public:
  explicit TagScanner(std::string_view html) : html_(html) {}
  /// False at the end. Comments, declarations and what stands in script and style are passed over.
  bool next(MarkupTag& tag);

 private:
  std::string_view html_;
  size_t at_ = 0;
};

}  // namespace coppice
