// Regular expressions of task files, as Python's re reads them: PCRE2 with Unicode classes. A pattern and the text it
// meets are both from outside, so steps, depth and memory of a match are bounded.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace coppice {

class Pattern {
 public:
  /// UserError::bad_file at `where` for what is no regular expression.
  Pattern(const std::string& expression, const std::string& where);

  const std::string& expression() const;
  /// re.findall: of every match its groups, or the match itself where the pattern has no group. UserError::bad_file
  /// when the pattern needs too many steps.
  std::vector<std::vector<std::string>> find_all(std::string_view text) const;
  /// re.sub(pattern, "", text).
  std::string remove_all(std::string_view text) const;

 private:
  struct Compiled;
  std::shared_ptr<const Compiled> compiled_;
};

/// str.lower(), str.upper() and str.capitalize(), letter by letter (no letter becomes two).
std::string lower_case(std::string_view text);
std::string upper_case(std::string_view text);
std::string capitalized(std::string_view text);

}  // namespace coppice
