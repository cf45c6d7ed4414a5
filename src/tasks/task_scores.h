// Metrics of lm-evaluation-harness 0.4 from a model's answers.
//   acc: the choice with the highest log-likelihood (the first of equals) is right; acc_norm and acc_bytes: the same
//   with each divided by the choice's code points or bytes; acc of a single continuation: it is what greedy decoding
//   says. perplexity exp(-mean ll); word_ and byte_perplexity exp(-sum ll / sum of words or bytes), bits_per_byte that
//   logarithm / ln 2. exact_match after filters. Standard error of a mean: sample standard deviation / sqrt(n); of
//   perplexity: by resampling the documents.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "src/base/json.h"
#include "src/tasks/task_requests.h"

namespace coppice {

/// What a model says to one request.
struct TaskAnswer {
  double log_likelihood = 0;  // of the continuation, in nats
  bool is_greedy = false;     // every token of it is the most probable one
  std::string text;           // generate_until
};

struct TaskMetric {
  std::string name, filter;
  bool higher_is_better = true;
  double value = 0;
  std::optional<double> standard_error;  // none for one document, and for perplexities of a whole text
  bool is_mean = false;                  // over the documents
};

struct TaskScore {
  std::vector<TaskMetric> metrics;  // filter by filter, in the task's order
  std::vector<Json> samples;        // a line a document and filter, as the harness logs them; with_samples alone
};

/// `answers`: of every document, one a request. UserError::bad_file when a regular expression needs too many steps.
TaskScore score_task(const PreparedTask& task, const std::vector<std::vector<TaskAnswer>>& answers,
                     bool with_samples = false);

/// The text that a filter leaves of an answer.
std::string filtered(const FilterRule& filter, const std::string& text);
/// exact_match of one answer with one reference.
bool matches_exactly(const MetricRule& metric, std::string answer, std::string reference);

}  // namespace coppice
