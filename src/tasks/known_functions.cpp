#include "src/tasks/known_functions.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "src/base/errors.h"
#include "src/tasks/python_text.h"

namespace coppice {
namespace {

/// hellaswag/utils.py: process_docs.
Json hellaswag(const Json& document, const std::string& where) {
  Json whole = document;
  whole["query"] =
      clean_hellaswag(string_at(document, "activity_label", where) + ": " + string_at(document, "ctx_a", where) + " " +
                      capitalized(string_at(document, "ctx_b", where)));
  Json choices = Json::array();
  for (const Json& ending : array_at(document, "endings", where)) {
    if (!ending.is_string()) throw UserError::bad_file(where, "endings: expected texts");
    choices.push_back(clean_hellaswag(ending.get_ref<const std::string&>()));
  }
  whole["choices"] = std::move(choices);
  return whole;
}

/// winogrande/preprocess_winogrande.py: the options stand in the context, what follows the blank is judged.
Json winogrande(const Json& document, const std::string& where) {
  const std::string sentence = string_at(document, "sentence", where), answer = string_at(document, "answer", where);
  const size_t blank = sentence.find('_');
  if (blank == std::string::npos) throw UserError::bad_file(where, "sentence: expected a '_' where the options go");
  if (answer != "1" && answer != "2")
    throw UserError::bad_file(where, fmt::format("answer: got '{}', expected \"1\" or \"2\"", printable(answer)));
  Json whole = document;
  whole["context_of_answer"] = answer == "1" ? 0 : 1;
  whole["rest"] = strip(std::string_view(sentence).substr(blank + 1));
  whole["contexts"] = {sentence.substr(0, blank) + string_at(document, "option1", where),
                       sentence.substr(0, blank) + string_at(document, "option2", where)};
  return whole;
}

/// Our own form: what must be there, and of which type.
Json choices(const Json& document, const std::string& where) {
  (void)string_at(document, "context", where);
  for (const char* key : {"choices", "documents"}) {
    if (!document.contains(key)) continue;
    size_t i = 0;
    for (const Json& one : array_at(document, key, where)) {
      if (!one.is_string()) throw UserError::bad_file(where, fmt::format("{}[{}]: expected a string", key, i));
      ++i;
    }
  }
  (void)unsigned_at(document, "answer", where);
  if (document.contains("delimiter")) (void)string_at(document, "delimiter", where);
  return document;
}

struct Row {
  const char *key, *function,
      *dataset;  // dataset: what else the mapping must say, so that the name means this function
  ProcessDocument process;
  const char* rule;  // nullptr: the key goes
};
constexpr Row kRows[] = {
    {"process_docs", "coppice.choices", "", choices, nullptr},
    {"process_docs", "utils.process_docs", "hellaswag", hellaswag, nullptr},
    {"doc_to_text", "preprocess_winogrande.doc_to_text", "winogrande", winogrande, "context_of_answer"},
    {"doc_to_target", "preprocess_winogrande.doc_to_target", "winogrande", winogrande, "rest"},
    {"doc_to_choice", "preprocess_winogrande.doc_to_choice", "winogrande", winogrande, "contexts"},
};
constexpr std::string_view kTag = "!function ";

}  // namespace

std::string clean_hellaswag(std::string_view text) {
  static const Pattern kBrackets(R"(\[.*?\])", "hellaswag");
  return replace_all(kBrackets.remove_all(replace_all(strip(text), " [title]", ". ")), "  ", " ");
}

KnownFunctions known_functions(const Json& config, const std::string& about, const std::string& where) {
  KnownFunctions known;
  for (const auto& [key, value] : config.items()) {
    if (!value.is_string() || !value.get_ref<const std::string&>().starts_with(kTag)) continue;
    const std::string function = value.get<std::string>().substr(kTag.size());
    const Row* found = nullptr;
    for (const Row& row : kRows)
      if (key == row.key && function == row.function && lower_case(about).find(row.dataset) != std::string::npos)
        found = &row;
    if (found == nullptr)
      throw UserError::bad_file(
          where, fmt::format("{}: the Python function '{}' cannot be run here", printable(key), printable(function)));
    known.process = found->process;
    if (key == "doc_to_text") known.doc_to_text = found->rule;
    if (key == "doc_to_target") known.doc_to_target = found->rule;
    if (key == "doc_to_choice") known.doc_to_choice = found->rule;
  }
  return known;
}

}  // namespace coppice
