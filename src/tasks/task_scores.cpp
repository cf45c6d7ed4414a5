#include "src/tasks/task_scores.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>
#include <numeric>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/tasks/python_random.h"
#include "src/tasks/python_text.h"
#include "src/text/text_encoding.h"

namespace coppice {
namespace {

constexpr std::string_view kPunctuation = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", kDigits = "0123456789";

/// A document's contribution to a metric: a value, and what it is weighed with.
struct Share {
  double value = 0, weight = 1;
};

size_t best_choice(std::span<const TaskAnswer> answers, const std::function<double(size_t)>& length) {
  size_t best = 0;
  const auto score = [&](size_t i) { return answers[i].log_likelihood / length(i); };
  for (size_t i = 1; i < answers.size(); ++i)
    if (score(i) > score(best)) best = i;
  return best;
}

Share share_of(const MetricRule& metric, const TaskDocument& document, std::span<const TaskAnswer> answers,
               const std::string& text) {
  const auto right = [&](const std::function<double(size_t)>& length) {
    return Share{std::ranges::count(document.gold, best_choice(answers, length)) > 0 ? 1.0 : 0.0};
  };
  const double log_likelihood = answers[0].log_likelihood;
  if (metric.name == "acc" && document.choices.empty()) return {answers[0].is_greedy ? 1.0 : 0.0};
  if (metric.name == "acc") return right([](size_t) { return 1.0; });
  if (metric.name == "acc_norm")
    return right([&](size_t i) { return static_cast<double>(count_code_points(document.choices[i])); });
  if (metric.name == "acc_bytes")
    return right([&](size_t i) { return static_cast<double>(document.choices[i].size()); });
  if (metric.name == "perplexity") return {log_likelihood};
  if (metric.name == "word_perplexity")
    return {log_likelihood, static_cast<double>(count_words(document.requests[0].continuation))};
  if (metric.name == "byte_perplexity" || metric.name == "bits_per_byte")
    return {log_likelihood, static_cast<double>(document.requests[0].continuation.size())};
  COPPICE_CHECK(metric.name == "exact_match", metric.name);
  return {std::ranges::any_of(document.references,
                              [&](const std::string& right) { return matches_exactly(metric, text, right); })
              ? 1.0
              : 0.0};
}

/// The standard deviation of exp(-mean) over 100,000 samples of the values with repeats: the harness' own draws.
double bootstrapped_spread(const std::vector<Share>& shares) {
  constexpr uint32_t kSeeds = 100, kDrawsOfSeed = 1000;
  const auto n = static_cast<double>(shares.size());
  std::vector<double> drawn;
  for (uint32_t seed = 0; seed < kSeeds; ++seed) {
    PythonRandom random(seed);
    for (uint32_t draw = 0; draw < kDrawsOfSeed; ++draw) {
      double sum = 0;
      for (size_t i = 0; i < shares.size(); ++i) sum += shares[static_cast<size_t>(random.uniform() * n)].value;
      drawn.push_back(std::exp(-sum / n));
    }
  }
  const auto count = static_cast<double>(drawn.size());
  const double mean = std::accumulate(drawn.begin(), drawn.end(), 0.0) / count;
  double squares = 0;
  for (const double value : drawn) squares += (value - mean) * (value - mean);
  return std::sqrt(squares / (count - 1));
}

TaskMetric aggregated(const MetricRule& rule, const std::string& filter, const std::vector<Share>& shares) {
  TaskMetric metric{.name = rule.name, .filter = filter, .higher_is_better = rule.higher_is_better};
  const auto n = static_cast<double>(shares.size());
  double value = 0, weight = 0;
  for (const Share& share : shares) {
    value += share.value;
    weight += share.weight;
  }
  if (rule.name == "perplexity" || rule.name == "word_perplexity" || rule.name == "byte_perplexity") {
    metric.value = std::exp(-value / weight);
    if (rule.name == "perplexity" && n > 1) metric.standard_error = bootstrapped_spread(shares);
  } else if (rule.name == "bits_per_byte") {
    metric.value = -value / weight / std::log(2.0);
  } else {
    metric.value = value / n;
    metric.is_mean = true;
    // of zeros and ones: sum of (x - mean)^2 = n mean (1 - mean)
    if (n > 1) metric.standard_error = std::sqrt(n * metric.value * (1 - metric.value) / (n - 1)) / std::sqrt(n);
  }
  return metric;
}

Json share_json(const MetricRule& metric, const Share& share) {
  if (metric.name.ends_with("_perplexity") || metric.name == "bits_per_byte")
    return {share.value, static_cast<int64_t>(share.weight)};
  return share.value;
}

/// str(target), as far as it is a text or a number.
std::string shown(const Json& target) {
  return target.is_string() ? target.get<std::string>() : target.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Json sample_json(const PreparedTask& task, size_t number, std::span<const TaskAnswer> answers,
                 const std::string& filter, const std::string& text, const std::vector<Share>& shares) {
  const TaskDocument& document = task.documents[number];
  const bool written = task.definition.output_type == OutputType::generate_until;
  const bool rolling = task.definition.output_type == OutputType::loglikelihood_rolling;
  Json arguments = Json::object(), responses = Json::array(), left = Json::array(), names = Json::array();
  for (size_t i = 0; i < document.requests.size(); ++i) {
    const TaskRequest& request = document.requests[i];
    Json& asked = arguments["gen_args_" + std::to_string(i)];
    Json answer;
    if (written) {
      asked = {{"arg_0", request.context},
               {"arg_1", {{"until", task.definition.until}, {"max_gen_toks", task.definition.max_gen_toks}}}};
      answer = answers[i].text;
    } else if (rolling) {
      asked = {{"arg_0", request.continuation}};
      answer = answers[i].log_likelihood;
    } else {
      asked = {{"arg_0", request.context}, {"arg_1", request.continuation}};
      answer = {answers[i].log_likelihood, answers[i].is_greedy};
    }
    left.push_back(written ? Json(text) : answer);
    responses.push_back(Json::array({answer}));
  }
  const std::string prompt = rolling ? document.requests[0].continuation : document.requests[0].context;
  Json sample = {{"doc_id", number},
                 {"doc", document.document},
                 {"target", shown(document.target)},
                 {"arguments", arguments},
                 {"resps", responses},
                 {"filtered_resps", left},
                 {"filter", filter},
                 {"prompt_hash", sha256_hex(prompt)},
                 {"target_hash", sha256_hex(shown(document.target))},
                 {"task", task.definition.name}};
  for (size_t m = 0; m < shares.size(); ++m) {
    names.push_back(task.definition.metrics[m].name);
    sample[task.definition.metrics[m].name] = share_json(task.definition.metrics[m], shares[m]);
  }
  sample["metrics"] = names;
  return sample;
}

void erase_letters(std::string& text, std::string_view letters) {
  std::erase_if(text, [&](char c) { return letters.find(c) != std::string_view::npos; });
}

}  // namespace

std::string filtered(const FilterRule& filter, const std::string& text) {
  std::string left = text;
  for (const FilterStep& step : filter.steps) {
    if (step.kind == FilterStep::remove_whitespace) left = strip(left);
    if (step.kind != FilterStep::regex) continue;
    const std::vector<std::vector<std::string>> matches = step.pattern->find_all(left);
    const int64_t at = step.group_select < 0 ? step.group_select + std::ssize(matches) : step.group_select;
    left = step.fallback;
    if (at < 0 || at >= std::ssize(matches)) continue;
    const std::vector<std::string>& groups = matches[static_cast<size_t>(at)];
    const auto group = std::ranges::find_if(groups, [](const std::string& one) { return !one.empty(); });
    if (group != groups.end())
      left = strip(*group);
    else if (groups.size() == 1)
      left.clear();
  }
  return left;
}

bool matches_exactly(const MetricRule& metric, std::string answer, std::string reference) {
  for (std::string* text : {&answer, &reference}) {
    for (const Pattern& pattern : metric.regexes_to_ignore) *text = pattern.remove_all(*text);
    if (metric.ignore_case) *text = lower_case(*text);
    if (metric.ignore_punctuation) erase_letters(*text, kPunctuation);
    if (metric.ignore_numbers) erase_letters(*text, kDigits);
  }
  return answer == reference;
}

TaskScore score_task(const PreparedTask& task, const std::vector<std::vector<TaskAnswer>>& answers, bool with_samples) {
  const std::vector<MetricRule>& metrics = task.definition.metrics;
  COPPICE_CHECK(answers.size() == task.documents.size(), "answers of every document");
  TaskScore score;
  for (const FilterRule& filter : task.definition.filters) {
    std::vector<std::vector<Share>> shares(metrics.size());
    for (size_t i = 0; i < task.documents.size(); ++i) {
      COPPICE_CHECK(!answers[i].empty() && answers[i].size() == task.documents[i].requests.size(),
                    "an answer a request");
      const std::string text = filtered(filter, answers[i][0].text);
      std::vector<Share> own;
      for (const MetricRule& metric : metrics) own.push_back(share_of(metric, task.documents[i], answers[i], text));
      for (size_t m = 0; m < metrics.size(); ++m) shares[m].push_back(own[m]);
      if (with_samples) score.samples.push_back(sample_json(task, i, answers[i], filter.name, text, own));
    }
    for (size_t m = 0; m < metrics.size(); ++m) score.metrics.push_back(aggregated(metrics[m], filter.name, shares[m]));
  }
  return score;
}

}  // namespace coppice
