#include "src/tasks/task_requests.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <span>

#include "src/base/errors.h"
#include "src/tasks/fewshot.h"
#include "src/tasks/python_text.h"
#include "src/tasks/subtasks.h"

namespace coppice {
namespace {

constexpr uint64_t kMaxRequestBytes = uint64_t{8} << 30;

bool is_multiple_choice(const TaskDefinition& task) { return task.output_type == OutputType::multiple_choice; }

/// One document's text, target and choices.
struct Parts {
  Json text, target;  // target: a number, a text or a list of them
  std::vector<std::string> choices;
  std::string delimiter;

  bool choices_are_contexts() const { return !text.is_string(); }
};

std::vector<std::string> read_choices(const TaskDefinition& task, const Json& document, const std::string& where) {
  const Json list = task.doc_to_choice.of(document, where);
  if (!list.is_array()) throw UserError::bad_file(where, "choices: expected a list");
  std::vector<std::string> choices;
  for (const Json& one : list) choices.push_back(text_of(one, where));
  if (choices.size() < 2)
    throw UserError::bad_file(where, fmt::format("choices: got {}, expected at least 2", choices.size()));
  for (size_t i = 0; i < choices.size(); ++i)
    if (choices[i].empty()) throw UserError::bad_file(where, fmt::format("choices[{}]: is empty", i));
  return choices;
}

Parts read_parts(const TaskDefinition& task, const Json& document, const std::string& where) {
  Parts parts{.text = task.doc_to_text.of(document, where, is_multiple_choice(task)),
              .target = task.doc_to_target.of(document, where, is_multiple_choice(task)),
              .choices = {},
              .delimiter = task.target_delimiter};
  if (is_multiple_choice(task)) parts.choices = read_choices(task, document, where);
  const bool number_fits = is_multiple_choice(task) && parts.text.is_number_integer();
  if (!parts.text.is_string() && !number_fits)
    throw UserError::bad_file(where, "doc_to_text gives neither a text nor the number of a choice");
  if (!task.delimiter_field.empty() && document.contains(task.delimiter_field))
    parts.delimiter = string_at(document, task.delimiter_field.c_str(), where);
  return parts;
}

size_t choice_number(const Json& value, const Parts& parts, const std::string& where) {
  if (value.is_number_integer()) {
    if (value >= 0 && value < parts.choices.size()) return value.get<size_t>();
    throw UserError::bad_file(where, fmt::format("answer: got {}, expected the number of a choice, 0 to {}",
                                                 value.dump(), parts.choices.size() - 1));
  }
  const std::string text = text_of(value, where);
  const auto found = std::ranges::find(parts.choices, text);
  if (found == parts.choices.end())
    throw UserError::bad_file(where, fmt::format("answer: got '{}', which is none of the choices{}", printable(text),
                                                 text.empty() ? ": this split has no answers" : ""));
  return static_cast<size_t>(found - parts.choices.begin());
}

/// The text of a target that is to be written, or the first of several.
std::string target_text(const Json& target, const std::string& where) {
  if (target.is_array()) return target.empty() ? std::string() : text_of(target[0], where);
  return text_of(target, where);
}

std::string example_text(const TaskDefinition& task, const Json& document, const std::string& where) {
  const Parts parts = read_parts(task, document, where);
  if (parts.choices_are_contexts())
    return parts.choices.at(choice_number(parts.text, parts, where)) + parts.delimiter +
           target_text(parts.target, where) + task.fewshot_delimiter;
  const Json& first = parts.target.is_array() && !parts.target.empty() ? parts.target[0] : parts.target;
  const std::string answer = is_multiple_choice(task) && first.is_number_integer()
                                 ? parts.choices.at(choice_number(first, parts, where))
                                 : target_text(parts.target, where);
  const auto& question = parts.text.get_ref<const std::string&>();
  return answer.empty() ? question : question + parts.delimiter + answer + task.fewshot_delimiter;
}

void add_choices(TaskDocument& item, const Parts& parts, const std::string& before) {
  item.choices = parts.choices;
  if (parts.choices_are_contexts()) {
    item.gold = {choice_number(parts.text, parts, item.where)};
    const std::string rest = parts.delimiter + target_text(parts.target, item.where);
    for (const std::string& choice : parts.choices) item.requests.push_back({before + choice, rest});
    return;
  }
  for (const Json& right : parts.target.is_array() ? parts.target : Json::array({parts.target}))
    item.gold.push_back(choice_number(right, parts, item.where));
  if (item.gold.empty()) throw UserError::bad_file(item.where, "answer: an empty list");
  const std::string context = before + parts.text.get_ref<const std::string&>();
  for (const std::string& choice : parts.choices) item.requests.push_back({context, parts.delimiter + choice});
}

TaskDocument make_document(const TaskDefinition& task, TaskLine line, FewshotExamples& examples) {
  const Json document = processed(task, line.document, line.where);
  TaskDocument item{.document = {}, .where = std::move(line.where), .requests = {}, .target = {}};
  if (task.output_type == OutputType::loglikelihood_rolling) {
    item.target = task.doc_to_target.of(document, item.where);
    item.requests = {{"", text_of(item.target, item.where)}};
    item.document = document;
    return item;
  }
  std::string before = task.description.given() ? text_of(task.description.of(document, item.where), item.where) : "";
  for (const Json* example : examples.choose(document))
    before += example_text(task, *example, fmt::format("{} (as an example of the task)", item.where));
  const Parts parts = read_parts(task, document, item.where);
  item.target = parts.target;
  if (is_multiple_choice(task)) {
    add_choices(item, parts, before);
  } else if (task.output_type == OutputType::loglikelihood) {
    item.requests = {{before + parts.text.get<std::string>(), target_text(parts.target, item.where)}};
    if (item.requests[0].continuation.empty())
      throw UserError::bad_file(item.where, "doc_to_target gives an empty text");
  } else {
    item.requests = {{before + parts.text.get<std::string>(), ""}};
    for (const Json& right : parts.target.is_array() ? parts.target : Json::array({parts.target}))
      item.references.push_back(text_of(right, item.where));
  }
  item.document = document;
  return item;
}

std::vector<Json> read_pool(const TaskFile& file, const TaskDefinition& task) {
  std::vector<Json> pool = task.fewshot_samples;
  if (task.num_fewshot == 0 || !pool.empty()) return pool;
  if (file.fewshot.empty())
    throw UserError::recipe("--fewshot", fmt::format("task '{}' shows {} examples before each question; name the file "
                                                     "they come from, {}=FILE.jsonl, or give --num-fewshot 0",
                                                     task.name, task.num_fewshot, task.name));
  for (const TaskLine& line : read_task_lines(file.fewshot)) pool.push_back(processed(task, line.document, line.where));
  return pool;
}

/// `bytes`: of all requests of the file so far.
PreparedTask prepare_part(Subtask part, std::span<const Json> pool, const std::string& pool_name, int64_t limit,
                          uint64_t& bytes) {
  PreparedTask prepared{.definition = std::move(part.definition), .documents_in_file = std::ssize(part.lines)};
  FewshotExamples examples(prepared.definition, pool, pool_name);
  if (limit > 0 && limit < std::ssize(part.lines)) part.lines.resize(static_cast<size_t>(limit));
  for (TaskLine& line : part.lines) {
    const TaskDocument& item =
        prepared.documents.emplace_back(make_document(prepared.definition, std::move(line), examples));
    for (const TaskRequest& request : item.requests) bytes += request.context.size() + request.continuation.size();
    if (bytes > kMaxRequestBytes)
      throw UserError::bad_file(item.where,
                                "more than 8 GiB of text to ask about; ask for fewer examples or documents");
  }
  return prepared;
}

std::vector<PreparedTask> prepare(const TaskFile& file, const TaskOptions& options, bool split) {
  Subtask whole{.definition = file.definition, .lines = {}};
  TaskDefinition& task = whole.definition;
  task.num_fewshot = options.num_fewshot.value_or(task.num_fewshot);
  if (task.output_type == OutputType::loglikelihood_rolling) task.num_fewshot = 0;
  const std::vector<Json> pool = read_pool(file, task);
  const std::string pool_name = file.fewshot.empty() ? task.name : file.fewshot.string();
  whole.lines = file.corpus ? read_text_lines(file.data) : read_task_lines(file.data);
  std::vector<Subtask> parts;
  if (split)
    parts = split_task(std::move(whole));
  else
    parts.push_back(std::move(whole));
  std::vector<PreparedTask> prepared;
  uint64_t bytes = 0;
  for (Subtask& part : parts) prepared.push_back(prepare_part(std::move(part), pool, pool_name, options.limit, bytes));
  return prepared;
}

}  // namespace

PreparedTask prepare_task(const TaskFile& file, const TaskOptions& options) {
  return std::move(prepare(file, options, /*split=*/false).front());
}

std::vector<PreparedTask> prepare_subtasks(const TaskFile& file, const TaskOptions& options) {
  return prepare(file, options, /*split=*/true);
}

}  // namespace coppice
