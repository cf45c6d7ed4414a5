// YAML of lm-evaluation-harness tasks as JSON: scalars typed as PyYAML types them, `include:` of files beside it
// followed, `!function module.name` kept as the text "!function module.name".
#pragma once

#include <filesystem>

#include "src/base/json.h"

namespace coppice {

/// The file's mapping, with what it includes below it. UserError::bad_file for what is no YAML mapping with text keys,
/// for more than 1 MiB, nesting deeper than 32, aliases that unfold beyond 100,000 nodes, tags other than !function,
/// and an include that is no plain file name or goes deeper than 4 files.
Json read_task_yaml(const std::filesystem::path& file);

}  // namespace coppice
