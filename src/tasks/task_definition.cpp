#include "src/tasks/task_definition.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <span>

#include "src/base/errors.h"
#include "src/tasks/known_functions.h"
#include "src/tasks/python_text.h"

namespace coppice {
namespace {

constexpr int64_t kMaxGenToks = 1 << 16, kMaxFewshot = 1024;

struct OutputRow {
  const char* name;
  OutputType type;
};
constexpr OutputRow kOutputTypes[] = {{"loglikelihood", OutputType::loglikelihood},
                                      {"multiple_choice", OutputType::multiple_choice},
                                      {"loglikelihood_rolling", OutputType::loglikelihood_rolling},
                                      {"generate_until", OutputType::generate_until}};

struct MetricRow {
  const char* name;
  OutputType type;
  const char* aggregation;
  bool higher_is_better, by_default;
};
constexpr MetricRow kMetrics[] = {
    {"perplexity", OutputType::loglikelihood, "perplexity", false, true},
    {"acc", OutputType::loglikelihood, "mean", true, true},
    {"acc", OutputType::multiple_choice, "mean", true, true},
    {"acc_norm", OutputType::multiple_choice, "mean", true, true},
    {"acc_bytes", OutputType::multiple_choice, "mean", true, false},
    {"word_perplexity", OutputType::loglikelihood_rolling, "weighted_perplexity", false, true},
    {"byte_perplexity", OutputType::loglikelihood_rolling, "weighted_perplexity", false, true},
    {"bits_per_byte", OutputType::loglikelihood_rolling, "bits_per_byte", false, true},
    {"exact_match", OutputType::generate_until, "mean", true, true},
};

// Of a task file. The second half says nothing about what is asked or how it is scored.
constexpr const char* kKeys[] = {"task",
                                 "task_alias",
                                 "output_type",
                                 "process_docs",
                                 "doc_to_text",
                                 "doc_to_target",
                                 "doc_to_choice",
                                 "description",
                                 "target_delimiter",
                                 "fewshot_delimiter",
                                 "fewshot_config",
                                 "num_fewshot",
                                 "metric_list",
                                 "generation_kwargs",
                                 "filter_list",
                                 "repeats",
                                 "metadata",
                                 "test_split",
                                 "fewshot_split",
                                 "delimiter_field",
                                 "subtask_field",  //
                                 "tag",
                                 "dataset_path",
                                 "dataset_name",
                                 "dataset_kwargs",
                                 "training_split",
                                 "validation_split",
                                 "should_decontaminate",
                                 "doc_to_decontamination_query"};

/// Reads one mapping: every access says whose key it is.
class Fields {
 public:
  Fields(const Json& object, std::string path, const std::string& where)
      : object_(object), path_(std::move(path)), where_(where) {
    if (!object.is_object()) throw UserError::bad_file(where, fmt::format("{}: expected a mapping", path_));
  }

  [[noreturn]] void refuse(const std::string& key, const std::string& message) const {
    throw UserError::bad_file(where_, fmt::format("{}{}: {}", path_, printable(key), message));
  }
  void check_keys(std::span<const char* const> known, const char* hint) const {
    for (const auto& [key, value] : object_.items())
      if (std::ranges::find(known, std::string_view(key)) == known.end()) refuse(key, hint);
  }
  bool has(const char* key) const { return object_.contains(key) && !object_.at(key).is_null(); }
  const Json& at(const char* key) const {
    static const Json kNone;
    return has(key) ? object_.at(key) : kNone;
  }
  std::string text(const char* key, const std::string& otherwise) const {
    if (!has(key)) return otherwise;
    if (!at(key).is_string()) refuse(key, "expected a text");
    return at(key).get<std::string>();
  }
  bool truth(const char* key, bool otherwise) const {
    if (!has(key)) return otherwise;
    if (!at(key).is_boolean()) refuse(key, "expected true or false");
    return at(key).get<bool>();
  }
  int64_t whole(const char* key, int64_t otherwise, int64_t least, int64_t most) const {
    if (!has(key)) return otherwise;
    if (!at(key).is_number_integer() || at(key) < least || at(key) > most)
      refuse(key, fmt::format("expected a whole number, {} to {}", least, most));
    return at(key).get<int64_t>();
  }
  /// A list of texts, or one text for a list of one.
  std::vector<std::string> texts(const char* key) const {
    std::vector<std::string> found;
    if (at(key).is_object()) refuse(key, "expected a list of texts");
    for (const Json& one : at(key).is_string() ? Json::array({at(key)}) : at(key)) {
      if (!one.is_string()) refuse(key, "expected a list of texts");
      found.push_back(one.get<std::string>());
    }
    return found;
  }
  const Json& list(const char* key) const {
    if (!at(key).is_array() || at(key).empty()) refuse(key, "expected a list");
    return at(key);
  }
  const std::string& where() const { return where_; }

 private:
  const Json& object_;
  std::string path_;
  const std::string& where_;
};

void read_metrics(TaskDefinition& task, const Fields& fields) {
  if (!fields.has("metric_list")) {
    for (const MetricRow& row : kMetrics)
      if (row.type == task.output_type && row.by_default)
        task.metrics.push_back({.name = row.name, .higher_is_better = row.higher_is_better});
    return;
  }
  for (const Json& one : fields.list("metric_list")) {
    const Fields metric(one, "metric_list.", fields.where());
    constexpr const char* kOwn[] = {"metric",           "aggregation",        "higher_is_better",
                                    "ignore_case",      "ignore_punctuation", "ignore_numbers",
                                    "regexes_to_ignore"};
    metric.check_keys(kOwn, "is not known");
    const std::string name = metric.text("metric", "");
    const auto* row = std::ranges::find_if(
        kMetrics, [&](const MetricRow& known) { return known.name == name && known.type == task.output_type; });
    if (row == std::end(kMetrics))
      metric.refuse("metric", fmt::format("'{}' is not known for this output_type", printable(name)));
    if (metric.text("aggregation", row->aggregation) != row->aggregation)
      metric.refuse("aggregation", fmt::format("of '{}' is '{}' here", name, row->aggregation));
    if (std::ranges::find(task.metrics, name, &MetricRule::name) != task.metrics.end())
      metric.refuse("metric", fmt::format("'{}' twice", name));
    MetricRule rule{.name = name,
                    .higher_is_better = metric.truth("higher_is_better", row->higher_is_better),
                    .ignore_case = metric.truth("ignore_case", false),
                    .ignore_punctuation = metric.truth("ignore_punctuation", false),
                    .ignore_numbers = metric.truth("ignore_numbers", false),
                    .regexes_to_ignore = {}};
    for (const std::string& expression : metric.texts("regexes_to_ignore"))
      rule.regexes_to_ignore.emplace_back(expression, fields.where());
    task.metrics.push_back(std::move(rule));
  }
}

FilterStep read_step(const Json& json, const std::string& where) {
  const Fields fields(json, "filter_list.filter.", where);
  const std::string function = fields.text("function", "");
  FilterStep step;
  if (function == "take_first" || function == "remove_whitespace") {
    constexpr const char* kOwn[] = {"function"};
    fields.check_keys(kOwn, "is not known");
    step.kind = function == "take_first" ? FilterStep::take_first : FilterStep::remove_whitespace;
    return step;
  }
  if (function != "regex") fields.refuse("function", fmt::format("'{}' is not known", printable(function)));
  constexpr const char* kOwn[] = {"function", "regex_pattern", "group_select", "fallback"};
  fields.check_keys(kOwn, "is not known");
  step.kind = FilterStep::regex;
  step.pattern.emplace(fields.text("regex_pattern", R"(#### (\-?[0-9\.\,]+))"), where);
  step.group_select = fields.whole("group_select", 0, -1000, 1000);
  step.fallback = fields.text("fallback", step.fallback);
  return step;
}

void read_filters(TaskDefinition& task, const Fields& fields) {
  if (!fields.has("filter_list")) {
    task.filters = {{.name = "none", .steps = std::vector<FilterStep>(1)}};  // take_first
    return;
  }
  if (task.output_type != OutputType::generate_until)
    fields.refuse("filter_list", "is known for output_type generate_until alone");
  for (const Json& one : fields.list("filter_list")) {
    const Fields filter(one, "filter_list.", fields.where());
    constexpr const char* kOwn[] = {"name", "filter"};
    filter.check_keys(kOwn, "is not known");
    FilterRule rule{.name = filter.text("name", ""), .steps = {}};
    if (rule.name.empty() || std::ranges::find(task.filters, rule.name, &FilterRule::name) != task.filters.end())
      filter.refuse("name", "expected a name of its own for each filter");
    for (const Json& step : filter.list("filter")) rule.steps.push_back(read_step(step, fields.where()));
    task.filters.push_back(std::move(rule));
  }
}

void read_generation(TaskDefinition& task, const Fields& fields) {
  if (!fields.has("generation_kwargs")) {
    task.until = {task.fewshot_delimiter};
    return;
  }
  const Fields generation(fields.at("generation_kwargs"), "generation_kwargs.", fields.where());
  constexpr const char* kOwn[] = {"until", "do_sample", "temperature", "max_gen_toks"};
  generation.check_keys(kOwn, "is not known");
  if (generation.truth("do_sample", false)) generation.refuse("do_sample", "answers are generated greedily");
  if (generation.has("temperature") && generation.at("temperature") != 0)
    generation.refuse("temperature", "answers are generated greedily: expected 0");
  task.until = generation.has("until") ? generation.texts("until") : std::vector{task.fewshot_delimiter};
  task.max_gen_toks = generation.whole("max_gen_toks", task.max_gen_toks, 1, kMaxGenToks);
}

void read_fewshot(TaskDefinition& task, const Fields& fields) {
  task.num_fewshot = fields.whole("num_fewshot", 0, 0, kMaxFewshot);
  task.fewshot_is_test = fields.at("fewshot_split") == fields.at("test_split");
  if (!fields.has("fewshot_config")) return;
  const Fields fewshot(fields.at("fewshot_config"), "fewshot_config.", fields.where());
  constexpr const char* kOwn[] = {"sampler", "samples"};
  fewshot.check_keys(kOwn, "is not known");
  const std::string sampler = fewshot.text("sampler", "default");
  if (sampler != "default" && sampler != "first_n")
    fewshot.refuse("sampler", fmt::format("'{}' is not known: 'default' and 'first_n' are", printable(sampler)));
  task.first_n = sampler == "first_n";
  if (!fewshot.has("samples")) return;
  for (const Json& sample : fewshot.list("samples")) {
    if (!sample.is_object()) fewshot.refuse("samples", "expected mappings");
    task.fewshot_samples.push_back(sample);
  }
}

}  // namespace

DocumentRule::DocumentRule(const Json& setting, const std::string& where) : setting_(setting) {
  const bool list_of_texts =
      setting.is_array() && std::ranges::all_of(setting, [](const Json& one) { return one.is_string(); });
  if (setting.is_string())
    text_ = std::make_shared<const TextTemplate>(setting.get_ref<const std::string&>(), where);
  else if (!setting.is_null() && !setting.is_number_integer() && !list_of_texts)
    throw UserError::bad_file(where, "a rule is a field's name, a template, a whole number or a list of texts");
}

Json DocumentRule::of(const Json& document, const std::string& where, bool digits_are_numbers) const {
  if (!text_) return setting_;
  const auto& name = setting_.get_ref<const std::string&>();
  if (document.contains(name)) return document.at(name);
  Json value = text_->value(document, where);
  if (value.is_array()) return value;
  std::string text = text_of(value, where);
  if (digits_are_numbers && is_digits(text) && text.size() <= 9) return std::stoll(text);
  return text;
}

TaskDefinition read_definition(const Json& config, const std::string& name, const std::string& where) {
  const Fields fields(config, "", where);
  fields.check_keys(kKeys, "this key of a task file is not known");
  TaskDefinition task{.name = fields.text("task", name), .config = config};
  task.alias = fields.text("task_alias", task.name);
  const std::string output_type = fields.text("output_type", "generate_until");
  const auto* type = std::ranges::find_if(kOutputTypes, [&](const OutputRow& row) { return row.name == output_type; });
  if (type == std::end(kOutputTypes))
    fields.refuse("output_type", fmt::format("'{}' is not known", printable(output_type)));
  task.output_type = type->type;
  const KnownFunctions functions = known_functions(config, fields.text("dataset_path", "") + " " + task.name, where);
  task.process_document = functions.process;
  const auto rule = [&](const char* key, const Json& instead) {
    return DocumentRule(instead.is_null() ? fields.at(key) : instead, fmt::format("{}: {}", where, key));
  };
  task.doc_to_text = rule("doc_to_text", functions.doc_to_text);
  task.doc_to_target = rule("doc_to_target", functions.doc_to_target);
  task.doc_to_choice = rule("doc_to_choice", functions.doc_to_choice);
  task.description = rule("description", {});
  if (!task.doc_to_text.given()) fields.refuse("doc_to_text", "is missing");
  if (!task.doc_to_target.given()) fields.refuse("doc_to_target", "is missing");
  if (task.doc_to_choice.given() != (task.output_type == OutputType::multiple_choice))
    fields.refuse("doc_to_choice", "belongs to output_type multiple_choice, and only there");
  task.target_delimiter = fields.text("target_delimiter", task.target_delimiter);
  task.fewshot_delimiter = fields.text("fewshot_delimiter", task.fewshot_delimiter);
  task.delimiter_field = fields.text("delimiter_field", "");
  task.subtask_field = fields.text("subtask_field", "");
  if (fields.whole("repeats", 1, 1, 1000) != 1)
    fields.refuse("repeats", "expected 1: greedy answers repeat themselves");
  if (const Json& metadata = fields.at("metadata"); metadata.is_object()) {
    task.version = metadata.value("version", Json());
    task.group_version = metadata.value("group_version", Json());
  }
  read_metrics(task, fields);
  read_filters(task, fields);
  read_generation(task, fields);
  read_fewshot(task, fields);
  return task;
}

Json processed(const TaskDefinition& task, const Json& document, const std::string& where) {
  for (const std::string& field : task.fields)
    if (!document.contains(field))
      throw UserError::bad_file(where, fmt::format("no field '{}', which task '{}' needs", field, task.name));
  return task.process_document == nullptr ? document : task.process_document(document, where);
}

}  // namespace coppice
