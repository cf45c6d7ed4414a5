// `coppice data tasks`: multiple-choice items out of the documents that a recipe holds out.
#pragma once

#include <filesystem>

#include "recipes/language/recipe.h"

namespace coppice {

/// make_tasks() on the recipe's corpus; a line on stdout for each file: `tasks/word.jsonl: 200 items`.
void run_data_tasks(const Recipe& recipe, const std::filesystem::path& output);

}  // namespace coppice
