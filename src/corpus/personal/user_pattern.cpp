#define PCRE2_CODE_UNIT_WIDTH 8
#include "src/corpus/personal/user_pattern.h"

#include <fmt/format.h>
#include <pcre2.h>

#include <algorithm>
#include <array>

#include "src/base/errors.h"
#include "src/base/utf8_byte.h"
#include "src/corpus/personal/check_digits.h"

namespace coppice {
namespace {

constexpr uint32_t kMaxSteps = 1'000'000, kMaxDepth = 1'000, kMaxHeapKiB = 16'384;
constexpr size_t kMaxPieceBytes = 4096;  // an expression may need the square of it

struct Check {
  std::string_view name;
  bool (*holds)(std::string_view match);
};
constexpr Check kChecks[] = {{"none", nullptr}, {"luhn", luhn_holds}, {"mod97", mod97_holds}};

struct MatchDeleter {
  void operator()(pcre2_match_data* match) const { pcre2_match_data_free(match); }
};

PCRE2_SPTR bytes_of(std::string_view text) { return reinterpret_cast<PCRE2_SPTR>(text.data()); }

/// The end of the piece that begins at `at`: of its line, or of what fits, at a character's start.
size_t piece_end(std::string_view text, size_t at) {
  const std::string_view rest = text.substr(at, kMaxPieceBytes);
  size_t end = at + std::min(rest.find('\n'), rest.size());
  while (end < text.size() && end > at + 1 && is_continuation_byte(text[end])) --end;
  return end;
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

bool UserPattern::find(std::string_view text, std::vector<TextSpan>& spans) const {
  const std::unique_ptr<pcre2_match_data, MatchDeleter> match(
      pcre2_match_data_create_from_pattern(compiled_->code, nullptr));
  COPPICE_CHECK(match != nullptr, "no memory for a match");
  for (size_t piece = 0; piece < text.size();) {
    const std::string_view line = text.substr(piece, piece_end(text, piece) - piece);
    for (size_t at = 0; at < line.size();) {
      const int found =
          pcre2_match(compiled_->code, bytes_of(line), line.size(), at, 0, match.get(), compiled_->limits);
      if (found == PCRE2_ERROR_NOMATCH) break;
      if (found < 0) return false;
      const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(match.get());
      const size_t begin = offsets[0], end = offsets[1];
      const bool whole =
          begin < end && (compiled_->check == nullptr || compiled_->check(line.substr(begin, end - begin)));
      if (whole) spans.push_back({piece + begin, piece + end});
      at = std::max(end, at + 1);  // inside of a character: PCRE2 takes it for invalid and goes on behind it
    }
    piece += line.size() + (piece + line.size() < text.size() && text[piece + line.size()] == '\n' ? 1 : 0);
  }
  return true;
}

}  // namespace coppice
