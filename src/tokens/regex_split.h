// Regular expressions that cut a text into words, as the tokenizers library runs them (Oniguruma), through PCRE2.
// Private to src/tokens.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace coppice {

/// GPT-2's own.
inline constexpr const char* kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

struct SplitStep {
  std::string pattern;     // as tokenizer.json spells it
  bool keeps_gaps = true;  // text between matches is a part too; otherwise it is dropped
  bool operator==(const SplitStep&) const = default;
};

/// The pattern in PCRE2's dialect. UserError::bad_file(path, ...) for what the two dialects read differently.
std::string to_pcre2(std::string_view pattern, const std::string& path);

class RegexSplitter {
 public:
  /// What one thread needs while it matches.
  struct Scratch {
    Scratch();
    ~Scratch();
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    struct Parts;
    std::unique_ptr<Parts> parts;
  };

  RegexSplitter(const std::vector<SplitStep>& steps, const std::string& path);
  ~RegexSplitter();
  RegexSplitter(const RegexSplitter&) = delete;
  RegexSplitter& operator=(const RegexSplitter&) = delete;

  /// Calls `take` with the parts of valid UTF-8, in order, none empty: every step cuts the parts of the step before,
  /// and sees nothing beyond the one it cuts. UserError::bad_file when a pattern takes more steps than 10^6 and 32 a
  /// byte.
  void split(std::string_view text, Scratch& scratch, const std::function<void(std::string_view part)>& take) const;

 private:
  struct Compiled;
  void split_from(size_t step, std::string_view text, Scratch& scratch,
                  const std::function<void(std::string_view part)>& take) const;
  std::vector<std::unique_ptr<Compiled>> compiled_;
  std::string path_;
};

}  // namespace coppice
