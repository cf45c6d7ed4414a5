// How fast the models of a run are, and how large what was exported: what stage evaluate measured, the exported files,
// and llamacpp.json, which scripts/measure-llamacpp leaves in the run folder.
#pragma once

#include <filesystem>

#include "recipes/language/recipe.h"
#include "recipes/report/report.h"
#include "src/base/json.h"

namespace coppice {

/// Rows of models in an evaluate stage's results that have `speed`, and what they give to the models of the report.
void add_measured_speed(Report& report, const Json& rows);

/// Exported files, GGUF files that were imported, and llama.cpp's figures of them. A row of llamacpp.json belongs to
/// the file with its name and size; where several have those, to the one under the same folders. What belongs to none,
/// or a llamacpp.json of another shape, is a failed check and a warning. Nothing is added where no speed is known.
void add_files(Report& report, const Recipe& recipe, const std::filesystem::path& root);

}  // namespace coppice
