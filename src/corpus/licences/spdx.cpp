#include "src/corpus/licences/spdx.h"

#include <algorithm>
#include <array>
#include <optional>

#include "src/text/ascii_case.h"

namespace coppice {

namespace {

constexpr int kMaxDepth = 32;

/// Recursive descent, OR binding weaker than AND weaker than WITH. Nothing where the text is no expression.
class Expression {
 public:
  Expression(std::string_view text, const std::function<bool(std::string_view)>& is_allowed)
      : text_(text), is_allowed_(is_allowed) {
    advance();
  }

  std::optional<bool> evaluate() {
    const std::optional<bool> value = any(0);
    return token_.empty() ? value : std::nullopt;
  }

 private:
  void advance() {
    while (!text_.empty() && kAsciiBlanks.find(text_.front()) != std::string_view::npos) text_.remove_prefix(1);
    const bool is_sign = !text_.empty() && std::string_view("()/").find(text_.front()) != std::string_view::npos;
    token_ = is_sign ? text_.substr(0, 1) : text_.substr(0, text_.find_first_of(" \t\r\n\f()/"));
    text_.remove_prefix(token_.size());
  }

  bool accept(std::string_view word) {
    if (!equals_ignoring_case(token_, word)) return false;
    advance();
    return true;
  }

  std::optional<bool> any(int depth) {
    std::optional<bool> value = all(depth);
    while (value && (accept("OR") || accept("/"))) {
      const std::optional<bool> other = all(depth);
      value = other ? std::optional(*value || *other) : std::nullopt;
    }
    return value;
  }

  std::optional<bool> all(int depth) {
    std::optional<bool> value = one(depth);
    while (value && accept("AND")) {
      const std::optional<bool> other = one(depth);
      value = other ? std::optional(*value && *other) : std::nullopt;
    }
    return value;
  }

  static bool is_id(std::string_view word) {
    constexpr std::array<std::string_view, 3> kOperators = {"AND", "OR", "WITH"};
    return !word.empty() &&
           std::ranges::none_of(kOperators, [&](auto name) { return equals_ignoring_case(word, name); }) &&
           std::ranges::all_of(word, [](char c) {
             return (lower_ascii(c) >= 'a' && lower_ascii(c) <= 'z') || (c >= '0' && c <= '9') ||
                    std::string_view("-.+:").find(c) != std::string_view::npos;
           });
  }

  std::optional<bool> one(int depth) {
    if (depth > kMaxDepth) return std::nullopt;
    if (accept("(")) {
      const std::optional<bool> value = any(depth + 1);
      return accept(")") ? value : std::nullopt;
    }
    if (!is_id(token_)) return std::nullopt;
    std::string id(token_);
    advance();
    if (accept("WITH")) {
      if (!is_id(token_)) return std::nullopt;
      id += " WITH " + std::string(token_);
      advance();
    }
    return is_allowed_(id);
  }

  std::string_view text_, token_;
  const std::function<bool(std::string_view)>& is_allowed_;
};

/// Greedy, with one step back to the last star.
bool matches_glob(std::string_view pattern, std::string_view text) {
  size_t p = 0, t = 0, star = std::string_view::npos, taken = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      taken = t;
    } else if (p < pattern.size() && (pattern[p] == '?' || lower_ascii(pattern[p]) == lower_ascii(text[t]))) {
      ++p, ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++taken;
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', p) == std::string_view::npos;
}

}  // namespace

std::optional<bool> spdx_allows(std::string_view expression, const std::function<bool(std::string_view)>& is_allowed) {
  return Expression(expression, is_allowed).evaluate();
}

bool is_licence_allowed(std::string_view expression, const std::function<bool(std::string_view)>& is_allowed) {
  const std::optional<bool> value = spdx_allows(expression, is_allowed);
  return value ? *value : is_allowed(trimmed_ascii(expression));
}

bool matches_licence(const std::vector<std::string>& patterns, std::string_view id) {
  std::string_view bare = id.substr(0, id.find(" WITH "));
  if (bare.ends_with('+')) bare.remove_suffix(1);
  return std::ranges::any_of(patterns, [&](const std::string& pattern) {
    return matches_glob(pattern, id) || (bare.size() < id.size() && matches_glob(pattern, bare));
  });
}

std::string licence_of_address(std::string_view url) {
  const std::string lower = lower_ascii(trimmed_ascii(url));
  constexpr std::string_view kHost = "creativecommons.org/";
  std::string_view rest = lower;
  for (const std::string_view begin : {"https:", "http:", "//", "www."})
    if (rest.starts_with(begin)) rest.remove_prefix(begin.size());
  if (!rest.starts_with(kHost)) return {};
  rest.remove_prefix(kHost.size());
  std::array<std::string_view, 3> parts;  // licenses / by-sa / 4.0
  for (std::string_view& part : parts) {
    part = rest.substr(0, rest.find_first_of("/?#"));
    rest.remove_prefix(std::min(part.size() + 1, rest.size()));
  }
  const auto [folder, kind, version] = parts;
  if (folder == "publicdomain") return kind == "zero" ? "CC0-1.0" : kind == "mark" ? "CC-PDM-1.0" : "";
  constexpr std::array<std::string_view, 7> kKinds = {"by",       "by-sa",    "by-nd",   "by-nc",
                                                      "by-nc-sa", "by-nc-nd", "by-nd-nc"};
  constexpr std::array<std::string_view, 5> kVersions = {"1.0", "2.0", "2.5", "3.0", "4.0"};
  if (folder != "licenses" || std::ranges::find(kKinds, kind) == kKinds.end() ||
      std::ranges::find(kVersions, version) == kVersions.end())
    return {};
  std::string id = kind == "by-nd-nc" ? "by-nc-nd" : std::string(kind);
  std::ranges::transform(id, id.begin(),
                         [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; });
  return "CC-" + id + "-" + std::string(version);
}

}  // namespace coppice
