#define PCRE2_CODE_UNIT_WIDTH 8
#include "src/tokens/regex_split.h"

#include <fmt/format.h>
#include <pcre2.h>

#include <algorithm>
#include <array>

#include "src/base/errors.h"
#include "src/tokens/utf8.h"

namespace coppice {

namespace {

constexpr size_t kMaxPatternBytes = 65536;
constexpr size_t kMaxJitStack = size_t{1} << 20;

template <auto kFree>
struct FreeWith {
  template <class Thing>
  void operator()(Thing* thing) const {
    kFree(thing);
  }
};

/// White space and word characters as Oniguruma counts them: PCRE2 counts U+180E as white and no marks as words.
constexpr const char* kWhite = R"(\t-\r\x20\x{85}\p{Z})";
constexpr const char* kWord = R"(\p{L}\p{M}\p{Nd}\p{Pc})";

std::string dialect_error(std::string_view pattern, const std::string& what) {
  return fmt::format("the regular expression '{}' uses {}, which is not supported", printable(pattern.substr(0, 200)),
                     what);
}

}  // namespace

std::string to_pcre2(std::string_view pattern, const std::string& path) {
  const auto refuse = [&](const std::string& what) { return UserError::bad_file(path, dialect_error(pattern, what)); };
  std::string result;
  bool in_class = false;
  size_t class_begin = 0;
  for (size_t at = 0; at < pattern.size(); ++at) {
    const char c = pattern[at];
    if (c == '\\') {
      if (++at == pattern.size()) throw refuse("a backslash at its end");
      const char escaped = pattern[at];
      switch (escaped) {
        case 's':
        case 'w': {
          const char* const inside = escaped == 's' ? kWhite : kWord;
          result += in_class ? inside : fmt::format("[{}]", inside);
          continue;
        }
        case 'S':
        case 'W':
          if (in_class) throw refuse(fmt::format("\\{} inside brackets", escaped));
          result += fmt::format("[^{}]", escaped == 'S' ? kWhite : kWord);
          continue;
        case 'u':
          if (at + 4 >= pattern.size()) throw refuse("\\u without four digits");
          result += fmt::format("\\x{{{}}}", pattern.substr(at + 1, 4));
          at += 4;
          continue;
        default:
          break;
      }
      const bool letter_or_digit = (escaped >= 'a' && escaped <= 'z') || (escaped >= 'A' && escaped <= 'Z') ||
                                   (escaped >= '0' && escaped <= '9');
      if (letter_or_digit && std::string_view("pPdDrntfvxAz").find(escaped) == std::string_view::npos)
        throw refuse(fmt::format("\\{}", escaped));
      result += '\\';
      result += escaped;
      continue;
    }
    if (in_class) {
      if (c == '[') throw refuse("brackets inside brackets");
      if (c == '&' && pattern.substr(at, 2) == "&&") throw refuse("&& inside brackets");
      const bool first = at == class_begin + 1 || (at == class_begin + 2 && pattern[at - 1] == '^');
      in_class = c != ']' || first;
    } else if (c == '[') {
      in_class = true;
      class_begin = at;
    } else if (c == '(' && at + 1 < pattern.size() && pattern[at + 1] == '*') {
      throw refuse("(*");
    } else if (c == '(' && at + 1 < pattern.size() && pattern[at + 1] == '?') {
      constexpr std::array<std::string_view, 9> kGroups = {"(?:", "(?=",  "(?!",  "(?<=", "(?<!",
                                                           "(?>", "(?i:", "(?i)", "(?-i:"};
      if (std::ranges::none_of(kGroups, [&](std::string_view group) { return pattern.substr(at).starts_with(group); }))
        throw refuse(fmt::format("the group {}", printable(pattern.substr(at, 4))));
    }
    result += c;
  }
  return result;
}

struct RegexSplitter::Compiled {
  std::unique_ptr<pcre2_code, FreeWith<pcre2_code_free>> code;
  bool keeps_gaps = true;
  std::string pattern;  // as given
};

struct RegexSplitter::Scratch::Parts {
  std::unique_ptr<pcre2_match_data, FreeWith<pcre2_match_data_free>> match{pcre2_match_data_create(1, nullptr)};
  std::unique_ptr<pcre2_match_context, FreeWith<pcre2_match_context_free>> context{pcre2_match_context_create(nullptr)};
  std::unique_ptr<pcre2_jit_stack, FreeWith<pcre2_jit_stack_free>> stack{
      pcre2_jit_stack_create(32768, kMaxJitStack, nullptr)};
};

RegexSplitter::Scratch::Scratch() : parts(std::make_unique<Parts>()) {
  COPPICE_CHECK(parts->match && parts->context, "no memory for a match");
  pcre2_set_depth_limit(parts->context.get(), 100'000);
  pcre2_set_heap_limit(parts->context.get(), 65'536);  // KiB
  if (parts->stack) pcre2_jit_stack_assign(parts->context.get(), nullptr, parts->stack.get());
}
RegexSplitter::Scratch::~Scratch() = default;
RegexSplitter::~RegexSplitter() = default;

RegexSplitter::RegexSplitter(const std::vector<SplitStep>& steps, const std::string& path) : path_(path) {
  const std::unique_ptr<pcre2_compile_context, FreeWith<pcre2_compile_context_free>> context(
      pcre2_compile_context_create(nullptr));
  COPPICE_CHECK(context, "no memory for a regular expression");
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit(context.get(), 64);
  pcre2_set_max_pattern_length(context.get(), kMaxPatternBytes);
  for (const SplitStep& step : steps) {
    const std::string pattern = to_pcre2(step.pattern, path);
    int error = 0;
    PCRE2_SIZE place = 0;
    // Ruby's syntax, which the tokenizers library compiles for: ^ and $ stand at every line.
    auto compiled = std::make_unique<Compiled>();
    compiled->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                       PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error,
                                       &place, context.get()));
    if (!compiled->code) {
      std::array<PCRE2_UCHAR, 256> text{};
      pcre2_get_error_message(error, text.data(), text.size());
      throw UserError::bad_file(path, fmt::format("the regular expression '{}' cannot be compiled: {}",
                                                  printable(std::string_view(step.pattern).substr(0, 200)),
                                                  reinterpret_cast<const char*>(text.data())));
    }
    pcre2_jit_compile(compiled->code.get(), PCRE2_JIT_COMPLETE);  // without it the interpreter matches the same
    compiled->keeps_gaps = step.keeps_gaps;
    compiled->pattern = step.pattern;
    compiled_.push_back(std::move(compiled));
  }
}

void RegexSplitter::split(std::string_view text, Scratch& scratch,
                          const std::function<void(std::string_view)>& take) const {
  if (!text.empty()) split_from(0, text, scratch, take);
}

void RegexSplitter::split_from(size_t step, std::string_view text, Scratch& scratch,
                               const std::function<void(std::string_view)>& take) const {
  if (step == compiled_.size()) return take(text);
  const Compiled& compiled = *compiled_[step];
  pcre2_match_data* const match = scratch.parts->match.get();
  pcre2_match_context* const context = scratch.parts->context.get();
  const auto pass = [&](size_t begin, size_t end) {
    if (begin < end) split_from(step + 1, text.substr(begin, end - begin), scratch, take);
  };
  const auto limit = static_cast<uint32_t>(std::min<uint64_t>(1'000'000 + 32 * uint64_t{text.size()}, UINT32_MAX));
  size_t done = 0, from = 0;  // text before `done` is passed on; the next match may begin at `from`
  while (from <= text.size()) {
    pcre2_set_match_limit(context, limit);
    const int found = pcre2_match(compiled.code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                                  PCRE2_NO_UTF_CHECK, match, context);
    if (found == PCRE2_ERROR_NOMATCH) break;
    if (found < 0)
      throw UserError::bad_file(
          path_, fmt::format("the regular expression '{}' does not end on a text of {} bytes (PCRE2 error {})",
                             printable(std::string_view(compiled.pattern).substr(0, 200)), text.size(), found));
    const PCRE2_SIZE* const bounds = pcre2_get_ovector_pointer(match);
    const size_t begin = bounds[0], end = bounds[1];
    if (compiled.keeps_gaps) pass(done, begin);
    pass(begin, end);
    done = std::max(done, end);
    if (end > begin)
      from = end;
    else  // an empty match cuts, and the next one is looked for behind the next character
      from = begin < text.size() ? begin + code_point_at(text, begin).bytes : text.size() + 1;
  }
  if (compiled.keeps_gaps) pass(done, text.size());
}

}  // namespace coppice
