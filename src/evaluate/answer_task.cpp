#include "src/evaluate/answer_task.h"

#include "src/base/errors.h"
#include "src/model/continuations.h"
#include "src/model/generate.h"
#include "src/tokens/text_stream.h"

namespace coppice {
namespace {

/// What the model writes behind a prompt until EOS or a stop; neither is part of it.
std::string write_text(const Model& model, const Tokenizer& tokenizer, const std::vector<int64_t>& prompt,
                       const std::vector<std::string>& stops, int64_t max_new_tokens) {
  TextStream stream(tokenizer, stops, /*begins=*/true);  // the harness decodes the new tokens alone
  std::string text;
  generate(model, prompt, tokenizer.eos_id(), {.max_new_tokens = max_new_tokens}, [&](int64_t id) {
    if (id == tokenizer.eos_id()) return false;
    text += stream.add(static_cast<int32_t>(id));
    return !stream.stopped();
  });
  return text + stream.finish();
}

/// Of a text that is to be written behind a prompt.
uint64_t num_tokens_of(const std::vector<int64_t>& prompt, const PreparedTask& task) {
  return prompt.size() + static_cast<uint64_t>(task.definition.max_gen_toks);
}

std::vector<std::vector<TaskAnswer>> write_answers(const Model& model, const Tokenizer& tokenizer,
                                                   const PreparedTask& task, const EncodedTask& encoded,
                                                   const AnswerProgress& progress) {
  std::vector<std::string> stops = task.definition.until;
  stops.push_back(tokenizer.pieces().at(static_cast<size_t>(tokenizer.eos_id())).text);  // spelled out, too
  std::erase(stops, "");
  std::vector<std::vector<TaskAnswer>> answers;
  uint64_t tokens_done = 0;
  for (const std::vector<int64_t>& prompt : encoded.prompts) {
    if (progress) progress(tokens_done);
    tokens_done += num_tokens_of(prompt, task);
    TaskAnswer& answer = answers.emplace_back(1)[0];
    answer.text = write_text(model, tokenizer, prompt, stops, task.definition.max_gen_toks);
  }
  return answers;
}

std::vector<Continuation> continuations_of(const EncodedTask& encoded) {
  std::vector<Continuation> continuations;
  for (const EncodedRequest& request : encoded.requests)
    continuations.push_back({request.context, request.continuation});
  return continuations;
}

}  // namespace

std::vector<std::vector<TaskAnswer>> answer_task(const Model& model, const Tokenizer& tokenizer,
                                                 const PreparedTask& task, const EncodedTask& encoded,
                                                 int64_t batch_tokens, const AnswerProgress& progress) {
  if (task.definition.output_type == OutputType::generate_until)
    return write_answers(model, tokenizer, task, encoded, progress);
  const std::vector<ContinuationScore> scores =
      score_continuations(model, continuations_of(encoded), batch_tokens, progress);
  const bool rolling = task.definition.output_type == OutputType::loglikelihood_rolling;
  std::vector<std::vector<TaskAnswer>> answers;
  auto score = scores.begin();
  for (const size_t count : encoded.counts) {
    std::vector<TaskAnswer>& own = answers.emplace_back(rolling ? 1 : 0);
    for (size_t i = 0; i < count; ++i, ++score) {
      if (rolling)
        own[0].log_likelihood += score->log_likelihood;
      else
        own.push_back({.log_likelihood = score->log_likelihood, .is_greedy = score->is_greedy, .text = {}});
    }
  }
  COPPICE_CHECK(score == scores.end(), "a request that belongs to no document");
  return answers;
}

uint64_t num_tokens(const PreparedTask& task, const EncodedTask& encoded, int64_t max_length) {
  uint64_t tokens = 0;
  for (const ContinuationRow& row : continuation_rows(continuations_of(encoded), max_length))
    tokens += static_cast<uint64_t>(row.length);
  for (const std::vector<int64_t>& prompt : encoded.prompts) tokens += num_tokens_of(prompt, task);
  return tokens;
}

}  // namespace coppice
