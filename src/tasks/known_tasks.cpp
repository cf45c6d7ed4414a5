#include "src/tasks/known_tasks.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "src/base/errors.h"
#include "src/tasks/pattern.h"

namespace coppice {
namespace {

struct Row {
  const char* name;
  std::array<const char*, 6> fields;  // that every line has, more specific rows first
  const char* file_part;              // of the file's name, where the fields alone say too little
  const char* config;
};

constexpr const char* kLambada = R"js({
  "output_type": "loglikelihood",
  "doc_to_text": "{{text.split(' ')[:-1]|join(' ')}}", "doc_to_target": "{{' '+text.split(' ')[-1]}}",
  "test_split": "test", "metadata": {"version": 1.0}})js";
constexpr const char* kArc = R"js({
  "output_type": "multiple_choice",
  "doc_to_text": "Question: {{question}}\nAnswer:", "doc_to_target": "{{choices.label.index(answerKey)}}",
  "doc_to_choice": "{{choices.text}}", "test_split": "test", "metadata": {"version": 1.0}})js";

constexpr Row kRows[] = {
    {"choices", {"context", "choices", "answer"}, "", R"js({
       "output_type": "multiple_choice", "process_docs": "!function coppice.choices",
       "doc_to_text": "context", "doc_to_choice": "choices", "doc_to_target": "answer", "delimiter_field": "delimiter",
       "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}, {"metric": "acc_bytes"}]})js"},
    {"hellaswag", {"activity_label", "ctx_a", "ctx_b", "endings", "label"}, "", R"js({
       "output_type": "multiple_choice", "process_docs": "!function utils.process_docs",
       "doc_to_text": "{{query}}", "doc_to_target": "{{label}}", "doc_to_choice": "choices",
       "metadata": {"version": 1.0}})js"},
    {"arc_challenge", {"question", "choices", "answerKey"}, "challenge", kArc},
    {"arc_easy", {"question", "choices", "answerKey"}, "", kArc},
    {"piqa", {"goal", "sol1", "sol2", "label"}, "", R"js({
       "output_type": "multiple_choice",
       "doc_to_text": "Question: {{goal}}\nAnswer:", "doc_to_target": "label", "doc_to_choice": "{{[sol1, sol2]}}",
       "metadata": {"version": 1.0}})js"},
    {"winogrande", {"sentence", "option1", "option2", "answer"}, "", R"js({
       "output_type": "multiple_choice", "doc_to_text": "!function preprocess_winogrande.doc_to_text",
       "doc_to_target": "!function preprocess_winogrande.doc_to_target",
       "doc_to_choice": "!function preprocess_winogrande.doc_to_choice",
       "metric_list": [{"metric": "acc"}], "metadata": {"version": 1.0}})js"},
    {"sciq", {"support", "question", "distractor1", "distractor2", "distractor3", "correct_answer"}, "", R"js({
       "output_type": "multiple_choice",
       "doc_to_text": "{{support.lstrip()}}\nQuestion: {{question}}\nAnswer:", "doc_to_target": 3,
       "doc_to_choice": "{{[distractor1, distractor2, distractor3, correct_answer]}}", "test_split": "test",
       "metadata": {"version": 1.0}})js"},
    {"mmlu", {"question", "choices", "answer"}, "", R"js({
       "output_type": "multiple_choice",
       "description": "{{'The following are multiple choice questions (with answers) about ' + subject | replace('_', ' ') + '.\n\n' if subject is defined else ''}}",
       "doc_to_text": "{{question.strip()}}\nA. {{choices[0]}}\nB. {{choices[1]}}\nC. {{choices[2]}}\nD. {{choices[3]}}\nAnswer:",
       "doc_to_choice": ["A", "B", "C", "D"], "doc_to_target": "answer",
       "fewshot_split": "dev", "test_split": "test", "fewshot_config": {"sampler": "first_n"},
       "subtask_field": "subject",
       "metric_list": [{"metric": "acc"}], "metadata": {"version": 1.0, "group_version": 2}})js"},
    {"gsm8k", {"question", "answer"}, "", R"js({
       "output_type": "generate_until", "doc_to_text": "Question: {{question}}\nAnswer:", "doc_to_target": "{{answer}}",
       "metric_list": [{"metric": "exact_match", "ignore_case": true, "ignore_punctuation": false,
                        "regexes_to_ignore": [",", "\\$", "(?s).*#### ", "\\.$"]}],
       "generation_kwargs": {"until": ["Question:", "</s>", "<|im_end|>"], "do_sample": false, "temperature": 0.0},
       "filter_list": [
         {"name": "strict-match", "filter": [
           {"function": "regex", "regex_pattern": "#### (\\-?[0-9\\.\\,]+)"}, {"function": "take_first"}]},
         {"name": "flexible-extract", "filter": [
           {"function": "regex", "group_select": -1, "regex_pattern": "(-?[$0-9.,]{2,})|(-?[0-9]+)"},
           {"function": "take_first"}]}],
       "num_fewshot": 5, "fewshot_split": "train", "test_split": "test", "metadata": {"version": 3.0}})js"},
    {"lambada_standard", {"text"}, "lambada_standard", kLambada},
    {"lambada_openai", {"text"}, "lambada", kLambada},
    {"ppl", {"text"}, "", R"js({
       "output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{text}}"})js"},
};

const Row* row_of(std::string_view name) {
  const auto* row = std::ranges::find(kRows, name, &Row::name);
  return row == std::end(kRows) ? nullptr : row;
}

}  // namespace

std::vector<std::string> known_task_names() {
  std::vector<std::string> names;
  for (const Row& row : kRows) names.emplace_back(row.name);
  return names;
}

bool is_known_task(std::string_view name) { return row_of(name) != nullptr; }

TaskDefinition known_task(std::string_view name) {
  const Row* row = row_of(name);
  COPPICE_CHECK(row != nullptr, "no task of this name");
  TaskDefinition task = read_definition(Json::parse(row->config), row->name, row->name);
  for (const char* field : row->fields)
    if (field != nullptr) task.fields.emplace_back(field);
  return task;
}

std::string recognised_task(const Json& document, std::string_view file_name) {
  const std::string file = lower_case(file_name);
  for (const Row& row : kRows)
    if (file.find(row.file_part) != std::string::npos && std::ranges::all_of(row.fields, [&](const char* field) {
          return field == nullptr || document.contains(field);
        }))
      return row.name;
  return {};
}

}  // namespace coppice
