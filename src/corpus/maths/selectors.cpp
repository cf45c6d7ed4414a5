#include "src/corpus/maths/selectors.h"

#include <fmt/format.h>

#include <algorithm>

#include "src/base/errors.h"

namespace coppice {
namespace {

constexpr size_t kMaxParts = 64;  // bits of a word
constexpr size_t kMaxBytes = 4096;

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f'; }
bool is_name(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
         static_cast<unsigned char>(c) >= 0x80;
}

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 'a' - 'A');
  return result;
}

class Parser {
 public:
  Parser(std::string_view text, const std::string& where) : text_(text), where_(where) {}

  Selector parse() {
    if (text_.size() > kMaxBytes) refuse(fmt::format("at most {} bytes", kMaxBytes));
    Selector selector;
    do {
      alternative(selector);
    } while (take(','));
    if (take('@')) selector.attribute = lower(name("the name of an attribute"));
    pass_blanks();
    if (at_ < text_.size()) refuse("',', '>' or '@' and an attribute between selectors");
    return selector;
  }

 private:
  using Part = SelectorPart;

  [[noreturn]] void refuse(const std::string& expected) const {
    const std::string got = at_ < text_.size() ? printable(text_.substr(at_, 20)) : "the end";
    throw UserError::recipe(where_, fmt::format("selector '{}': got {} at byte {}, expected {}",
                                                printable(text_.substr(0, 200)), got, at_, expected));
  }

  void pass_blanks() {
    while (at_ < text_.size() && is_blank(text_[at_])) ++at_;
  }
  bool is_next(char c) const { return at_ < text_.size() && text_[at_] == c; }
  bool take_here(char c) {
    if (!is_next(c)) return false;
    ++at_;
    return true;
  }
  bool take(char c) {
    pass_blanks();
    return take_here(c);
  }
  std::string name(const char* expected) {
    const size_t begin = at_;
    while (at_ < text_.size() && is_name(text_[at_])) ++at_;
    if (at_ == begin) refuse(expected);
    return std::string(text_.substr(begin, at_ - begin));
  }

  void alternative(Selector& selector) {
    auto before = Part::Before::nothing;
    for (;;) {
      pass_blanks();
      if (selector.parts.size() == kMaxParts) refuse(fmt::format("at most {} elements in a selector", kMaxParts));
      selector.parts.push_back(part(before));
      const size_t end = at_;
      pass_blanks();
      if (take_here('>'))
        before = Part::Before::child;
      else if (at_ > end && at_ < text_.size() && !is_next(',') && !is_next('@'))
        before = Part::Before::descendant;
      else
        break;
    }
    selector.parts.back().is_last = true;
  }

  Part part(Part::Before before) {
    Part part{.before = before};
    const size_t begin = at_;
    if (at_ < text_.size() && is_name(text_[at_]))
      part.tag = lower(name("a tag"));
    else
      take_here('*');
    for (;;) {
      if (take_here('.'))
        part.conditions.push_back({Part::Kind::has_word, "class", name("a class")});
      else if (take_here('#'))
        part.conditions.push_back({Part::Kind::equals, "id", name("an id")});
      else if (take_here('['))
        part.conditions.push_back(condition());
      else
        break;
    }
    if (at_ == begin) refuse("a tag, '.class', '#id' or '[attribute]'");
    return part;
  }

  Part::Condition condition() {
    pass_blanks();
    Part::Condition condition{Part::Kind::has, lower(name("the name of an attribute")), ""};
    pass_blanks();
    if (take_here('^')) {
      condition.kind = Part::Kind::begins;
      if (!is_next('=')) refuse("'='");
    }
    if (take_here('=')) {
      if (condition.kind == Part::Kind::has) condition.kind = Part::Kind::equals;
      pass_blanks();
      condition.value = value();
      if (condition.kind == Part::Kind::begins && condition.value.empty()) refuse("a value that is not empty");
      pass_blanks();
    }
    if (!take_here(']')) refuse("']'");
    return condition;
  }

  std::string value() {
    for (const char quote : {'"', '\''}) {
      if (!take_here(quote)) continue;
      const size_t end = text_.find(quote, at_);
      if (end == std::string_view::npos) refuse("the end of a quoted value");
      const std::string_view inner = text_.substr(at_, end - at_);
      at_ = end + 1;
      return std::string(inner);
    }
    return name("a value, in quotes where it holds other signs");
  }

  std::string_view text_;
  const std::string& where_;
  size_t at_ = 0;
};

/// The value of an attribute; nullptr where the element does not have it.
const char* find_attribute(const char* const* attributes, std::string_view name) {
  if (attributes != nullptr)
    for (; attributes[0] != nullptr; attributes += 2)
      if (name == attributes[0]) return attributes[1] == nullptr ? "" : attributes[1];
  return nullptr;
}

bool has_word(std::string_view words, std::string_view word) {
  for (size_t at = words.find(word); at != std::string_view::npos; at = words.find(word, at + 1))
    if ((at == 0 || is_blank(words[at - 1])) && (at + word.size() == words.size() || is_blank(words[at + word.size()])))
      return true;
  return false;
}

bool holds(const SelectorPart::Condition& condition, const char* const* attributes) {
  const char* const found = find_attribute(attributes, condition.name);
  if (found == nullptr) return false;
  const std::string_view value = found;
  switch (condition.kind) {
    case SelectorPart::Kind::has:
      return true;
    case SelectorPart::Kind::equals:
      return value == condition.value;
    case SelectorPart::Kind::begins:
      return value.starts_with(condition.value);
    case SelectorPart::Kind::has_word:
      return has_word(value, condition.value);
  }
  return false;
}

bool passes(const SelectorPart& part, std::string_view name, const char* const* attributes) {
  return (part.tag.empty() || part.tag == name) &&
         std::ranges::all_of(part.conditions, [&](const auto& one) { return holds(one, attributes); });
}

}  // namespace

Selector parse_selector(std::string_view text, const std::string& where) { return Parser(text, where).parse(); }

SelectorWatch::SelectorWatch(std::vector<const Selector*> selectors)
    : selectors_(std::move(selectors)), found_(selectors_.size()) {}

void SelectorWatch::see(uint32_t node, uint32_t parent, std::string_view name, const char* const* attributes) {
  while (depth_ > 0 && open_[depth_ - 1].node != parent) --depth_;
  if (depth_ == open_.size())
    open_.push_back({0, std::vector<uint64_t>(selectors_.size()), std::vector<uint64_t>(selectors_.size())});
  Open& self = open_[depth_];
  const Open* const above = depth_ == 0 ? nullptr : &open_[depth_ - 1];
  self.node = node;
  ++depth_;
  for (size_t s = 0; s < selectors_.size(); ++s) {
    const std::vector<SelectorPart>& parts = selectors_[s]->parts;
    const uint64_t parent_bits = above == nullptr ? 0 : above->here[s];
    const uint64_t above_bits = above == nullptr ? 0 : above->here_or_above[s];
    uint64_t bits = 0;
    bool is_found = false;
    for (size_t i = 0; i < parts.size(); ++i) {
      using Before = SelectorPart::Before;
      const uint64_t wanted = parts[i].before == Before::child ? parent_bits : above_bits;
      if (parts[i].before != Before::nothing && (wanted >> (i - 1) & 1) == 0) continue;
      if (!passes(parts[i], name, attributes)) continue;
      bits |= uint64_t{1} << i;
      is_found |= parts[i].is_last;
    }
    self.here[s] = bits;
    self.here_or_above[s] = bits | above_bits;
    if (!is_found) continue;
    const char* const value =
        selectors_[s]->attribute.empty() ? nullptr : find_attribute(attributes, selectors_[s]->attribute);
    found_[s].push_back({node, value == nullptr ? "" : value});
  }
}

}  // namespace coppice
