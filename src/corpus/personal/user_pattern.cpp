#define PCRE2_CODE_UNIT_WIDTH 8
#include "src/corpus/personal/user_pattern.h"

#include <fmt/format.h>
#include <pcre2.h>

#include <algorithm>
#include <array>

#include "src/base/errors.h"
#include "src/base/utf8_byte.h"
#include "src/corpus/deadline.h"
#include "src/corpus/personal/check_digits.h"

namespace coppice {
namespace {

constexpr uint32_t kMaxSteps = 1'000'000, kMaxDepth = 1'000, kMaxHeapKiB = 16'384;
// Of a line that is longer, matches are looked for in pieces, by where they begin: an expression may need the square of
// what it is shown. It is shown more: what may stand before a match, a match and what may stand behind it.
constexpr size_t kPieceBytes = 4096, kLongestMatch = 512, kBeside = 64;

struct Check {
  std::string_view name;
  bool (*holds)(std::string_view match);
};
constexpr Check kChecks[] = {{"none", nullptr}, {"luhn", luhn_holds}, {"mod97", mod97_holds}};

struct MatchDeleter {
  void operator()(pcre2_match_data* match) const { pcre2_match_data_free(match); }
};

PCRE2_SPTR bytes_of(std::string_view text) { return reinterpret_cast<PCRE2_SPTR>(text.data()); }

/// Where the character begins that holds this byte.
size_t character_start(std::string_view text, size_t at) {
  for (int bytes = 0; bytes < 3 && at > 0 && at < text.size(); ++bytes, --at)
    if (!is_continuation_byte(text[at])) break;
  return std::min(at, text.size());
}

}  // namespace

struct UserPattern::Compiled {
  ~Compiled() {
    pcre2_match_context_free(limits);
    pcre2_code_free(code);
  }
  pcre2_code* code = nullptr;
  pcre2_match_context* limits = nullptr;
  bool (*check)(std::string_view match) = nullptr;

  bool find_in_piece(std::string_view line, size_t& at, pcre2_match_data* match, std::vector<TextSpan>& spans) const;
};

UserPattern::UserPattern(const UserPatternOptions& options, const std::string& where) : options_(options) {
  const bool named =
      !options.name.empty() && std::ranges::all_of(options.name, [](char c) { return is_alnum(c) || c == '_'; });
  if (!named)
    throw UserError::recipe(where,
                            fmt::format("name: got '{}', expected letters, digits and '_'", printable(options.name)));
  const auto* check = std::ranges::find(kChecks, options.check, &Check::name);
  if (check == std::end(kChecks))
    throw UserError::recipe(where,
                            fmt::format("check: got '{}', expected luhn, mod97 or none", printable(options.check)));
  auto compiled = std::make_shared<Compiled>();
  int error = 0;
  PCRE2_SIZE offset = 0;
  compiled->code = pcre2_compile(bytes_of(options.regex), options.regex.size(),
                                 PCRE2_UTF | PCRE2_UCP | PCRE2_MATCH_INVALID_UTF | PCRE2_NEVER_BACKSLASH_C, &error,
                                 &offset, nullptr);
  if (compiled->code == nullptr || options.regex.empty()) {
    std::array<PCRE2_UCHAR, 256> text{};
    pcre2_get_error_message(error, text.data(), text.size());
    throw UserError::recipe(
        where,
        fmt::format("regex: got '{}', expected a regular expression: {} at its byte {}", printable(options.regex),
                    options.regex.empty() ? "it is empty" : reinterpret_cast<const char*>(text.data()), offset));
  }
  pcre2_jit_compile(compiled->code, PCRE2_JIT_COMPLETE);  // without it a match is slower, and the same
  compiled->limits = pcre2_match_context_create(nullptr);
  COPPICE_CHECK(compiled->limits != nullptr, "no memory for a match");
  pcre2_set_match_limit(compiled->limits, kMaxSteps);
  pcre2_set_depth_limit(compiled->limits, kMaxDepth);
  pcre2_set_heap_limit(compiled->limits, kMaxHeapKiB);
  compiled->check = check->holds;
  compiled_ = std::move(compiled);
}

/// Matches that begin in the piece of a line from `at` on, which moves behind it.
bool UserPattern::Compiled::find_in_piece(std::string_view line, size_t& at, pcre2_match_data* match,
                                          std::vector<TextSpan>& spans) const {
  const size_t next = character_start(line, at + kPieceBytes);
  const size_t begin = character_start(line, at - std::min(at, kBeside));
  const size_t end = character_start(line, next + kLongestMatch + kBeside);
  const std::string_view shown = line.substr(begin, end - begin);
  const uint32_t options = end < line.size() ? PCRE2_NOTEOL : 0;
  while (at < next) {
    const int found = pcre2_match(code, bytes_of(shown), shown.size(), at - begin, options, match, limits);
    if (found == PCRE2_ERROR_NOMATCH) break;
    if (found < 0) return false;
    const PCRE2_SIZE* const offsets = pcre2_get_ovector_pointer(match);
    const TextSpan span{begin + offsets[0], begin + offsets[1]};
    if (span.begin >= next) break;
    const bool whole =
        span.begin < span.end && (check == nullptr || check(line.substr(span.begin, span.end - span.begin)));
    if (whole) spans.push_back(span);
    at = std::max(span.end, at + 1);  // inside of a character: PCRE2 takes it for invalid and goes on behind it
  }
  at = std::max(at, next);
  return true;
}

bool UserPattern::find(std::string_view text, std::vector<TextSpan>& spans) const {
  const std::unique_ptr<pcre2_match_data, MatchDeleter> match(
      pcre2_match_data_create_from_pattern(compiled_->code, nullptr));
  COPPICE_CHECK(match != nullptr, "no memory for a match");
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = text.substr(begin, end - begin);
    const size_t first = spans.size();
    for (size_t at = 0; at < line.size();) {
      check_deadline();
      if (!compiled_->find_in_piece(line, at, match.get(), spans)) return false;
    }
    for (size_t i = first; i < spans.size(); ++i) spans[i] = {begin + spans[i].begin, begin + spans[i].end};
    begin = end + 1;
  }
  return true;
}

}  // namespace coppice
