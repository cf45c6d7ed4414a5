// The stages: a row each in the table, a file each (stage_<kind>.cpp). A stage is a short script: load, loop, save.
#pragma once

#include <filesystem>
#include <map>
#include <span>
#include <string>

#include "recipes/prepare_data.h"
#include "recipes/recipe.h"
#include "recipes/run_folder.h"
#include "src/checkpoint/checkpoint.h"

namespace coppice {

struct StageContext {
  const Recipe& recipe;
  const Stage& stage;
  RunFolder& run;
  const PreparedData& data;
  std::string fingerprint;
  Json identity;

  std::filesystem::path folder() const { return run.stage(stage.name); }
  std::filesystem::path model_folder(const std::string& stage_name) const { return run.stage(stage_name) / "model"; }
};

struct StageRow {
  const char* kind;
  Json (*run)(StageContext&);  // returns the body of the manifest: tokens, results
};

Json run_train(StageContext& context);
Json run_learn_masks(StageContext& context);
Json run_prune(StageContext& context);
Json run_label(StageContext& context);
Json run_evaluate(StageContext& context);
Json run_export(StageContext& context);

std::span<const StageRow> stage_table();

}  // namespace coppice
