// Where each model of a recipe comes from and what it stands for, by stage kinds and `from` chains alone: never by a
// name or a place in the file.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "recipes/language/recipe.h"
#include "recipes/report/report.h"

namespace coppice {

/// A model's way since its last cut, or since fresh or imported weights.
struct Lineage {
  std::string cut;  // "masks" or the one-shot score that made a layer narrower last; empty = as wide as where it began
  bool refitted = false;     // by that cut's stage
  bool kept_all = false;     // went through a prune that kept every channel: a control
  bool imported = false;     // began in a Hugging Face folder
  bool has_teacher = false;  // trained on labels, or beside a live teacher
  double training_tokens = 0;
};

/// Of a stage that leaves a model.
Lineage lineage_of(const Recipe& recipe, const std::string& stage);
/// The stages whose results go into the stage called `name`, as weights or labels, and itself.
std::set<std::string> ancestors_of(const Recipe& recipe, const std::string& name);
/// Whether the weights of `stage` come from those of `ancestor`, or are those.
bool descends_from(const Recipe& recipe, const std::string& stage, const std::string& ancestor);

/// ReportModel::role of each scored stage. `agreement_with`: whose top-1 the evaluation compares with; the source of a
/// recipe that cuts and distils nothing.
std::map<std::string, std::string> roles_of(const Recipe& recipe, const std::vector<std::string>& scored,
                                            const std::string& agreement_with);
/// What a stage is run for.
StagePurpose purpose_of(const Recipe& recipe, const Stage& stage);

}  // namespace coppice
