#include "recipes/language/stage.h"

#include <algorithm>
#include <iterator>

#include "src/tensors/device.h"

namespace coppice {

const StageKind& kind_of(const Stage& stage) {
  for (const StageKind* row : stage_kinds())
    if (stage.kind == row->kind) return *row;
  throw InternalError("no stage kind " + stage.kind);
}

std::vector<std::string> names_of_kinds() {
  std::vector<std::string> names;
  for (const StageKind* row : stage_kinds()) names.emplace_back(row->kind);
  return names;
}

Placement place(const Stage& stage) {
  Placement placement = place(stage.placement);
  if (kind_of(stage).in_fp32) placement.compute = at::kFloat;
  return placement;
}

std::vector<OptionLine> options_of(const StageKind& kind) {
  std::vector<OptionLine> lines = kind.options();
  if (kind.computes) std::ranges::copy(option_lines<PlacementOptions>(), std::back_inserter(lines));
  return lines;
}

std::vector<std::string> model_kinds() {
  std::vector<std::string> names;
  for (const StageKind* row : stage_kinds())
    if (row->leaves_model != nullptr) names.emplace_back(row->kind);
  return names;
}

std::vector<std::string> Stage::inputs() const {
  std::vector<std::string> names = kind_of(*this).inputs(*this);
  std::erase(names, std::string());
  return names;
}

std::string start_of(const Stage& stage) {
  const StageKind& row = kind_of(stage);
  return row.start != nullptr ? row.start(stage) : "";
}

const TrainingOptions* training_of(const Stage& stage) {
  const StageKind& row = kind_of(stage);
  return row.training != nullptr ? row.training(stage) : nullptr;
}

}  // namespace coppice
