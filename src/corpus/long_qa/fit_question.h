// A context and a question as one text of the target's length: the end of the context is cut off until both fit in.
#pragma once

#include <cstdint>
#include <string>

#include "src/corpus/long_qa/questions.h"

namespace coppice {

inline constexpr double kLengthTolerance = 0.02;  // of the target

struct FittedQuestion {
  Fault fault = Fault::none;  // where there is one, the rest is empty
  std::string context;
  ByteSpan answer;  // in the context
  uint64_t tokens = 0;
  double depth = 0;  // of the answer, in [0, 1)
};

/// What follows the context, up to the blank before the answer.
std::string question_tail(const Question& question);
/// `<context>\n\nQuestion: ...\nAnswer: <answer>` has at most as many tokens as the target when an end of text follows,
/// and at least 98% of them; in a held-out one with the longest of the choices. Checked anew on what is left.
FittedQuestion fit_question(const QaContext& context, const Question& question, const Tokenizer& tokenizer);

}  // namespace coppice
