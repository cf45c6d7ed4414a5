#include "src/tasks/fewshot.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "src/base/errors.h"

namespace coppice {
namespace {

constexpr uint32_t kSeed = 1234;  // the harness' fewshot_seed

}  // namespace

FewshotExamples::FewshotExamples(const TaskDefinition& task, std::span<const Json> pool, std::string where)
    : task_(task), pool_(pool), where_(std::move(where)), random_(kSeed) {}

std::vector<const Json*> FewshotExamples::choose(const Json& document) {
  const auto wanted = static_cast<size_t>(task_.num_fewshot);
  std::vector<const Json*> examples;
  if (wanted == 0) return examples;
  const auto too_few = [&](size_t found) {
    throw UserError::bad_file(where_, fmt::format("holds {} examples for a document, {} are asked for", found, wanted));
  };
  const auto fits = [&](const Json& one) {
    return !(task_.fewshot_is_test && one == document) &&
           (task_.subtask_field.empty() || !document.contains(task_.subtask_field) ||
            (one.contains(task_.subtask_field) && one[task_.subtask_field] == document[task_.subtask_field]));
  };
  if (task_.first_n) {
    for (const Json& one : pool_)
      if (examples.size() < wanted && fits(one)) examples.push_back(&one);
    if (examples.size() < wanted) too_few(examples.size());
    return examples;
  }
  const size_t drawn = wanted + (task_.fewshot_is_test ? 1 : 0);
  if (pool_.size() < drawn) too_few(pool_.size());
  for (const size_t at : random_.sample(pool_.size(), drawn))
    if (examples.size() < wanted && fits(pool_[at])) examples.push_back(&pool_[at]);
  if (examples.size() < wanted) {  // copies of the document were drawn
    std::vector<const Json*> others;
    for (const Json& one : pool_)
      if (fits(one)) others.push_back(&one);
    if (others.size() < wanted) too_few(others.size());
    examples.clear();
    for (const size_t at : random_.sample(others.size(), wanted)) examples.push_back(others[at]);
  }
  return examples;
}

}  // namespace coppice
