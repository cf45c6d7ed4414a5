#include "src/tasks/subtasks.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>

#include "src/base/errors.h"

namespace coppice {
namespace {

constexpr size_t kMaxSubtasks = 1000;

// The subjects of MMLU (Hendrycks et al., 2021) in the harness' four groups.
constexpr std::string_view kHumanities[] = {"formal_logic",
                                            "high_school_european_history",
                                            "high_school_us_history",
                                            "high_school_world_history",
                                            "international_law",
                                            "jurisprudence",
                                            "logical_fallacies",
                                            "moral_disputes",
                                            "moral_scenarios",
                                            "philosophy",
                                            "prehistory",
                                            "professional_law",
                                            "world_religions"};
constexpr std::string_view kOther[] = {"business_ethics",
                                       "clinical_knowledge",
                                       "college_medicine",
                                       "global_facts",
                                       "human_aging",
                                       "management",
                                       "marketing",
                                       "medical_genetics",
                                       "miscellaneous",
                                       "nutrition",
                                       "professional_accounting",
                                       "professional_medicine",
                                       "virology"};
constexpr std::string_view kSocialSciences[] = {"econometrics",
                                                "high_school_geography",
                                                "high_school_government_and_politics",
                                                "high_school_macroeconomics",
                                                "high_school_microeconomics",
                                                "high_school_psychology",
                                                "human_sexuality",
                                                "professional_psychology",
                                                "public_relations",
                                                "security_studies",
                                                "sociology",
                                                "us_foreign_policy"};
constexpr std::string_view kStem[] = {"abstract_algebra",
                                      "anatomy",
                                      "astronomy",
                                      "college_biology",
                                      "college_chemistry",
                                      "college_computer_science",
                                      "college_mathematics",
                                      "college_physics",
                                      "computer_security",
                                      "conceptual_physics",
                                      "electrical_engineering",
                                      "elementary_mathematics",
                                      "high_school_biology",
                                      "high_school_chemistry",
                                      "high_school_computer_science",
                                      "high_school_mathematics",
                                      "high_school_physics",
                                      "high_school_statistics",
                                      "machine_learning"};
struct Category {
  std::string_view name;
  std::span<const std::string_view> subjects;
};
constexpr Category kCategories[] = {
    {"humanities", kHumanities}, {"other", kOther}, {"social_sciences", kSocialSciences}, {"stem", kStem}};

/// NAME, NAME_CATEGORY, NAME_VALUE.
std::vector<std::string> path_of(const std::string& name, const std::string& value) {
  std::vector<std::string> path = {name};
  for (const Category& category : kCategories)
    if (std::ranges::find(category.subjects, value) != category.subjects.end())
      path.push_back(fmt::format("{}_{}", name, category.name));
  path.push_back(name + "_" + value);
  return path;
}

}  // namespace

std::vector<Subtask> split_task(Subtask whole) {
  const TaskDefinition& task = whole.definition;
  const auto names_its_own = [&](const TaskLine& line) { return line.document.contains(task.subtask_field); };
  std::vector<Subtask> subtasks;
  if (task.subtask_field.empty() || std::ranges::none_of(whole.lines, names_its_own)) {
    subtasks.push_back(std::move(whole));
    return subtasks;
  }
  std::map<std::vector<std::string>, Subtask> parts;
  for (TaskLine& line : whole.lines) {
    const std::string value = string_at(line.document, task.subtask_field.c_str(), line.where);
    std::vector<std::string> path = path_of(task.name, value);
    const auto [part, is_new] = parts.try_emplace(path);
    if (is_new) {
      if (parts.size() > kMaxSubtasks)
        throw UserError::bad_file(
            line.where, fmt::format("more than {} different values of '{}', each of which would be a task of its own",
                                    kMaxSubtasks, printable(task.subtask_field)));
      TaskDefinition& own = part->second.definition = task;
      own.name = path.back();
      own.alias = value;
      path.pop_back();
      own.groups = std::move(path);
    }
    part->second.lines.push_back(std::move(line));
  }
  for (auto& [path, part] : parts) subtasks.push_back(std::move(part));
  return subtasks;
}

}  // namespace coppice
