// What the readers of a recipe's tables share: refusals with file:line, and the parts of load_recipe() that have files
// of their own.
#pragma once

#include <string>
#include <vector>

#include "recipes/language/recipe.h"

namespace coppice {

struct MixtureEntry;

inline const std::vector<std::string> kTopLevelKeys = {"name",    "seed",    "device",    "compute",   "attention",
                                                       "threads", "grace_s", "data",      "tokenizer", "model",
                                                       "stage",   "seeds",   "reference", "compare",   "arm"};
inline const std::vector<std::string> kAblationKeys = {"arm", "seeds", "reference", "compare"};
/// What lies beside the stages in a run folder.
inline const std::vector<std::string> kRunFiles = {"data",      "recipe.toml",  "run.json",
                                                   "log.txt",   "sources.json", "report.html",
                                                   "report.md", "report.svg",   "report.json"};

// -- refusals: UserError::recipe at `where` = file:line --
[[noreturn]] void refuse(const std::string& where, const std::string& message);
void check(bool holds, const std::string& where, const std::string& message);
/// Names the choices and the nearest one.
void check_choice(const std::string& value, const std::vector<std::string>& choices, const std::string& where,
                  const std::string& key);
/// A folder name of its own: 1 to 64 letters, digits, '-', '_' or '.', not starting with '.'.
void check_name(const std::string& name, const std::string& where, const std::string& what);
/// Checks that `name` is an earlier stage of one of the kinds.
void check_input(const std::vector<Stage>& earlier, const std::string& name, const std::vector<std::string>& kinds,
                 const std::string& where, const std::string& key);

/// Checks that no source of the domains that a stage draws `what` from is closed to it.
void check_open(const Recipe& recipe, const Stage& stage, const std::vector<MixtureEntry>& mixture, const char* what);
/// Checks that `name` is a [model.<name>].
void check_model(const Recipe& recipe, const std::string& name, const std::string& where, const std::string& key);

// -- readers --
/// The tables and keys of an ablation into `recipe`. A file without any of them is an ordinary recipe.
void read_ablation(OptionTable& root, Recipe& recipe);

}  // namespace coppice
