// From a request to the recipe that answers it: checked as a run would check it, under its name in one step.
#pragma once

#include <filesystem>
#include <string>

#include "recipes/compress/request.h"
#include "recipes/compress/source.h"
#include "recipes/compress/target.h"

namespace coppice {

struct CompressPlace {
  std::string name, out;             // out as asked; empty = runs/<name>
  std::filesystem::path file, root;  // recipe and run
};
/// `name` empty: <model>-<channels>. UserError::recipe for a name that is a path.
CompressPlace place_of(const std::string& name, const std::string& out, const CompressSource& source,
                       const CompressTarget& target);

/// Whether the recipe of this request is there already. UserError::recipe for a recipe or a run in that place that
/// belongs to another one.
bool is_begun(const CompressPlace& place, const CompressRequest& request);

/// Measures, where the request says hours; writes the recipe unless `dry_run`; returns what there is to say: the plan
/// and where things are. UserError with the numbers for what cannot be done.
std::string write_recipe(const CompressRequest& request, const CompressSource& source, const CompressTarget& target,
                         const CompressPlace& place, bool dry_run);

/// A line for each exported file or folder of a finished run: verified, its size, parameters from source to student.
std::string result_text(const std::filesystem::path& run_root);

}  // namespace coppice
