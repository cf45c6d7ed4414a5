// From a run folder to the facts of its report: manifests and metrics alone, so it can be made again at any time.
#pragma once

#include <filesystem>

#include "recipes/report/report.h"
#include "src/base/json.h"

namespace coppice {

/// A number of a manifest; NaN when it is not there.
double number_or_absent(const Json& object, const char* key);
/// The members of one object of run.json ("versions", "machine") as text.
std::vector<std::pair<std::string, std::string>> pairs_of(const Json& run, const char* key);
/// One row of an evaluate stage's results: name, size and scores; role and tokens are the recipe's to tell.
ReportModel scored_model(const Json& row);

/// Reads recipe.toml, run.json, the stages' manifests and metrics. UserError::bad_file when the folder holds no run.
Report collect_report(const std::filesystem::path& run_root);
/// Writes report.json, report.md, report.svg, report.html, each by rename; returns the verdict as a terminal shows it,
/// ended by a newline.
std::string write_report(const std::filesystem::path& run_root);

}  // namespace coppice
