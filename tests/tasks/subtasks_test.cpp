// MMLU's subjects as tasks of their own, and their groups.
#include <doctest/doctest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "src/tasks/task_results.h"
#include "tests/caught.h"
#include "tests/scratch_folder.h"

namespace coppice {

namespace {

std::string question(const std::string& text, const std::string& subject) {
  return Json({{"question", text}, {"subject", subject}, {"choices", {"w", "x", "y", "z"}}, {"answer", 1}}).dump() +
         "\n";
}

std::vector<PreparedTask> prepare(const std::filesystem::path& data, const std::filesystem::path& examples = {},
                                  const TaskOptions& options = {}) {
  TaskFile file = open_task_file("mmlu=" + data.string());
  file.fewshot = examples;
  return prepare_subtasks(file, options);
}

/// The first `right` documents are answered rightly (B), the others wrongly (A).
ScoredTask scored(const PreparedTask& task, size_t right) {
  std::vector<std::vector<TaskAnswer>> answers;
  for (size_t i = 0; i < task.documents.size(); ++i) {
    answers.emplace_back(4, TaskAnswer{.log_likelihood = -5});
    answers.back()[i < right ? 1 : 0].log_likelihood = -1;
  }
  return {&task, score_task(task, answers)};
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("subtasks: one for each subject, in the harness' groups, with the limit and the examples of its own") {
    const ScratchFolder folder;
    const auto data = folder.write("test.jsonl", question("v1", "virology") + question("a1", "anatomy") +
                                                     question("v2", "virology") + question("w1", "world_colours") +
                                                     question("v3", "virology") + question("m1", "marketing"));
    const auto dev = folder.write("dev.jsonl", question("w", "world_colours") + question("v", "virology") +
                                                   question("a", "anatomy") + question("m", "marketing"));
    const std::vector<PreparedTask> tasks = prepare(data, dev, {.num_fewshot = 1, .limit = 2});
    REQUIRE(tasks.size() == 4);
    const auto check = [&](size_t i, const char* subject, std::vector<std::string> groups, size_t documents,
                           int64_t in_file) {
      INFO(subject);
      CHECK(tasks[i].definition.name == "mmlu_" + std::string(subject));
      CHECK(tasks[i].definition.alias == subject);
      CHECK(tasks[i].definition.groups == groups);
      CHECK(tasks[i].documents.size() == documents);
      CHECK(tasks[i].documents_in_file == in_file);
    };
    check(0, "marketing", {"mmlu", "mmlu_other"}, 1, 1);
    check(1, "virology", {"mmlu", "mmlu_other"}, 2, 3);
    check(2, "anatomy", {"mmlu", "mmlu_stem"}, 1, 1);
    check(3, "world_colours", {"mmlu"}, 1, 1);
    CHECK(tasks[1].documents[1].where.ends_with("test.jsonl:3"));
    CHECK(tasks[1].documents[1].requests[3].context ==
          "The following are multiple choice questions (with answers) about virology.\n\nv\nA. w\nB. x\nC. y\nD. "
          "z\nAnswer: B\n\nv2\nA. w\nB. x\nC. y\nD. z\nAnswer:");
    CHECK(prepare_task(open_task_file("mmlu=" + data.string())).documents.size() == 6);
  }

  TEST_CASE("subtasks: a file without subjects is one task; one that has some, or too many, is refused") {
    const ScratchFolder folder;
    const std::string plain = R"({"question": "Q", "choices": ["w", "x", "y", "z"], "answer": 1})";
    const std::vector<PreparedTask> whole = prepare(folder.write("plain.jsonl", plain + "\n" + plain + "\n"));
    REQUIRE(whole.size() == 1);
    CHECK(whole[0].definition.name == "mmlu");
    CHECK(whole[0].definition.groups.empty());
    const auto refused = [&](const std::string& text, const std::string& part) {
      const auto refusal = caught([&] { prepare(folder.write("bad.jsonl", text)); });
      INFO(refusal.text);
      CHECK(refusal.code == 3);
      CHECK(refusal.says(part));
    };
    refused(question("a", "anatomy") + plain + "\n", "bad.jsonl:2: the key \"subject\" is missing");
    refused(R"({"question": "Q", "choices": ["w", "x", "y", "z"], "answer": 1, "subject": 7})", "expected a string");
    std::string many;
    for (int i = 0; i <= 1000; ++i) many += question("Q", "s" + std::to_string(i));
    refused(many, "bad.jsonl:1001: more than 1000 different values of 'subject'");
  }

  TEST_CASE("groups: means weighed by documents, pooled errors, keys and table as lm-evaluation-harness has them") {
    const ScratchFolder folder;
    std::string lines;
    for (const auto& [subject, count] : {std::pair{"anatomy", 3}, {"marketing", 4}, {"virology", 2}})
      for (int i = 0; i < count; ++i) lines += question("Q" + std::to_string(i), subject);
    const std::vector<PreparedTask> tasks = prepare(folder.write("test.jsonl", lines));
    REQUIRE(tasks.size() == 3);
    ScoredModel model{.name = "m", .max_length = 64, .tasks = {}};
    model.tasks = {scored(tasks[0], 3), scored(tasks[1], 1), scored(tasks[2], 0)};  // 3 of 4, 1 of 2, 0 of 3
    const Json json = results_json(model);
    // sums of (x - mean)^2: 0.75, 0.5, 0; what aggregate_subtask_metrics and pooled_sample_stderr say, too
    const double other_error = std::sqrt((0.75 + 0.5) / (6 - 2) / 6), error = std::sqrt((0.75 + 0.5) / (9 - 3) / 9);
    CHECK(other_error == doctest::Approx(0.2282177322938192));
    CHECK(error == doctest::Approx(0.15214515486254615));
    const Json& other = json["groups"]["mmlu_other"];
    CHECK(other["acc,none"] == doctest::Approx(4.0 / 6));
    CHECK(other["acc_stderr,none"] == doctest::Approx(other_error));
    CHECK(other["alias"] == "other");
    CHECK(other["sample_len"] == 6);
    CHECK(other["sample_count"] == Json::object({{"acc,none", 6}}));
    const Json& whole = json["groups"]["mmlu"];
    CHECK(whole["acc,none"] == doctest::Approx(4.0 / 9));
    CHECK(whole["acc_stderr,none"] == doctest::Approx(error));
    CHECK(json["results"]["mmlu"] == whole);
    CHECK(json["results"]["mmlu_virology"]["acc,none"] == 0.5);
    CHECK(json["group_subtasks"] == Json{{"mmlu", {"mmlu_other", "mmlu_stem"}},
                                         {"mmlu_other", {"mmlu_marketing", "mmlu_virology"}},
                                         {"mmlu_stem", Json::array({"mmlu_anatomy"})}});
    CHECK(json["versions"]["mmlu_stem"] == "2");
    CHECK(json["versions"]["mmlu_anatomy"] == 1.0);
    CHECK(json["n-samples"]["mmlu_marketing"] == Json{{"original", 4}, {"effective", 4}});
    CHECK_FALSE(json["n-samples"].contains("mmlu"));
    CHECK(json["higher_is_better"]["mmlu"]["acc"] == true);
    CHECK(results_table(std::vector{model}) ==
          "| Model | Task          | Version | Filter | n-shot | Metric |   |  Value |   Stderr |\n"
          "| ----- | ------------- | ------- | ------ | ------ | ------ | - | ------ | -------- |\n"
          "| m     | mmlu          | 2       | none   |      0 | acc    | \u2191 | 0.4444 | \u00b1 0.1521 |\n"
          "|       |  - other      | 2       | none   |      0 | acc    | \u2191 | 0.6667 | \u00b1 0.2282 |\n"
          "|       |   - marketing | 1.0     | none   |      0 | acc    | \u2191 | 0.7500 | \u00b1 0.2500 |\n"
          "|       |   - virology  | 1.0     | none   |      0 | acc    | \u2191 | 0.5000 | \u00b1 0.5000 |\n"
          "|       |  - stem       | 2       | none   |      0 | acc    | \u2191 | 0.0000 | \u00b1 0.0000 |\n"
          "|       |   - anatomy   | 1.0     | none   |      0 | acc    | \u2191 | 0.0000 | \u00b1 0.0000 |\n");
  }

  TEST_CASE("groups: accuracy by depth, a line a model and length") {
    const ScratchFolder folder;
    std::string lines;
    for (const char* depth : {"depth_0", "depth_30", "depth_30", "depth_90"}) lines += question("Q", depth);
    const std::vector<PreparedTask> tasks = prepare(folder.write("test.jsonl", lines));
    REQUIRE(tasks.size() == 3);
    ScoredModel model{.name = "m", .max_length = 64, .tasks = {}}, other = model;
    model.tasks = {scored(tasks[0], 1), scored(tasks[1], 1), scored(tasks[2], 0)};
    other.name = "longer";
    other.tasks = {scored(tasks[0], 0), scored(tasks[1], 2), scored(tasks[2], 1)};
    CHECK(depth_table(std::vector{model, other}) ==
          "| Model  | Accuracy by depth |  all |    0% | 10% | 20% |   30% | 40% | 50% | 60% | 70% | 80% |   90% |\n"
          "| ------ | ----------------- | ---- | ----- | --- | --- | ----- | --- | --- | --- | --- | --- | ----- |\n"
          "| m      | mmlu              | 50.0 | 100.0 |     |     |  50.0 |     |     |     |     |     |   0.0 |\n"
          "| longer | mmlu              | 75.0 |   0.0 |     |     | 100.0 |     |     |     |     |     | 100.0 |\n");
    const std::vector<PreparedTask> subjects =
        prepare(folder.write("subjects.jsonl", question("Q", "anatomy") + question("Q", "virology")));
    model.tasks = {scored(subjects[0], 1), scored(subjects[1], 1)};
    CHECK(depth_table(std::vector{model}).empty());
  }

  TEST_CASE("groups: no standard error where a subject has one question; tasks without groups have none") {
    const ScratchFolder folder;
    const std::vector<PreparedTask> tasks =
        prepare(folder.write("test.jsonl", question("Q", "x") + question("Q", "y") + question("R", "y")));
    REQUIRE(tasks.size() == 2);
    ScoredModel model{.name = "m", .max_length = 64, .tasks = {}};
    model.tasks = {scored(tasks[0], 1), scored(tasks[1], 1)};
    const std::vector<TaskGroup> groups = task_groups(model.tasks);
    REQUIRE(groups.size() == 1);
    CHECK(groups[0].children == std::vector<std::string>{"mmlu_x", "mmlu_y"});
    CHECK(groups[0].metrics[0].value == doctest::Approx(2.0 / 3));
    CHECK_FALSE(groups[0].metrics[0].standard_error.has_value());
    CHECK(results_json(model)["groups"]["mmlu"]["acc_stderr,none"] == "N/A");
    const PreparedTask alone = prepare_task(open_task_file("mmlu=" + (folder / "test.jsonl").string()));
    model.tasks = {scored(alone, 1)};
    CHECK_FALSE(results_json(model).contains("groups"));
    CHECK(results_json(model)["group_subtasks"] == Json::object());
  }
}

}  // namespace coppice
