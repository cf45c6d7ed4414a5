#include "recipes/commands/command_tasks.h"

#include <fmt/format.h>

#include "recipes/stages/prepare_data.h"
#include "src/data/make_tasks.h"

namespace coppice {

void run_data_tasks(const Recipe& recipe, const std::filesystem::path& output) {
  const SurveyOptions corpus = survey_options(recipe, /*with_sample=*/false);
  for (const MadeTask& task : make_tasks(corpus.domains, corpus.heldout_share, output))
    fmt::print("{}: {} items\n", task.file.string(), task.items);
}

}  // namespace coppice
