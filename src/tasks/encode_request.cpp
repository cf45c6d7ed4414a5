#include "src/tasks/encode_request.h"

#include <fmt/format.h>

#include <algorithm>

#include "src/base/errors.h"
#include "src/tasks/python_text.h"

namespace coppice {
namespace {

int64_t prefix_token(const Tokenizer& tokenizer) { return tokenizer.bos_id().value_or(tokenizer.eos_id()); }

std::vector<int64_t> ids_of(const Tokenizer& tokenizer, std::string_view text, bool add_bos) {
  std::vector<int64_t> ids;
  if (add_bos && tokenizer.bos_id()) ids.push_back(*tokenizer.bos_id());
  for (const int32_t id : tokenizer.encode(text)) ids.push_back(id);
  return ids;
}

}  // namespace

EncodedRequest encode_request(const Tokenizer& tokenizer, const TaskRequest& request, bool add_bos,
                              const std::string& where) {
  const std::string_view words = strip_right(request.context);
  const bool bos = add_bos && !words.empty();
  const std::vector<int64_t> whole = ids_of(tokenizer, request.context + request.continuation, bos);
  EncodedRequest encoded{.context = ids_of(tokenizer, words, bos), .continuation = {}};
  const auto own = static_cast<std::ptrdiff_t>(std::min(encoded.context.size(), whole.size()));
  encoded.continuation.assign(whole.begin() + own, whole.end());
  if (encoded.context.empty()) {
    encoded.context = {prefix_token(tokenizer)};
    if (!encoded.continuation.empty() && encoded.continuation.front() == encoded.context.front())
      encoded.continuation.erase(encoded.continuation.begin());  // a text that brings its own
  }
  if (encoded.continuation.empty())
    throw UserError::bad_file(where, fmt::format("the continuation '{}' adds no token of its own to the context; give "
                                                 "the item a delimiter",
                                                 printable(request.continuation)));
  return encoded;
}

std::vector<EncodedRequest> rolling_windows(const Tokenizer& tokenizer, std::string_view text, bool add_bos,
                                            int64_t max_length) {
  const std::vector<int64_t> ids = ids_of(tokenizer, text, add_bos);
  const auto size = std::ssize(ids);
  std::vector<EncodedRequest> windows;
  for (int64_t judged = 0; judged < size;) {
    const int64_t end = std::min(judged + max_length, size);
    EncodedRequest window{.context = {}, .continuation = {ids.begin() + judged, ids.begin() + end}};
    // before the first judged token: the prefix, or as much as fits beside the judged ones
    if (judged == 0)
      window.context = {prefix_token(tokenizer)};
    else
      window.context = {ids.begin() + (end - max_length - 1), ids.begin() + judged};
    windows.push_back(std::move(window));
    judged = end;
  }
  return windows;
}

std::vector<int64_t> encode_prompt(const Tokenizer& tokenizer, std::string_view context, bool add_bos,
                                   int64_t max_length, int64_t new_tokens) {
  std::vector<int64_t> ids = ids_of(tokenizer, context, add_bos);
  if (ids.empty()) ids = {prefix_token(tokenizer)};
  const int64_t room = std::max<int64_t>(max_length - new_tokens, 1);
  if (std::ssize(ids) > room) ids.erase(ids.begin(), ids.end() - room);
  return ids;
}

EncodedTask encode_task(const Tokenizer& tokenizer, const PreparedTask& task, bool add_bos, int64_t max_length) {
  const TaskDefinition& definition = task.definition;
  EncodedTask encoded;
  if (definition.output_type == OutputType::generate_until) {
    if (definition.max_gen_toks >= max_length)
      throw UserError::recipe(
          "--tasks", fmt::format("task '{}' writes {} tokens, and the model knows {} positions: no room for the "
                                 "question (generation_kwargs.max_gen_toks of a task file)",
                                 printable(definition.name), definition.max_gen_toks, max_length));
    for (const TaskDocument& document : task.documents)
      encoded.prompts.push_back(
          encode_prompt(tokenizer, document.requests[0].context, add_bos, max_length, definition.max_gen_toks));
    return encoded;
  }
  for (const TaskDocument& document : task.documents) {
    const size_t before = encoded.requests.size();
    if (definition.output_type == OutputType::loglikelihood_rolling) {
      for (EncodedRequest& window : rolling_windows(tokenizer, document.requests[0].continuation, add_bos, max_length))
        encoded.requests.push_back(std::move(window));
    } else {
      for (size_t i = 0; i < document.requests.size(); ++i) {
        const std::string where =
            document.choices.empty() ? document.where : fmt::format("{}: choices[{}]", document.where, i);
        EncodedRequest request = encode_request(tokenizer, document.requests[i], add_bos, where);
        if (std::ssize(request.continuation) > max_length)
          throw UserError::bad_file(where,
                                    fmt::format("is {} tokens long, and a model that is evaluated knows {} positions",
                                                request.continuation.size(), max_length));
        encoded.requests.push_back(std::move(request));
      }
    }
    encoded.counts.push_back(encoded.requests.size() - before);
  }
  return encoded;
}

}  // namespace coppice
