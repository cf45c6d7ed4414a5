#define PCRE2_CODE_UNIT_WIDTH 8
#include "src/tasks/pattern.h"

#include <fmt/format.h>
#include <pcre2.h>

#include <array>
#include <functional>
#include <optional>

#include "src/base/errors.h"
#include "src/base/utf8_byte.h"

namespace coppice {
namespace {

constexpr uint32_t kMaxSteps = 10'000'000, kMaxDepth = 10'000, kMaxHeapKiB = 65'536;
constexpr size_t kMaxExpressionBytes = 16384;

PCRE2_SPTR bytes_of(std::string_view text) { return reinterpret_cast<PCRE2_SPTR>(text.data()); }

std::string message_of(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

struct CodeDeleter {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
};
struct MatchDeleter {
  void operator()(pcre2_match_data* match) const { pcre2_match_data_free(match); }
};
struct ContextDeleter {
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};

}  // namespace

struct Pattern::Compiled {
  std::string expression, where;
  std::unique_ptr<pcre2_code, CodeDeleter> code;
  std::unique_ptr<pcre2_match_context, ContextDeleter> limits;
  uint32_t groups = 0;

  [[noreturn]] void refuse(const std::string& message) const {
    throw UserError::bad_file(where, fmt::format("regular expression '{}': {}", printable(expression), message));
  }

  /// Calls `visit` with the offsets (begin and end of the match, then of every group) of one match after the other, in
  /// Python's order: behind an empty match the next one is longer or stands further on.
  void for_each_match(std::string_view text, const std::function<void(const PCRE2_SIZE*)>& visit) const {
    const std::unique_ptr<pcre2_match_data, MatchDeleter> match(
        pcre2_match_data_create_from_pattern(code.get(), nullptr));
    COPPICE_CHECK(match != nullptr, "no memory for a match");
    uint32_t options = 0;
    for (PCRE2_SIZE at = 0; at <= text.size();) {
      const int found = pcre2_match(code.get(), bytes_of(text), text.size(), at, options, match.get(), limits.get());
      if (found == PCRE2_ERROR_NOMATCH) {
        if (options == 0) return;
        options = 0;  // nothing longer here: one character on
        ++at;
        while (at < text.size() && is_continuation_byte(text[at])) ++at;
        continue;
      }
      if (found < 0) refuse(fmt::format("{} on a text of {} bytes", message_of(found), text.size()));
      const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(match.get());
      if (offsets[0] > offsets[1]) refuse("\\K inside a look-around is not supported");
      visit(offsets);
      at = offsets[1];
      options = offsets[0] == offsets[1] ? PCRE2_NOTEMPTY_ATSTART | PCRE2_ANCHORED : 0;
    }
  }
};

Pattern::Pattern(const std::string& expression, const std::string& where) {
  auto compiled = std::make_shared<Compiled>();
  compiled->expression = expression;
  compiled->where = where;
  if (expression.size() > kMaxExpressionBytes)
    throw UserError::bad_file(where, fmt::format("regular expression of {} bytes, expected {} at most",
                                                 expression.size(), kMaxExpressionBytes));
  int error = 0;
  PCRE2_SIZE offset = 0;
  compiled->code.reset(pcre2_compile(bytes_of(expression), expression.size(),
                                     PCRE2_UTF | PCRE2_UCP | PCRE2_MATCH_INVALID_UTF | PCRE2_NEVER_BACKSLASH_C, &error,
                                     &offset, nullptr));
  if (!compiled->code) compiled->refuse(fmt::format("{} at its byte {}", message_of(error), offset));
  pcre2_pattern_info(compiled->code.get(), PCRE2_INFO_CAPTURECOUNT, &compiled->groups);
  compiled->limits.reset(pcre2_match_context_create(nullptr));
  COPPICE_CHECK(compiled->limits != nullptr, "no memory for a match");
  pcre2_set_match_limit(compiled->limits.get(), kMaxSteps);
  pcre2_set_depth_limit(compiled->limits.get(), kMaxDepth);
  pcre2_set_heap_limit(compiled->limits.get(), kMaxHeapKiB);
  compiled_ = std::move(compiled);
}

const std::string& Pattern::expression() const { return compiled_->expression; }

std::vector<std::vector<std::string>> Pattern::find_all(std::string_view text) const {
  std::vector<std::vector<std::string>> matches;
  compiled_->for_each_match(text, [&](const PCRE2_SIZE* offsets) {
    std::vector<std::string>& groups = matches.emplace_back();
    for (uint32_t group = compiled_->groups == 0 ? 0 : 1; group <= compiled_->groups; ++group) {
      const PCRE2_SIZE begin = offsets[2 * group], end = offsets[2 * group + 1];
      groups.emplace_back(begin == PCRE2_UNSET ? std::string_view() : text.substr(begin, end - begin));
    }
  });
  return matches;
}

std::string Pattern::remove_all(std::string_view text) const {
  std::string kept;
  size_t begin = 0;
  compiled_->for_each_match(text, [&](const PCRE2_SIZE* offsets) {
    kept.append(text.substr(begin, offsets[0] - begin));
    begin = offsets[1];
  });
  return kept.append(text.substr(begin));
}

namespace {

/// The text written anew by a replacement with case escapes.
std::string change_case(std::string_view text, const char* replacement) {
  static const std::unique_ptr<pcre2_code, CodeDeleter> kWhole = [] {
    int error = 0;
    PCRE2_SIZE offset = 0;
    return std::unique_ptr<pcre2_code, CodeDeleter>(pcre2_compile(bytes_of("(?s)^.+$"), PCRE2_ZERO_TERMINATED,
                                                                  PCRE2_UTF | PCRE2_UCP | PCRE2_DOLLAR_ENDONLY, &error,
                                                                  &offset, nullptr));
  }();
  if (text.empty()) return {};
  std::string changed(2 * text.size() + 8, '\0');  // another case is at most a byte longer a letter
  PCRE2_SIZE length = changed.size();
  const int done = pcre2_substitute(kWhole.get(), bytes_of(text), text.size(), 0, PCRE2_SUBSTITUTE_EXTENDED, nullptr,
                                    nullptr, bytes_of(replacement), PCRE2_ZERO_TERMINATED,
                                    reinterpret_cast<PCRE2_UCHAR*>(changed.data()), &length);
  if (done < 1) return std::string(text);  // no UTF-8: as it is
  changed.resize(length);
  return changed;
}

}  // namespace

std::string lower_case(std::string_view text) { return change_case(text, "\\L$0"); }
std::string upper_case(std::string_view text) { return change_case(text, "\\U$0"); }
std::string capitalized(std::string_view text) {
  size_t first = text.empty() ? 0 : 1;
  while (first < text.size() && is_continuation_byte(text[first])) ++first;
  return change_case(text.substr(0, first), "\\U$0") + lower_case(text.substr(first));
}

}  // namespace coppice
