// Personal data in a text: where it stands, and the text without it.
//   kinds        EMAIL, IP, PHONE, CARD, IBAN, SSN, SECRET (kinds.h), and what a user adds (user_pattern.h)
//   candidates   bytes that are rare in text, in one pass over it; behind each stands a matcher written for its kind
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "src/corpus/personal/user_pattern.h"

namespace coppice {

struct PersonalSpan {
  size_t begin = 0, end = 0;  // bytes
  uint32_t kind = 0;          // PersonalFinder::kind_names()
  bool operator==(const PersonalSpan&) const = default;
};

class PersonalFinder {
 public:
  /// All kinds.
  PersonalFinder();
  /// `kinds`: names of kinds.h, each known. `is_code`: with SECRET among them, secrets by entropy as well (secrets.h).
  PersonalFinder(const std::vector<std::string>& kinds, bool is_code, std::vector<UserPattern> patterns);

  const std::vector<std::string>& kind_names() const { return names_; }  // those of kinds.h, then of the patterns
  /// Sorted and disjoint; where two meet, the one that begins first stands. False where a pattern took too long: the
  /// spans are not all.
  bool find(std::string_view text, std::vector<PersonalSpan>& spans) const;

 private:
  std::vector<std::string> names_;
  std::array<uint8_t, 256> kinds_of_{};  // bits: the kinds of which a byte is an anchor
  bool is_code_ = false;
  std::vector<UserPattern> patterns_;
};

enum class Replacement { placeholder, fake, remove };
/// The text with every span replaced: `<EMAIL>`; something of its form that is nobody's, chosen by a hash under `key`,
/// so that one address stays one; or nothing.
std::string replaced(std::string_view text, const std::vector<PersonalSpan>& spans, const PersonalFinder& finder,
                     Replacement by, uint64_t key);
/// The text as samples in reports show it: all kinds, by placeholders.
std::string masked(std::string_view text);

}  // namespace coppice
