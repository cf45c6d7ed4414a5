// Recursive descent, OR over AND over WITH, as SPDX 2.3 annex D has them.
#include "src/corpus/licences/spdx.h"

#include <algorithm>

namespace coppice {
namespace {

constexpr int kMaxDepth = 32;

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 'a' - 'A') : c; }

bool is_id(char c) {
  const char letter = lower(c);
  return (letter >= 'a' && letter <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '+' || c == ':';
}

class Parser {
 public:
  Parser(std::string_view text, const std::function<bool(std::string_view)>& allowed) : text_(text), allowed_(allowed) {
    next();
  }

  std::optional<bool> whole() {
    const bool result = alternatives(0);
    return failed_ || !token_.empty() ? std::nullopt : std::optional(result);
  }

 private:
  void next() {
    at_ = std::min(text_.find_first_not_of(" \t\r\n", at_), text_.size());
    size_t end = at_;
    while (end < text_.size() && is_id(text_[end])) ++end;
    if (end == at_ && end < text_.size()) ++end;  // a bracket, or what does not belong here
    token_ = text_.substr(at_, end - at_);
    at_ = end;
  }

  bool take(std::string_view word) {
    if (!same_spdx_id(token_, word)) return false;
    next();
    return true;
  }

  std::string_view take_id() {
    const std::string_view id = token_;
    if (id.empty() || !is_id(id.front()) || same_spdx_id(id, "OR") || same_spdx_id(id, "AND") ||
        same_spdx_id(id, "WITH"))
      failed_ = true;
    else
      next();
    return id;
  }

  bool alternatives(int depth) {
    bool result = conjunction(depth);
    while (!failed_ && (take("OR") || take("/"))) result = conjunction(depth) || result;
    return result;
  }

  bool conjunction(int depth) {
    bool result = one(depth);
    while (!failed_ && take("AND")) result = one(depth) && result;
    return result;
  }

  bool one(int depth) {
    if (take("(")) {
      if (depth == kMaxDepth) {
        failed_ = true;
        return false;
      }
      const bool result = alternatives(depth + 1);
      if (!failed_ && !take(")")) failed_ = true;
      return result;
    }
    std::string_view id = take_id();
    if (!failed_ && take("WITH")) take_id();
    if (id.ends_with('+')) id.remove_suffix(1);
    return !failed_ && allowed_(id);
  }

  std::string_view text_, token_;
  const std::function<bool(std::string_view)>& allowed_;
  size_t at_ = 0;
  bool failed_ = false;
};

}  // namespace

std::optional<bool> spdx_allows(std::string_view expression, const std::function<bool(std::string_view id)>& allowed) {
  return Parser(expression, allowed).whole();
}

bool same_spdx_id(std::string_view left, std::string_view right) {
  return std::ranges::equal(left, right, [](char a, char b) { return lower(a) == lower(b); });
}

}  // namespace coppice
