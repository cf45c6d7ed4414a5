// What a user adds to the kinds of personal data: a [[data.step.pattern]] with a regular expression and a check.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "src/base/option_mark.h"
#include "src/corpus/personal/matching.h"

namespace coppice {

struct UserPatternOptions {
  std::string name, regex, check = "none";

  template <class Field>
  void visit_fields(Field& field) {
    field("name", name, Mark::decides, "what stands in place of a match, in <>, and in counts: capitals, as PASSPORT");
    field("regex", regex, Mark::decides, "a regular expression (PCRE2, Unicode), matched within a line");
    field("check", check, Mark::decides, "luhn, mod97 or none: check digits that a match must have");
  }
};

class UserPattern {
 public:
  /// `where` is file:line. UserError::recipe for a name that is none (letters, digits, '_'), an unknown check, and what
  /// is no regular expression.
  UserPattern(const UserPatternOptions& options, const std::string& where);

  const std::string& name() const { return options_.name; }
  /// Appends all matches of a text in UTF-8; matches lie within a line. In a line of more than 4,096 bytes those of up
  /// to 512 bytes are found wherever they lie, with 64 bytes beside them to look at; longer ones may come in parts.
  /// False where a match takes more steps, depth or memory than is allowed: the text is from outside.
  bool find(std::string_view text, std::vector<TextSpan>& spans) const;

 private:
  struct Compiled;
  UserPatternOptions options_;
  std::shared_ptr<const Compiled> compiled_;
};

}  // namespace coppice
