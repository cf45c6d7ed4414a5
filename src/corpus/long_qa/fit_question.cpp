#include "src/corpus/long_qa/fit_question.h"

#include <fmt/format.h>

#include <algorithm>

#include "src/text/ascii_case.h"

namespace coppice {
namespace {

constexpr int kMaxRounds = 12;          // of guessing where to cut
constexpr uint64_t kCloseEnough = 256;  // a 256th of the target ends the guessing

/// The end of the last whole word of the first `bytes`.
size_t word_end(std::string_view text, size_t bytes) {
  if (bytes >= text.size()) return text.size();
  const size_t blank = text.find_last_of(kAsciiBlanks, bytes);
  if (blank == std::string_view::npos) return 0;
  const size_t last = text.find_last_not_of(kAsciiBlanks, blank);
  return last == std::string_view::npos ? 0 : last + 1;
}

}  // namespace

std::string question_tail(const Question& question) { return fmt::format("\n\nQuestion: {}\nAnswer:", question.text); }

FittedQuestion fit_question(const QaContext& context, const Question& question, const Tokenizer& tokenizer) {
  const std::string text = with_insertions(context.text, question);
  std::string_view last = question.answer;
  if (context.held_out) {
    const auto tokens_of = [&](std::string_view choice) { return tokenizer.encode(choice).size(); };
    for (const std::string& wrong : question.wrong)
      if (tokens_of(wrong) > tokens_of(last)) last = wrong;
  }
  const std::string tail = fmt::format("{} {}", question_tail(question), last);
  const uint64_t most = context.target - 1;
  size_t low = 0, high = text.size() + 1;  // bytes: fits; does not
  size_t end = word_end(text, text.size());
  FittedQuestion fitted;
  for (int round = 0; round < kMaxRounds && low + 1 < high; ++round) {
    const uint64_t tokens = tokenizer.encode(text.substr(0, end) + tail).size();
    if (tokens <= most) {
      low = end;
      fitted.tokens = tokens;
      if (end == text.size() || most - tokens <= context.target / kCloseEnough) break;
    } else {
      high = end;
    }
    const double bytes_per_token = static_cast<double>(end + tail.size()) / static_cast<double>(tokens);
    const double guess =
        static_cast<double>(end) + (static_cast<double>(most) - static_cast<double>(tokens)) * bytes_per_token;
    size_t next = guess <= 0 ? 0 : word_end(text, static_cast<size_t>(guess));
    if (next <= low || next >= high) next = word_end(text, low + (high - low) / 2);
    if (next <= low || next >= high) break;
    end = next;
  }
  if (static_cast<double>(fitted.tokens) < (1 - kLengthTolerance) * static_cast<double>(context.target))
    return {.fault = Fault::length};
  fitted.context = text.substr(0, low);
  fitted.fault = check_question(fitted.context, question);
  if (fitted.fault != Fault::none) return {.fault = fitted.fault};
  fitted.answer.begin = fitted.context.find(question.answer);
  fitted.answer.end = fitted.answer.begin + question.answer.size();
  fitted.depth = static_cast<double>(fitted.answer.begin) / static_cast<double>(fitted.context.size());
  return fitted;
}

}  // namespace coppice
