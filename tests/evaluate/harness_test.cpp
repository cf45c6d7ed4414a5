// Beside lm-evaluation-harness 0.4.13: what it said of every document of thirteen invented tasks, with a tiny trained
// model (tests/parity/make_eval_fixtures.py made harness/). Log-likelihoods within 1e-5, accuracies and text exactly.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "src/checkpoint/hf_import.h"
#include "src/evaluate/answer_task.h"
#include "src/tasks/task_results.h"
#include "tests/scratch_folder.h"

namespace coppice {

namespace {

namespace fs = std::filesystem;

const fs::path kFolder = fs::path(COPPICE_SOURCE_DIR) / "tests/evaluate/harness";
constexpr double kDifference = 1e-5;       // of values below 1, relative above
constexpr double kPowerDifference = 1e-4;  // of exp(mean): the mean's absolute difference is its relative one

struct Case {
  const char* name;  // in the results of the harness
  std::string task, fewshot = {};
  int64_t num_fewshot = 0;
};

const std::map<std::string, std::vector<Json>>& samples() {
  static const auto all = [] {
    std::map<std::string, std::vector<Json>> by_task;
    std::istringstream lines(slurp(kFolder / "samples.jsonl"));
    for (std::string line; std::getline(lines, line);) {
      Json sample = Json::parse(line);
      by_task[sample["task"]].push_back(std::move(sample));
    }
    return by_task;
  }();
  return all;
}

bool close(double mine, double theirs, double difference = kDifference) {
  return std::abs(mine - theirs) <= difference * std::max(1.0, std::abs(theirs));
}

void check_sample(const Json& mine, const Json& theirs) {
  INFO(theirs.dump());
  CHECK(mine["doc_id"] == theirs["doc_id"]);
  CHECK(mine["filter"] == theirs["filter"]);
  if (theirs.contains("context")) CHECK(mine["arguments"]["gen_args_0"]["arg_0"] == theirs["context"]);
  if (theirs.contains("filtered")) CHECK(mine["filtered_resps"][0] == theirs["filtered"]);
  REQUIRE(mine["resps"].size() == theirs["resps"].size());
  for (size_t i = 0; i < theirs["resps"].size(); ++i) {
    const Json &left = mine["resps"][i][0], &right = theirs["resps"][i];
    if (right.is_string()) {
      CHECK(left == right);
    } else if (right.is_array()) {
      CHECK(close(left[0].get<double>(), right[0].get<double>()));
      CHECK(left[1] == right[1]);
    } else {
      CHECK(close(left.get<double>(), right.get<double>()));
    }
  }
  for (const auto& [metric, value] : theirs["metrics"].items()) {
    INFO(metric);
    const Json& own = mine[metric];
    if (value.is_array()) {
      CHECK(close(own[0].get<double>(), value[0].get<double>()));
      CHECK(own[1] == value[1]);
    } else if (metric == "perplexity") {
      CHECK(close(own.get<double>(), value.get<double>()));
    } else {
      CHECK(own.get<double>() == value.get<double>());
    }
  }
}

void check_samples(std::vector<Json> mine, const std::vector<Json>& theirs) {
  std::ranges::stable_sort(mine, {}, [](const Json& sample) { return sample["filter"].get<std::string>(); });
  REQUIRE(mine.size() == theirs.size());
  for (size_t i = 0; i < mine.size(); ++i) check_sample(mine[i], theirs[i]);
}

void check_metrics(const std::vector<TaskMetric>& mine, const Json& theirs) {
  for (const TaskMetric& metric : mine) {
    const Json& value = theirs[metric.name + "," + metric.filter];
    const Json& error = theirs[metric.name + "_stderr," + metric.filter];
    const bool counted = metric.name.starts_with("acc") || metric.name == "exact_match";
    CHECK((counted ? metric.value == value.get<double>() : close(metric.value, value.get<double>(), kPowerDifference)));
    CHECK(metric.standard_error.has_value() == error.is_number());
    if (metric.standard_error) CHECK(close(*metric.standard_error, error.get<double>(), kPowerDifference));
  }
}

}  // namespace

TEST_SUITE("parity") {
  TEST_CASE("harness: every document and metric of thirteen tasks and a group as lm-evaluation-harness has them") {
    const Model model = import_hf(kFolder / "model");
    const Tokenizer tokenizer = Tokenizer::load(kFolder / "model" / "tokenizer.model");
    const Json expected = Json::parse(slurp(kFolder / "results.json"));
    const auto data = [](const char* name) { return (kFolder / (std::string(name) + ".jsonl")).string(); };
    const std::vector<Case> cases = {
        {"arc_easy", data("arc_easy")},
        {"arc_easy_3shot", data("arc_easy"), data("arc_train"), 3},
        {"hellaswag", data("hellaswag")},
        {"winogrande", data("winogrande")},
        {"winogrande_2shot", data("winogrande"), data("winogrande_train"), 2},
        {"piqa", data("piqa")},
        {"sciq", data("sciq")},
        {"mmlu", data("mmlu"), data("mmlu_dev"), 2},
        {"lambada_openai", data("lambada_openai")},
        {"gsm8k", data("gsm8k")},
        {"gsm8k_5shot", data("gsm8k"), data("gsm8k_train"), 5},
        {"pages", data("pages")},
    };
    size_t num_tasks = 0;
    for (const Case& one : cases) {
      INFO(one.name);
      TaskFile file = open_task_file(one.task);
      file.fewshot = one.fewshot;
      if (file.definition.output_type == OutputType::generate_until) file.definition.max_gen_toks = 40;
      const std::vector<PreparedTask> tasks = prepare_subtasks(file, {.num_fewshot = one.num_fewshot});
      std::vector<ScoredTask> scored;
      for (const PreparedTask& task : tasks) {
        const std::string name = tasks.size() > 1 ? task.definition.name : one.name;
        INFO(name);
        ++num_tasks;
        const EncodedTask encoded = encode_task(tokenizer, task, false, model.config.max_position_embeddings);
        scored.push_back({&task, score_task(task, answer_task(model, tokenizer, task, encoded, 4096), true)});
        check_samples(scored.back().score.samples, samples().at(name));
        check_metrics(scored.back().score.metrics, expected["results"][name]);
      }
      const std::vector<TaskGroup> groups = task_groups(scored);
      CHECK(groups.size() == (tasks.size() > 1 ? 1 : 0));
      for (const TaskGroup& group : groups) {
        check_metrics(group.metrics, expected["results"][group.name]);
        std::vector<std::string> children = expected["group_subtasks"][group.name];
        std::ranges::sort(children);
        CHECK(group.children == children);
      }
    }
    CHECK(samples().size() == num_tasks);
  }

  TEST_CASE("harness: a question of MMLU is read once for its four choices, whatever ends alike once") {
    const Model model = import_hf(kFolder / "model");
    const Tokenizer tokenizer = Tokenizer::load(kFolder / "model" / "tokenizer.model");
    const int64_t max_length = model.config.max_position_embeddings;
    for (const char* name : {"mmlu", "hellaswag", "lambada_openai"}) {
      INFO(name);
      const PreparedTask task = prepare_task(open_task_file((kFolder / (std::string(name) + ".jsonl")).string()));
      const EncodedTask encoded = encode_task(tokenizer, task, false, max_length);
      std::set<std::vector<int64_t>> inputs;
      for (const EncodedRequest& request : encoded.requests) {
        std::vector<int64_t> input = request.context;
        input.insert(input.end(), request.continuation.begin(), request.continuation.end() - 1);
        REQUIRE(std::ssize(input) <= max_length);
        inputs.insert(std::move(input));
      }
      size_t rows = 0;
      uint64_t tokens = 0;
      for (auto one = inputs.begin(); one != inputs.end(); ++one) {
        const auto next = std::next(one);  // the beginning of another stands right before it
        if (next != inputs.end() && std::ranges::mismatch(*one, *next).in1 == one->end()) continue;
        ++rows;
        tokens += one->size();
      }
      size_t passes = 0;  // of a row each
      (void)answer_task(model, tokenizer, task, encoded, /*batch_tokens=*/1, [&](uint64_t) { ++passes; });
      CHECK(passes == rows);
      CHECK(num_tokens(task, encoded, max_length) == tokens);
      const std::string_view asked = name;
      CHECK(encoded.requests.size() == (asked == "lambada_openai" ? 50 : 200));
      if (asked == "mmlu") CHECK(rows == 50);
      if (asked == "hellaswag") CHECK(rows > 50);
    }
  }
}

}  // namespace coppice
