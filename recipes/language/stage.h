// A stage of a recipe, and the row that says everything about its kind. The rows stand with their kinds
// (recipes/stages); language, run folder, plan and run ask through them, so that a new kind is one file and one row.
#pragma once

#include <any>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "recipes/language/placement_options.h"
#include "src/base/errors.h"
#include "src/base/json.h"
#include "src/base/option_mark.h"

namespace coppice {

class OptionTable;
struct BeforeWork;
struct CostBasis;
struct ModelConfig;
struct Recipe;
struct StageContext;
struct StageCost;
struct TrainingOptions;

struct Stage {
  std::string name, kind, where;  // where = file:line
  uint64_t seed = 1;              // in force: its own, or the recipe's
  PlacementOptions placement;     // the same, key by key
  std::any options;               // the struct of its kind: find<TrainStage>()

  /// The options, where the stage is of the kind that has such; nullptr otherwise.
  template <class Options>
  const Options* find() const {
    return std::any_cast<Options>(&options);
  }
  /// InternalError for a stage of another kind.
  template <class Options>
  const Options& get() const {
    const Options* found = find<Options>();
    COPPICE_CHECK(found != nullptr, "stage " + name + " is of kind " + kind);
    return *found;
  }
  /// Names of the earlier stages it reads.
  std::vector<std::string> inputs() const;
};

/// Something outside the run folder that a stage reads while it runs.
struct OutsideSource {
  std::filesystem::path path;
  const char* why;
};

struct OptionLine {
  std::string key;
  Mark mark;
};
/// The options of a struct in the order of its visit_fields().
template <class Options>
std::vector<OptionLine> option_lines() {
  Options options;
  std::vector<OptionLine> lines;
  auto field = [&](const char* key, const auto&, Mark mark, const char*) { lines.push_back({key, mark}); };
  options.visit_fields(field);
  return lines;
}

struct StageKind {
  const char* kind;
  bool seeded = false;    // draws random numbers: takes a seed of its own, which is part of its identity
  bool computes = false;  // on whatever device: takes the keys of PlacementOptions
  bool in_fp32 = false;   // whatever `compute` says
  bool on_ranks = false;  // several ranks share its work; otherwise the first does it and the others wait
  std::vector<OptionLine> (*options)();
  /// The options of one [[stage]], checked against the stages before it. `seed`: in force for the stage.
  std::any (*read)(OptionTable& table, const Recipe& recipe, uint64_t seed);
  std::vector<std::string> (*inputs)(const Stage& stage);  // may hold empty names
  /// The earlier stage whose model it goes on from; empty for fresh weights. nullptr: it begins none anew.
  std::string (*start)(const Stage& stage) = nullptr;
  /// The shape of the model it leaves, by the rules alone. nullptr: it leaves none.
  ModelConfig (*leaves_model)(const Recipe& recipe, const Stage& stage) = nullptr;
  /// What it asks of models and data, once the whole recipe is read.
  void (*check_models)(const Recipe& recipe, const Stage& stage) = nullptr;
  const TrainingOptions* (*training)(const Stage& stage) = nullptr;  // nullptr: it does not train
  std::vector<OutsideSource> (*needs)(const Recipe& recipe, const Stage& stage) = nullptr;
  /// What decides its result beside kind, inputs, seed and data (recipes/language/identity.h).
  Json (*identity)(const Recipe& recipe, const Stage& stage);
  void (*cost)(const CostBasis& basis, const Stage& stage, StageCost& cost);
  /// Refuses before the first stage what `run` would refuse; nullptr: the recipe said it all.
  void (*check)(const BeforeWork& before, const Stage& stage) = nullptr;
  Json (*run)(StageContext& context);  // returns the body of the manifest: tokens, results
};

/// The rows (recipes/stages/stages.cpp).
std::span<const StageKind* const> stage_kinds();
/// InternalError for a kind that has none.
const StageKind& kind_of(const Stage& stage);
std::vector<std::string> names_of_kinds();
/// Where a stage computes on this machine, and in which element type (place of its keys).
Placement place(const Stage& stage);
/// Of a kind, those of PlacementOptions included where it takes them.
std::vector<OptionLine> options_of(const StageKind& kind);
/// Of the kinds that leave a model.
std::vector<std::string> model_kinds();

/// The earlier stage whose model a stage goes on from; empty for fresh weights, an import, and stages that leave no
/// model.
std::string start_of(const Stage& stage);
/// The options that stages which train share; nullptr for other kinds.
const TrainingOptions* training_of(const Stage& stage);

}  // namespace coppice
