// What a task is, in the words of lm-evaluation-harness' task files: how a line becomes context, choices and target,
// what is asked of the model, which metrics are taken. Made from the same mapping whether it comes from a YAML file or
// from the table of known tasks (known_tasks.h).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "src/base/json.h"
#include "src/tasks/pattern.h"
#include "src/tasks/text_template.h"

namespace coppice {

enum class OutputType { loglikelihood, multiple_choice, loglikelihood_rolling, generate_until };

/// doc_to_text and its kind: a constant, the name of a field, or a template.
class DocumentRule {
 public:
  DocumentRule() = default;
  /// UserError::bad_file at `where` for a setting of another kind.
  DocumentRule(const Json& setting, const std::string& where);

  bool given() const { return !setting_.is_null(); }
  /// The value for one document: the constant, the field as it stands, or what the template gives, a list or a text;
  /// `digits_are_numbers`: such a text of digits is the number of a choice. UserError::bad_file at `where` where the
  /// document lacks what the rule needs.
  Json of(const Json& document, const std::string& where, bool digits_are_numbers = false) const;

 private:
  Json setting_;
  std::shared_ptr<const TextTemplate> text_;
};

struct MetricRule {
  std::string name;
  bool higher_is_better = true;
  // exact_match: what is taken away from answer and reference before they are compared
  bool ignore_case = false, ignore_punctuation = false, ignore_numbers = false;
  std::vector<Pattern> regexes_to_ignore;
};

/// One step of a filter on generated text.
struct FilterStep {
  enum Kind { take_first, regex, remove_whitespace } kind = take_first;
  std::optional<Pattern> pattern;  // regex
  int64_t group_select = 0;        // which match; negative: from the end
  std::string fallback = "[invalid]";
};
struct FilterRule {
  std::string name;
  std::vector<FilterStep> steps;
};

/// Fields that Python functions of the harness' own tasks add to a document.
using ProcessDocument = Json (*)(const Json& document, const std::string& where);

struct TaskDefinition {
  std::string name, alias;
  OutputType output_type = OutputType::multiple_choice;
  DocumentRule doc_to_text, doc_to_target, doc_to_choice, description;
  ProcessDocument process_document = nullptr;
  std::vector<std::string> fields;  // that every document must have
  std::string target_delimiter = " ", fewshot_delimiter = "\n\n";
  std::string delimiter_field;  // of a document that brings its own target_delimiter; empty: none does
  std::string subtask_field;    // of a document that says which subtask it belongs to, as its examples do; empty: none
  std::vector<std::string> groups;  // that the task is reported in, too, the widest first
  int64_t num_fewshot = 0;
  bool first_n = false;               // examples: the first ones; false: drawn as Python's random.Random(1234) does
  bool fewshot_is_test = false;       // a document is no example of itself
  std::vector<Json> fewshot_samples;  // examples that the task brings
  std::vector<MetricRule> metrics;
  std::vector<FilterRule> filters;  // of generate_until; others have the one filter "none"
  std::vector<std::string> until;
  int64_t max_gen_toks = 256;
  Json version;        // metadata.version, null without one
  Json group_version;  // metadata.group_version
  Json config;         // the mapping, for the results
};

/// Reads the mapping. UserError::bad_file at `where`, by the key's name, for keys, functions, metrics and filters that
/// coppice does not know, and for values that do not fit.
TaskDefinition read_definition(const Json& config, const std::string& name, const std::string& where);

/// The document with the fields of TaskDefinition::process_document. UserError::bad_file at `where` for a field that is
/// missing.
Json processed(const TaskDefinition& task, const Json& document, const std::string& where);

}  // namespace coppice
