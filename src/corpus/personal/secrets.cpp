#include "src/corpus/personal/secrets.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace coppice {
namespace {

enum CharClass : uint8_t { kUpperDigit = 1, kAlnum = 2, kWord = 4, kDashed = 8, kUrlBase64 = 16 };

constexpr auto kClasses = [] {
  std::array<uint8_t, 256> classes{};
  for (int c = 0; c < 128; ++c) {
    const char sign = static_cast<char>(c);
    if (is_digit(sign) || is_upper(sign)) classes[c] |= kUpperDigit;
    if (is_alnum(sign)) classes[c] |= kAlnum | kWord | kDashed | kUrlBase64;
    if (sign == '_') classes[c] |= kWord | kUrlBase64;
    if (sign == '-') classes[c] |= kDashed | kUrlBase64;
  }
  return classes;
}();
bool is_of(char c, CharClass wanted) { return (kClasses[static_cast<unsigned char>(c)] & wanted) != 0; }

size_t run_end(std::string_view text, size_t at, CharClass wanted) {
  while (at < text.size() && is_of(text[at], wanted)) ++at;
  return at;
}

/// `xxxx` and `****`: what stands where a secret would.
bool is_blanked(std::string_view secret) {
  int run = 1;
  for (size_t i = 1; i < secret.size(); ++i) {
    run = secret[i] == secret[i - 1] ? run + 1 : 1;
    if (run == 4 && (secret[i] == '*' || secret[i] == '.' || to_lower(secret[i]) == 'x')) return true;
  }
  return false;
}

// head, one of the signs of `one_of` (none: nothing), tail, then least to most characters of the class.
struct Shape {
  std::string_view head, one_of, tail;
  char anchor;
  size_t place;  // of the anchor, from the start of head
  CharClass body;
  size_t least, most;
};
constexpr size_t kAny = 4096;
constexpr Shape kShapes[] = {
    {"A", "KS", "IA", 'I', 2, kUpperDigit, 16, 16},       // AWS
    {"gh", "pousr", "_", '_', 3, kAlnum, 36, kAny},       // GitHub
    {"github_pat_", "", "", '_', 6, kWord, 36, kAny},     // GitHub, fine-grained
    {"glpat-", "", "", '-', 5, kUrlBase64, 20, kAny},     // GitLab
    {"xox", "abeoprs", "-", '-', 4, kDashed, 20, kAny},   // Slack
    {"AIza", "", "", 'z', 2, kUrlBase64, 35, 35},         // Google
    {"", "sr", "k_live_", '_', 2, kAlnum, 20, kAny},      // Stripe
    {"npm_", "", "", '_', 3, kAlnum, 36, 36},             // npm
    {"pypi-AgEI", "", "", '-', 4, kUrlBase64, 50, kAny},  // PyPI
    {"hf_", "", "", '_', 2, kAlnum, 30, kAny},            // Hugging Face
};

std::optional<TextSpan> match_shape(std::string_view text, const Shape& shape, size_t at, size_t from) {
  if (text[at] != shape.anchor || at < from + shape.place) return std::nullopt;
  const size_t begin = at - shape.place;
  const std::string_view rest = text.substr(begin);
  if (!rest.starts_with(shape.head)) return std::nullopt;
  size_t prefix = shape.head.size();
  if (!shape.one_of.empty()) {
    if (prefix >= rest.size() || shape.one_of.find(rest[prefix]) == std::string_view::npos) return std::nullopt;
    ++prefix;
  }
  if (!rest.substr(prefix).starts_with(shape.tail)) return std::nullopt;
  // What the body may hold may not stand before it either: so a run of such signs is read once.
  if (begin > from && (letter_ends(text, begin, from) || is_of(text[begin - 1], shape.body))) return std::nullopt;
  const size_t body = begin + prefix + shape.tail.size(), end = run_end(text, body, shape.body);
  if (end - body < shape.least || end - body > shape.most || letter_begins(text, end)) return std::nullopt;
  return is_blanked(text.substr(body, end - body)) ? std::nullopt : std::optional(TextSpan{begin, end});
}

/// Parts of base64url joined by dots, of at least so many characters each. The first begins at `begin`.
template <size_t N>
std::optional<TextSpan> match_parts(std::string_view text, size_t begin, size_t from,
                                    const std::array<size_t, N>& least) {
  if (begin > from && (letter_ends(text, begin, from) || is_of(text[begin - 1], kUrlBase64))) return std::nullopt;
  size_t end = begin;
  for (size_t part = 0; part < N; ++part) {
    if (part > 0 && (end >= text.size() || text[end++] != '.')) return std::nullopt;
    const size_t part_end = run_end(text, end, kUrlBase64);
    if (part_end - end < least[part]) return std::nullopt;
    end = part_end;
  }
  return TextSpan{begin, end};
}

constexpr std::string_view kDashes = "-----", kBegin = "-----BEGIN ", kEnd = "-----END ";
constexpr size_t kMaxLabelBytes = 64;

/// Where a line of dashes, `word`, a label with "PRIVATE KEY" and dashes ends that begins at `at`; 0: there is none.
size_t key_line_end(std::string_view text, size_t at, std::string_view word) {
  const std::string_view line = text.substr(at, word.size() + kMaxLabelBytes);
  if (!line.starts_with(word)) return 0;
  const size_t close = line.find(kDashes, word.size());
  if (close == std::string_view::npos) return 0;
  const std::string_view label = line.substr(word.size(), close - word.size());
  return label.find("PRIVATE KEY") == std::string_view::npos ? 0 : at + close + kDashes.size();
}

/// A private key from its first line to its last; `at` is the B of BEGIN. What lies between holds no five dashes.
std::optional<TextSpan> match_pem(std::string_view text, size_t at, size_t from) {
  if (at < from + kDashes.size()) return std::nullopt;
  const size_t begin = at - kDashes.size(), body = key_line_end(text, begin, kBegin);
  if (body == 0) return std::nullopt;
  const size_t close = text.find(kDashes, body);
  const size_t end = close == std::string_view::npos ? 0 : key_line_end(text, close, kEnd);
  return end == 0 ? std::nullopt : std::optional(TextSpan{begin, end});
}

/// `user:password` of an address `scheme://user:password@host`; `at` is the colon of the scheme.
std::optional<TextSpan> match_credentials(std::string_view text, size_t at) {
  constexpr size_t kMaxBytes = 256;
  constexpr std::string_view kStops = "/?#@<>{}$*\"'`\\ \t\r\n";  // placeholders among them
  if (text.substr(at, 3) != "://") return std::nullopt;
  const size_t begin = at + 3;
  const std::string_view rest = text.substr(begin, kMaxBytes);
  const size_t end = std::min(rest.find_first_of(kStops), rest.size());
  if (end == rest.size() || rest[end] != '@') return std::nullopt;
  const size_t colon = rest.substr(0, end).find(':');
  if (colon == std::string_view::npos || colon == 0 || colon + 1 == end) return std::nullopt;
  return is_blanked(rest.substr(colon + 1, end - colon - 1)) ? std::nullopt
                                                             : std::optional(TextSpan{begin, begin + end});
}

// ---------------------------------------------------------------------------------------------- assigned in code

double entropy_bits(std::string_view value) {
  std::array<int, 256> counts{};
  for (const char c : value) ++counts[static_cast<unsigned char>(c)];
  double bits = 0;
  for (const int count : counts)
    if (count > 0) bits -= count * std::log2(static_cast<double>(count) / static_cast<double>(value.size()));
  return bits / static_cast<double>(value.size());
}

bool contains_any(std::string_view text, std::initializer_list<std::string_view> lower_words) {
  std::string lower(text);
  std::ranges::transform(lower, lower.begin(), to_lower);
  return std::ranges::any_of(lower_words, [&](std::string_view word) { return lower.find(word) != std::string::npos; });
}

bool is_uuid(std::string_view value) {
  if (value.size() != 36) return false;
  for (size_t i = 0; i < value.size(); ++i)
    if ((i == 8 || i == 13 || i == 18 || i == 23) ? value[i] != '-' : !is_hex(value[i])) return false;
  return true;
}

/// `abcdefgh`, `0123456789`: most signs follow the one before.
bool is_sequence(std::string_view value) {
  size_t steps = 0;
  for (size_t i = 1; i < value.size(); ++i) steps += value[i] == value[i - 1] + 1 || value[i] == value[i - 1];
  return 2 * steps > value.size();
}

bool looks_random(std::string_view value) {
  constexpr size_t kLeast = 20;
  constexpr double kBase64Bits = 4.5, kHexBits = 3.0;
  if (value.size() < kLeast || is_uuid(value) || is_blanked(value) || is_sequence(value)) return false;
  const bool hex = std::ranges::all_of(value, is_hex);
  if (hex && (value.size() == 32 || value.size() == 40 || value.size() == 64)) return false;
  return entropy_bits(value) >= (hex ? kHexBits : kBase64Bits);
}

/// Of two sorted lists; of spans that meet the first stays, of two with one start the longer.
std::vector<TextSpan> merged(const std::vector<TextSpan>& a, const std::vector<TextSpan>& b) {
  std::vector<TextSpan> all, disjoint;
  std::ranges::merge(a, b, std::back_inserter(all), [](const TextSpan& x, const TextSpan& y) {
    return x.begin != y.begin ? x.begin < y.begin : x.end > y.end;
  });
  for (const TextSpan& span : all)
    if (disjoint.empty() || span.begin >= disjoint.back().end) disjoint.push_back(span);
  return disjoint;
}

bool is_base64(char c) { return is_alnum(c) || c == '+' || c == '/' || c == '_' || c == '-'; }

/// The name before the '=' or ':' at `at`, with what may stand between them.
std::string_view assigned_name(std::string_view code, size_t at) {
  constexpr size_t kMaxNameBytes = 64, kMaxGap = 8;
  const auto is_gap = [](char c) { return c == ' ' || c == '\t' || c == '"' || c == '\'' || c == ':' || c == ']'; };
  size_t end = at;
  while (end > 0 && at - end < kMaxGap && is_gap(code[end - 1])) --end;
  size_t begin = end;
  while (begin > 0 && end - begin < kMaxNameBytes &&
         (is_alnum(code[begin - 1]) || code[begin - 1] == '_' || code[begin - 1] == '-'))
    --begin;
  return code.substr(begin, end - begin);
}

/// The value behind it: a run of base64 within quotes, or up to where the statement ends.
TextSpan assigned_value(std::string_view code, size_t at) {
  constexpr size_t kMaxGap = 8;
  size_t begin = at + 1;
  while (begin < code.size() && begin - at < kMaxGap &&
         std::string_view(" \t=>\"'`").find(code[begin]) != std::string_view::npos)
    ++begin;
  size_t end = begin;
  while (end < code.size() && is_base64(code[end])) ++end;
  const size_t value_end = end;
  while (end < code.size() && code[end] == '=' && end - value_end < 2) ++end;  // padding
  const bool closed =
      end == code.size() || std::string_view(" \t\r\n\"'`,;)}]").find(code[end]) != std::string_view::npos;
  return closed ? TextSpan{begin, end} : TextSpan{begin, begin};
}

}  // namespace

std::optional<TextSpan> match_secret(std::string_view text, size_t at, size_t from) {
  switch (text[at]) {
    case 'J':  // eyJ, a JSON object in base64: header.payload.signature
      return at >= from + 2 && text[at - 1] == 'y' && text[at - 2] == 'e'
                 ? match_parts(text, at - 2, from, std::array<size_t, 3>{10, 4, 8})
                 : std::nullopt;
    case 'G':  // SendGrid: SG.22.43
      return at >= from + 1 && text[at - 1] == 'S' ? match_parts(text, at - 1, from, std::array<size_t, 3>{2, 22, 43})
                                                   : std::nullopt;
    case 'B':
      return match_pem(text, at, from);
    case ':':
      return match_credentials(text, at);
    default:
      for (const Shape& shape : kShapes)
        if (const std::optional<TextSpan> found = match_shape(text, shape, at, from)) return found;
      return std::nullopt;
  }
}

std::vector<TextSpan> find_assigned_secrets(std::string_view code) {
  std::vector<TextSpan> found;
  size_t line_end = 0;
  bool line_of_hashes = false;
  for (size_t at = code.find_first_of("=:"); at != std::string_view::npos; at = code.find_first_of("=:", at + 1)) {
    const TextSpan value = assigned_value(code, at);
    const std::string_view text = code.substr(value.begin, value.end - value.begin);
    if (!looks_random(text) || !contains_any(assigned_name(code, at), {"key", "secret", "token", "passw"})) continue;
    if (at >= line_end) {  // each line is read once
      const size_t before = code.rfind('\n', at);
      const size_t begin = before == std::string_view::npos ? 0 : before + 1;
      line_end = std::min(code.find('\n', at), code.size());
      line_of_hashes = contains_any(code.substr(begin, line_end - begin), {"sha", "md5", "hash"});
    }
    if (line_of_hashes) continue;
    found.push_back(value);
    at = value.end - 1;
  }
  return found;
}

std::vector<TextSpan> find_secrets(std::string_view text, bool is_code) {
  std::vector<TextSpan> shaped;
  for (size_t at = text.find_first_of(kSecretAnchors), from = 0; at != std::string_view::npos;
       at = text.find_first_of(kSecretAnchors, at)) {
    const std::optional<TextSpan> match = match_secret(text, at, from);
    if (match) shaped.push_back(*match);
    at = match ? (from = match->end) : at + 1;
  }
  return is_code ? merged(shaped, find_assigned_secrets(text)) : shaped;
}

}  // namespace coppice
