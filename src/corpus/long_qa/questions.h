// Questions about a context whose answers are found by searching it: six kinds, at ten depths.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "src/corpus/long_qa/contexts.h"

namespace coppice {

enum class QuestionKind { fact, section, order, list, document, needle };
inline constexpr std::array<std::string_view, 6> kQuestionKinds = {"fact", "section",  "order",
                                                                   "list", "document", "needle"};
inline constexpr size_t kNumKinds = kQuestionKinds.size(), kNumDepths = 10;

/// Why a candidate goes; `none`: it stays.
enum class Fault {
  none,
  absent,
  repeated,
  in_question,
  stop_words,
  ambiguous,
  no_choices,
  length,
  long_line,
  unanswered
};
inline constexpr std::array<std::string_view, 10> kFaults = {
    "",
    "the answer is not in the context",
    "the answer occurs again in the context",
    "the question holds the answer",
    "the answer is nothing but stop words",
    "what is asked about occurs again in the context",
    "no wrong choices in the context",
    "the length is not within 2% of the target",
    "the line of a task file would be longer than 1 MiB",
    "the model does not answer its own question from the passage",
};
using FaultCounts = std::array<uint64_t, kFaults.size()>;

struct Question {
  QuestionKind kind = QuestionKind::fact;
  std::string text, answer;
  std::vector<std::string> wrong;    // three at most, from the same context
  std::vector<std::string> anchors;  // what the question names, which must occur once (a title, how a sentence begins)
  std::vector<std::pair<size_t, std::string>> insertions = {};  // needles: place in the context, what goes in there
};

/// The context with what the question puts into it.
std::string with_insertions(std::string_view text, const Question& question);
/// The answer is found in `text` by searching, once; the question does not hold it, in any case; a fact is no stop
/// word; what the question names is found once; there is a wrong choice.
Fault check_question(std::string_view text, const Question& question);
/// How often `part`, which is not empty, is found in `text`, counted up to 2; places may overlap.
size_t count_up_to_two(std::string_view text, std::string_view part);

/// For each kind and each tenth of the context that is left, a question whose answer stands there and that
/// check_question() lets through, where one of a few tries gives one. It depends on seed, the context's id and its
/// text.
using Candidates = std::array<std::array<std::optional<Question>, kNumDepths>, kNumKinds>;
Candidates find_questions(const QaContext& context, uint64_t seed, FaultCounts& faults);

}  // namespace coppice
