#include "src/corpus/decontaminate/benchmark_form.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <vector>

namespace coppice {
namespace {

// Paths go through objects by dots and take an array's members one by one: `choices.text` is the list of texts both of
// {"text": [..]} and of [{"text": ..}, ..]. Several paths of a column stand in one string, with blanks between.
struct Form {
  std::string_view fields;    // that a line of this form has
  std::string_view question;  // paths, joined by a blank
  std::string_view answer;    // path: the answer itself, or which of the choices it is
  std::string_view choices;   // path of the list, or several paths; empty: the answer is a text
  std::string_view labels;    // path of the list in which the answer is looked for, in the order of the choices
  int first;                  // the number of the first choice, where the answer is a number
};

// More specific rows first. Passages of reading tests are not indexed: they are public texts of their own.
constexpr Form kForms[] = {
    {"ctx endings label", "ctx", "label", "endings", "", 0},  // HellaSwag
    {"question.stem question.choices answerKey", "question.stem", "answerKey", "question.choices.text",
     "question.choices.label", 0},  // ARC, AI2's files
    {"question_stem choices answerKey", "question_stem", "answerKey", "choices.text", "choices.label",
     0},  // OpenBookQA
    {"question choices.text answerKey", "question", "answerKey", "choices.text", "choices.label",
     0},                                                                                  // ARC, CommonsenseQA
    {"goal sol1 sol2 label", "goal", "label", "sol1 sol2", "", 0},                        // PIQA
    {"goal sol1 sol2", "goal", "", "", "", 0},                                            // PIQA, no labels
    {"sentence option1 option2 answer", "sentence", "answer", "option1 option2", "", 1},  // WinoGrande
    {"context question answerA answerB answerC", "context question", "label", "answerA answerB answerC", "",
     1},                                                                                         // SIQA
    {"premise choice1 choice2 label", "premise", "label", "choice1 choice2", "", 0},             // COPA
    {"question correct_answer distractor1", "question", "correct_answer", "", "", 0},            // SciQ
    {"question mc1_targets", "question", "=1", "mc1_targets.choices", "mc1_targets.labels", 0},  // TruthfulQA, choices
    {"question best_answer", "question", "best_answer", "", "", 0},                              // TruthfulQA
    {"Question Best_Answer", "Question", "Best_Answer", "", "", 0},                              // TruthfulQA, CSV
    {"Question Correct_Answer", "Question", "Correct_Answer", "", "", 0},                        // GPQA
    {"question options answer_index", "question", "answer_index", "options", "", 0},             // MMLU-Pro
    {"article question options answer", "question", "answer", "options", "", 0},                 // RACE
    {"question options answer", "question", "answer", "options", "", 0},
    {"question choices answer", "question", "answer", "choices", "", 0},             // MMLU
    {"context choices answer", "context", "answer", "choices", "", 0},               // a task of `eval`
    {"query choices gold", "query", "gold", "choices", "", 0},                       // AGIEval
    {"question A B C D answer", "question", "answer", "A B C D", "", 0},             // MMLU, CSV
    {"question passage answer", "question", "answer", "", "", 0},                    // BoolQ
    {"question answer.value", "question", "answer.value", "", "", 0},                // TriviaQA
    {"question answers_spans.spans", "question", "answers_spans.spans", "", "", 0},  // DROP
    {"question answers.text", "question", "answers.text", "", "", 0},                // SQuAD
    {"question answer", "question", "answer", "", "", 0},                            // GSM8K, NQ, own files
    {"problem solution", "problem", "solution", "", "", 0},                          // MATH
    {"prompt canonical_solution", "prompt", "canonical_solution", "", "", 0},        // HumanEval
    {"text code test_list", "text", "code", "", "", 0},                              // MBPP
    {"prompt code test_list", "prompt", "code", "", "", 0},                          // MBPP, sanitized
    {"input target", "input", "target", "", "", 0},                                  // BBH
    {"text", "text", "", "", "", 0},                                                 // LAMBADA, own files
};

std::vector<std::string_view> words_of(std::string_view column) {
  std::vector<std::string_view> words;
  for (size_t at = 0; at < column.size();) {
    const size_t end = std::min(column.find(' ', at), column.size());
    words.push_back(column.substr(at, end - at));
    at = end + 1;
  }
  return words;
}

/// What stands at a path; null where there is nothing. '_' of a path's name is also a blank of the line's.
Json at_path(const Json& value, std::string_view path) {
  if (path.empty()) return value;
  if (value.is_array()) {
    Json list = Json::array();
    for (const Json& member : value) list.push_back(at_path(member, path));
    return list;
  }
  if (!value.is_object()) return nullptr;
  const size_t dot = std::min(path.find('.'), path.size());
  std::string name(path.substr(0, dot));
  if (!value.contains(name)) std::ranges::replace(name, '_', ' ');
  const auto found = value.find(name);
  return found == value.end() ? Json() : at_path(*found, dot == path.size() ? "" : path.substr(dot + 1));
}

/// GSM8K's answers hold the sums that a calculator is asked for: <<48/2=24>>.
std::string without_calculations(std::string text) {
  for (size_t begin = text.find("<<"); begin != std::string::npos; begin = text.find("<<", begin)) {
    const size_t end = text.find(">>", begin);
    if (end == std::string::npos) break;
    text.erase(begin, end + 2 - begin);
  }
  return text;
}

/// A value as a text; of a list its first member.
std::string text_of(const Json& value) {
  if (value.is_string()) return without_calculations(value.get<std::string>());
  if (value.is_boolean()) return value.get<bool>() ? "yes" : "no";
  if (value.is_number()) return value.dump();
  if (value.is_array() && !value.empty()) return text_of(value.front());
  return {};
}

bool has(const Json& line, std::string_view path) {
  const Json value = at_path(line, path);
  const bool none = value.is_null() || (value.is_array() && !value.empty() && value.front().is_null());
  return !none;
}

/// Which of `count` choices a key names: by its label, a number from `first` on, or a letter from A on.
std::optional<size_t> choice_of(const Json& key, const Json& labels, size_t count, int first) {
  const std::string name = text_of(key);
  if (labels.is_array())
    for (size_t i = 0; i < labels.size(); ++i)
      if (text_of(labels[i]) == name) return i;
  size_t place = count;
  if (name.size() == 1 && name[0] >= 'A' && name[0] <= 'Z') place = static_cast<size_t>(name[0] - 'A');
  if (!name.empty() && name.size() <= 3 && std::ranges::all_of(name, [](char c) { return c >= '0' && c <= '9'; }))
    place = static_cast<size_t>(std::stoi(name) - first);  // below `first`: past every count
  return place < count ? std::optional(place) : std::nullopt;
}

std::string right_answer(const Json& line, const Form& form) {
  if (form.answer.empty()) return {};
  const Json key = form.answer.starts_with('=') ? Json(std::string(form.answer.substr(1))) : at_path(line, form.answer);
  if (form.choices.empty()) return text_of(key);
  const std::vector<std::string_view> paths = words_of(form.choices);
  Json choices = Json::array();
  for (const std::string_view path : paths) choices.push_back(at_path(line, path));
  if (paths.size() == 1) choices = Json(choices.front());
  if (!choices.is_array()) return {};
  const Json labels = form.labels.empty() ? Json() : at_path(line, form.labels);
  const std::optional<size_t> place = choice_of(key, labels, choices.size(), form.first);
  if (place) return text_of(choices[*place]);
  const std::string written = text_of(key);  // the answer itself instead of its number
  return std::ranges::any_of(choices, [&](const Json& choice) { return text_of(choice) == written; }) ? written : "";
}

}  // namespace

std::optional<BenchmarkItem> read_benchmark_item(const Json& line) {
  for (const Form& form : kForms) {
    if (!std::ranges::all_of(words_of(form.fields), [&](std::string_view path) { return has(line, path); })) continue;
    BenchmarkItem item;
    for (const std::string_view path : words_of(form.question))
      item.question += (item.question.empty() ? "" : " ") + text_of(at_path(line, path));
    const std::string answer = right_answer(line, form);
    if (answer.empty()) return item;
    const size_t gap = form.question == "sentence" ? item.question.find('_') : std::string::npos;
    item.with_answer = gap == std::string::npos ? item.question + " " + answer
                                                : item.question.substr(0, gap) + answer + item.question.substr(gap + 1);
    return item;
  }
  return std::nullopt;
}

std::string benchmark_forms() {
  std::vector<std::string> forms;
  for (const Form& form : kForms) forms.push_back(fmt::format("{}", fmt::join(words_of(form.fields), ", ")));
  return fmt::format("{}", fmt::join(forms, "; "));
}

}  // namespace coppice
