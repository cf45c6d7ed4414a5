// The kinds of personal data, a row each (data on their forms: kinds.cpp and a file a kind).
#pragma once

#include <cstdint>
#include <span>

#include "src/corpus/personal/matching.h"

namespace coppice {

std::optional<TextSpan> match_email(std::string_view text, size_t at, size_t from);
/// Public addresses of both versions; no versions of programs.
std::optional<TextSpan> match_ip(std::string_view text, size_t at, size_t from);
std::optional<TextSpan> match_phone(std::string_view text, size_t at, size_t from);
std::optional<TextSpan> match_card(std::string_view text, size_t at, size_t from);
std::optional<TextSpan> match_iban(std::string_view text, size_t at, size_t from);
std::optional<TextSpan> match_ssn(std::string_view text, size_t at, size_t from);

struct PersonalKind {
  const char* name;
  std::string_view anchors;  // a match holds one of these bytes, and they are rare
  SpanMatcher match;
  /// Something of the form that belongs to nobody; the same for the same number of 64 bits.
  std::string (*fake)(std::string_view original, uint64_t number);
};

/// In the order in which they are tried where one byte is the anchor of several.
std::span<const PersonalKind> personal_kinds();
/// Letters and digits replaced by others of their class, all else as it stands.
std::string fake_of_same_form(std::string_view original, uint64_t number);

}  // namespace coppice
