// Keys, tokens and passwords, in texts and in code: by shapes that their makers gave them, and in code also what is
// assigned to a name such as `api_key` and looks drawn at random.
#pragma once

#include <vector>

#include "src/corpus/personal/matching.h"

namespace coppice {

/// Bytes of which every known shape holds one.
inline constexpr std::string_view kSecretAnchors = "_-IzJGB:";
/// A secret of a known shape around text[at], one of the anchors.
std::optional<TextSpan> match_secret(std::string_view text, size_t at, size_t from);

/// The values of assignments that are secrets by their entropy: at least 20 characters behind `=` or `:` and a name
/// that holds key, secret, token or passw; 4.5 bits a character, 3.0 where all are hex digits. Not UUIDs, not hashes
/// (32, 40, 64 hex digits; lines that say sha, md5 or hash), not `xxxx`, not sequences. Sorted, disjoint.
std::vector<TextSpan> find_assigned_secrets(std::string_view code);

/// All secrets of a text; with `is_code` also the assigned ones. Sorted, disjoint.
std::vector<TextSpan> find_secrets(std::string_view text, bool is_code);

}  // namespace coppice
