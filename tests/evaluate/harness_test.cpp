// Beside lm-evaluation-harness 0.4.13: what it said of every document of twelve invented tasks, with a tiny trained
// model (tests/parity/make_eval_fixtures.py made harness/). Log-likelihoods within 1e-5, accuracies and text exactly.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
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

}  // namespace

TEST_SUITE("parity") {
  TEST_CASE("harness: every document and metric of twelve tasks as lm-evaluation-harness has them") {
    const Model model = import_hf(kFolder / "model");
    const Tokenizer tokenizer = Tokenizer::load(kFolder / "model" / "tokenizer.model");
    const Json expected = Json::parse(slurp(kFolder / "results.json"))["results"];
    const auto data = [](const char* name) { return (kFolder / (std::string(name) + ".jsonl")).string(); };
    const std::vector<Case> cases = {
        {"arc_easy", data("arc_easy")},
        {"arc_easy_3shot", data("arc_easy"), data("arc_train"), 3},
        {"hellaswag", data("hellaswag")},
        {"winogrande", data("winogrande")},
        {"winogrande_2shot", data("winogrande"), data("winogrande_train"), 2},
        {"piqa", data("piqa")},
        {"sciq", data("sciq")},
        {"mmlu_world_colours", data("mmlu"), data("mmlu_dev"), 2},
        {"lambada_openai", data("lambada_openai")},
        {"gsm8k", data("gsm8k")},
        {"gsm8k_5shot", data("gsm8k"), data("gsm8k_train"), 5},
        {"pages", data("pages")},
    };
    CHECK(samples().size() == cases.size());
    for (const Case& one : cases) {
      INFO(one.name);
      TaskFile file = open_task_file(one.task);
      file.fewshot = one.fewshot;
      if (file.definition.output_type == OutputType::generate_until) file.definition.max_gen_toks = 40;
      TaskOptions options{.num_fewshot = one.num_fewshot};
      if (std::string_view(one.name) == "mmlu_world_colours") options.limit = 25;  // the file's first subject
      const PreparedTask task = prepare_task(file, options);
      const EncodedTask encoded = encode_task(tokenizer, task, false, model.config.max_position_embeddings);
      const TaskScore score = score_task(task, answer_task(model, tokenizer, task, encoded, 4096), true);
      std::vector<Json> mine = score.samples;
      std::ranges::stable_sort(mine, {}, [](const Json& sample) { return sample["filter"].get<std::string>(); });
      const std::vector<Json>& theirs = samples().at(one.name);
      REQUIRE(mine.size() == theirs.size());
      for (size_t i = 0; i < mine.size(); ++i) check_sample(mine[i], theirs[i]);
      for (const TaskMetric& metric : score.metrics) {
        const Json& value = expected[one.name][metric.name + "," + metric.filter];
        const Json& error = expected[one.name][metric.name + "_stderr," + metric.filter];
        const bool counted = metric.name.starts_with("acc") || metric.name == "exact_match";
        CHECK((counted ? metric.value == value.get<double>()
                       : close(metric.value, value.get<double>(), kPowerDifference)));
        CHECK(metric.standard_error.has_value() == error.is_number());
        if (metric.standard_error) CHECK(close(*metric.standard_error, error.get<double>(), kPowerDifference));
      }
    }
  }
}

}  // namespace coppice
