// What the readers of a recipe's tables share: refusals with file:line, and the parts of load_recipe() that have files
// of their own.
#pragma once

#include <string>
#include <vector>

#include "recipes/language/recipe.h"

namespace coppice {

inline const std::vector<std::string> kTopLevelKeys = {"name",      "seed",      "device", "threads", "grace_s",
                                                       "data",      "tokenizer", "model",  "stage",   "seeds",
                                                       "reference", "compare",   "arm"};
inline const std::vector<std::string> kAblationKeys = {"arm", "seeds", "reference", "compare"};
/// What lies beside the stages in a run folder.
inline const std::vector<std::string> kRunFiles = {"data",      "recipe.toml",  "run.json",
                                                   "log.txt",   "sources.json", "report.html",
                                                   "report.md", "report.svg",   "report.json"};
inline const std::vector<std::string> kModelKinds = {"train", "import", "learn_masks",
                                                     "prune"};  // stages that leave a model

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

// -- readers --
/// One [[stage]], checked against the stages and models that `recipe` holds so far.
Stage read_stage(OptionTable table, const Recipe& recipe);
/// What train and learn_masks have in common. `seed`: the stage's.
TrainingOptions read_training(OptionTable& table, const std::vector<DomainOptions>& domains, uint64_t seed);
/// What a loss needs must be there: `kl` a live teacher, `top_k` stored probabilities taken at the loss's temperature.
/// Fills and normalises teacher_shares.
void check_distillation(const OptionTable& table, TrainStage& train, const Recipe& recipe);
/// Hidden states are compared width by width, layer by layer.
void check_hidden_loss(const OptionTable& table, const TrainStage& train, const Recipe& recipe);
/// The tables and keys of an ablation into `recipe`. A file without any of them is an ordinary recipe.
void read_ablation(OptionTable& root, Recipe& recipe);

}  // namespace coppice
