#include "src/tasks/task_scores.h"

#include <doctest/doctest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "src/tasks/known_tasks.h"
#include "src/tasks/task_results.h"

using namespace coppice;

namespace {

TaskDocument item(std::vector<std::string> choices, std::vector<size_t> gold) {
  TaskDocument document{.document = Json::object(), .where = "t:1", .requests = {}, .target = 0};
  for (const std::string& choice : choices) document.requests.push_back({"c", " " + choice});
  document.choices = std::move(choices);
  document.gold = std::move(gold);
  return document;
}

std::vector<TaskAnswer> sums(std::initializer_list<double> values) {
  std::vector<TaskAnswer> answers;
  for (const double value : values) answers.push_back({.log_likelihood = value});
  return answers;
}

PreparedTask task_of(std::string_view name, std::vector<TaskDocument> documents) {
  return {.definition = known_task(name), .documents = std::move(documents), .documents_in_file = 9};
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("scores: the highest sum wins, the first of equals; code points and bytes; the spread by hand") {
    const PreparedTask task = task_of(
        "choices", {item({"aa", "bbbb"}, {0}),            // -4 > -6: right; a code point -2 < -1.5: wrong
                    item({"a", "b"}, {1}),                // equal: the first, wrong each time
                    item({"a", "b", "c"}, {0}),           // equal: the first, right each time
                    item({"\u00e4\u00f6", "abcd"}, {1}),  // -2 > -3: wrong; code points -1 < -0.75: right; bytes -0.5
                    item({"a", "b", "c"}, {1, 2})});      // two right answers
    const TaskScore score =
        score_task(task, {sums({-4, -6}), sums({-1, -1}), sums({-2, -2, -2}), sums({-2, -3}), sums({-3, -2, -1})});
    REQUIRE(score.metrics.size() == 3);
    CHECK(score.metrics[0].name == "acc");
    CHECK(score.metrics[0].value == 0.6);
    CHECK(*score.metrics[0].standard_error == doctest::Approx(std::sqrt(1.2 / 4 / 5)));  // 3 * 0.4^2 + 2 * 0.6^2
    CHECK(score.metrics[1].name == "acc_norm");
    CHECK(score.metrics[1].value == 0.6);
    CHECK(score.metrics[2].name == "acc_bytes");
    CHECK(score.metrics[2].value == 0.4);
    const TaskScore one = score_task(task_of("choices", {item({"aa", "bbbb"}, {0})}), {sums({-4, -6})});
    CHECK(one.metrics[0].value == 1);
    CHECK(one.metrics[1].value == 0);
    CHECK_FALSE(one.metrics[0].standard_error.has_value());
  }

  TEST_CASE("scores: perplexities by hand, greedy matches") {
    TaskDocument word{.document = {}, .where = "t:1", .requests = {{"a", " b"}}, .target = " b"};
    const TaskScore lambada = score_task(task_of("lambada_openai", {word, word}),
                                         {{{.log_likelihood = -1, .is_greedy = true}}, {{.log_likelihood = -3}}});
    CHECK(lambada.metrics[0].name == "perplexity");
    CHECK(lambada.metrics[0].value == doctest::Approx(std::exp(2.0)));
    CHECK_FALSE(lambada.metrics[0].higher_is_better);
    // of two values: e, e^2 twice and e^3 are equally often drawn
    const double mean = (std::exp(1.0) + 2 * std::exp(2.0) + std::exp(3.0)) / 4;
    const double square = (std::exp(2.0) + 2 * std::exp(4.0) + std::exp(6.0)) / 4;
    CHECK(*lambada.metrics[0].standard_error == doctest::Approx(std::sqrt(square - mean * mean)).epsilon(0.01));
    CHECK(lambada.metrics[1].value == 0.5);
    TaskDocument page{.document = {}, .where = "t:1", .requests = {{"", "\u00e4 b\nc"}}, .target = ""};
    const TaskScore pages = score_task(task_of("ppl", {page, page}), {sums({-6}), sums({-12})});
    CHECK(pages.metrics[0].value == doctest::Approx(std::exp(18.0 / 6)));   // 3 words each
    CHECK(pages.metrics[1].value == doctest::Approx(std::exp(18.0 / 12)));  // 6 bytes each
    CHECK(pages.metrics[2].value == doctest::Approx(1.5 / std::log(2.0)));
    CHECK_FALSE(pages.metrics[2].standard_error.has_value());
  }

  TEST_CASE("scores: GSM8K's filters and what exact_match leaves out") {
    const TaskDefinition gsm8k = known_task("gsm8k");
    const auto left = [&](size_t filter, const char* text) { return filtered(gsm8k.filters[filter], text); };
    CHECK(left(0, "so 3 + 4 = 7\n#### 7") == "7");
    CHECK(left(0, "#### -1,234.5 or #### 2") == "-1,234.5");
    CHECK(left(0, "7") == "[invalid]");
    CHECK(left(1, "it costs $1,000. or 12 or x") == "12");
    CHECK(left(1, "about 5 and $3.00") == "$3.00");
    CHECK(left(1, "none") == "[invalid]");
    const MetricRule& match = gsm8k.metrics[0];
    CHECK(matches_exactly(match, "$1,000", "long way\n#### 1000"));
    CHECK(matches_exactly(match, "12.", "#### 12"));
    CHECK_FALSE(matches_exactly(match, "12", "#### 13"));
    MetricRule loose{.name = "exact_match", .ignore_case = true, .ignore_punctuation = true, .ignore_numbers = true};
    CHECK(matches_exactly(loose, "\u00c4B-1", "\u00e4b2!"));
    CHECK_FALSE(matches_exactly({.name = "exact_match"}, "A", "a"));
  }

  TEST_CASE("results: the harness' keys, and a table that lines up") {
    const PreparedTask task = task_of("piqa", {item({"a", "b"}, {0}), item({"a", "b"}, {0})});
    ScoredModel model{.name = "runs/m\u00f6we", .max_length = 64, .tasks = {}};
    model.tasks.push_back({&task, score_task(task, {sums({-1, -2}), sums({-3, -2})}, true)});
    const Json json = results_json(model);
    CHECK(json["results"]["piqa"]["acc,none"] == 0.5);
    CHECK(json["results"]["piqa"]["acc_stderr,none"] == doctest::Approx(0.5));
    CHECK(json["results"]["piqa"]["alias"] == "piqa");
    CHECK(json["higher_is_better"]["piqa"]["acc_norm"] == true);
    CHECK(json["n-samples"]["piqa"] == Json{{"original", 9}, {"effective", 2}});
    CHECK(json["n-shot"]["piqa"] == 0);
    CHECK(json["versions"]["piqa"] == 1.0);
    CHECK(json["configs"]["piqa"]["doc_to_choice"] == "{{[sol1, sol2]}}");
    const Json& sample = model.tasks[0].score.samples[1];
    CHECK(sample["doc_id"] == 1);
    CHECK(sample["arguments"]["gen_args_1"] == Json{{"arg_0", "c"}, {"arg_1", " b"}});
    CHECK(sample["filtered_resps"] == Json::parse("[[-3.0, false], [-2.0, false]]"));
    CHECK(sample["resps"][0] == Json::parse("[[-3.0, false]]"));
    CHECK(sample["acc"] == 0.0);
    CHECK(sample["metrics"] == Json::array({"acc", "acc_norm"}));
    CHECK(results_table(std::vector{model}) ==
          "| Model     | Task | Version | Filter | n-shot | Metric   |   |  Value |   Stderr |\n"
          "| --------- | ---- | ------- | ------ | ------ | -------- | - | ------ | -------- |\n"
          "| runs/m\u00f6we | piqa | 1.0     | none   |      0 | acc      | \u2191 | 0.5000 | \u00b1 0.5000 |\n"
          "|           |      |         | none   |      0 | acc_norm | \u2191 | 0.5000 | \u00b1 0.5000 |\n");
  }
}
