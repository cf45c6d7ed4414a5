#include "src/corpus/code/comments.h"

#include <algorithm>
#include <array>
#include <cctype>

namespace coppice {
namespace {

class Scanner {
 public:
  Scanner(std::string_view code, const CommentSyntax& syntax) : code_(code), syntax_(syntax) {
    mark(syntax.line);
    mark(syntax.open);
    for (const char quote : syntax.quotes) mark(std::string_view(&quote, 1));
    for (const std::string_view quote : syntax.long_quotes) mark(quote);
  }

  std::vector<Comment> scan() {
    for (size_t i = 0; i < code_.size();) {
      if (!opens_[static_cast<unsigned char>(code_[i])]) {
        ++i;
        continue;
      }
      if (const size_t end = comment_end(i)) {
        found_.push_back({i, end});
        i = end;
      } else if (const std::string_view quote = long_quote(i); !quote.empty()) {
        const size_t end = string_end(i, quote, /*lines=*/true);
        if (syntax_.docstrings && begins_line(i)) found_.push_back({i, end});
        i = end;
      } else if (syntax_.quotes.find(code_[i]) != std::string_view::npos) {
        i = string_end(i, code_.substr(i, 1), /*lines=*/false);
      } else {
        ++i;
      }
    }
    return std::move(found_);
  }

 private:
  void mark(std::string_view opening) {
    if (!opening.empty()) opens_[static_cast<unsigned char>(opening.front())] = true;
  }
  bool stands(size_t i, std::string_view sign) const {
    return !sign.empty() && code_.compare(i, sign.size(), sign) == 0;
  }
  bool behind_blank(size_t i) const {
    return i == 0 || std::string_view(" \t\n;").find(code_[i - 1]) != std::string_view::npos;
  }
  bool begins_line(size_t i) const {
    while (i > 0 && (code_[i - 1] == ' ' || code_[i - 1] == '\t')) --i;
    return i == 0 || code_[i - 1] == '\n';
  }
  std::string_view long_quote(size_t i) const {
    for (const std::string_view quote : syntax_.long_quotes)
      if (stands(i, quote)) return quote;
    return {};
  }

  /// Behind the comment that begins at i; 0 where none does.
  size_t comment_end(size_t i) const {
    if (stands(i, syntax_.line) && (!syntax_.blank_before_line || behind_blank(i)))
      return std::min(code_.find('\n', i), code_.size());
    if (!stands(i, syntax_.open)) return 0;
    if (syntax_.own_line) {
      if (i > 0 && code_[i - 1] != '\n') return 0;
      const size_t close = code_.find("\n" + std::string(syntax_.close), i);
      return close == std::string_view::npos ? code_.size() : close + 1 + syntax_.close.size();
    }
    i += syntax_.open.size();
    for (size_t depth = 1; depth > 0;) {
      if (i >= code_.size()) return code_.size();
      if (stands(i, syntax_.close)) {
        --depth;
        i += syntax_.close.size();
      } else if (syntax_.nested && stands(i, syntax_.open)) {
        ++depth;
        i += syntax_.open.size();
      } else {
        ++i;
      }
    }
    return i;
  }

  size_t string_end(size_t i, std::string_view quote, bool lines) const {
    const bool raw = syntax_.raw_quotes.find(quote) != std::string_view::npos;
    for (i += quote.size(); i < code_.size(); ++i) {
      if (code_[i] == '\\' && !raw)
        ++i;
      else if (stands(i, quote))
        return i + quote.size();
      else if (code_[i] == '\n' && !lines)
        return i;
    }
    return code_.size();
  }

  std::string_view code_;
  const CommentSyntax& syntax_;
  std::array<bool, 256> opens_{};
  std::vector<Comment> found_;
};

bool speaks_of_licence(std::string_view comment) {
  std::string text(comment);
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return std::ranges::any_of(
      std::array<std::string_view, 6>{"copyright", "license", "licence", "all rights reserved", "spdx-", "(c) "},
      [&](std::string_view word) { return text.find(word) != std::string::npos; });
}

/// Behind the first two lines where they are #! or name the encoding.
size_t behind_magic_lines(std::string_view code) {
  size_t i = 0;
  for (int line = 0; line < 2; ++line) {
    const size_t end = std::min(code.find('\n', i), code.size());
    const std::string_view text = code.substr(i, end - i);
    if (!text.starts_with("#!") && !(text.starts_with('#') && text.find("coding") != std::string_view::npos)) break;
    i = std::min(end + 1, code.size());
  }
  return i;
}

}  // namespace

std::vector<Comment> find_comments(std::string_view code, const CommentSyntax& syntax) {
  return Scanner(code, syntax).scan();
}

double comment_share(std::string_view code, const CommentSyntax& syntax) {
  size_t bytes = 0;
  for (const Comment& comment : find_comments(code, syntax)) bytes += comment.end - comment.begin;
  return code.empty() ? 0 : static_cast<double>(bytes) / static_cast<double>(code.size());
}

bool cut_licence_header(std::string& code, const CommentSyntax& syntax) {
  const size_t begin = behind_magic_lines(code);
  const std::string_view rest = std::string_view(code).substr(begin);
  const std::vector<Comment> comments = find_comments(rest, syntax);
  size_t cut = 0;
  for (size_t i = 0; i < comments.size();) {
    // One block: comments with one line end, and blanks, between them.
    size_t next = i + 1, end = comments[i].end;
    const auto between = [&](size_t from, size_t to) { return rest.substr(from, to - from); };
    const auto is_line = [&](const Comment& comment) {
      return rest.compare(comment.begin, syntax.line.size(), syntax.line) == 0;
    };
    while (next < comments.size() && is_line(comments[i]) && is_line(comments[next])) {
      const std::string_view gap = between(end, comments[next].begin);
      if (gap.find_first_not_of(" \t\n") != std::string_view::npos || std::ranges::count(gap, '\n') > 1) break;
      end = comments[next++].end;
    }
    const bool at_top = between(cut, comments[i].begin).find_first_not_of(" \t\n") == std::string_view::npos;
    const size_t line_end = std::min(rest.find('\n', end), rest.size());
    const bool own_lines = between(end, line_end).find_first_not_of(" \t") == std::string_view::npos;
    if (!at_top || !own_lines || !speaks_of_licence(between(comments[i].begin, end))) break;
    cut = std::min(rest.find_first_not_of('\n', line_end), rest.size());
    i = next;
  }
  if (cut > 0) code.erase(begin, cut);
  return cut > 0;
}

}  // namespace coppice
