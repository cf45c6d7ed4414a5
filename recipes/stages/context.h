// What a stage is given when it runs, and what its check sees before the first stage.
#pragma once

#include <filesystem>
#include <string>

#include "recipes/folder/run_folder.h"
#include "recipes/language/recipe.h"
#include "recipes/stages/prepare_data.h"
#include "src/base/json.h"
#include "src/distributed/comm.h"
#include "src/model/recompute.h"

namespace coppice {

struct StageContext {
  const Recipe& recipe;
  const Stage& stage;
  RunFolder& run;
  const PreparedData& data;
  Comm& comm;  // of all ranks that run the stage
  std::string fingerprint;
  Json identity;
  Recompute recompute = Recompute::none;  // of a stage that trains
  bool split_master = false;  // of the model that the stage trains (master)

  std::filesystem::path folder() const { return run.stage(stage.name); }
  std::filesystem::path model_folder(const std::string& stage_name) const { return run.stage(stage_name) / "model"; }
};

/// Facts that every model folder carries beside its config: stage, fingerprint, tokenizer. No versions, so that equal
/// runs write equal bytes.
Json model_facts(const StageContext& context);

/// config and plan may come before the files that a recipe names: they judge what is there. A run needs them.
enum class Missing { allowed, refused };

struct BeforeWork {
  const Recipe& recipe;
  Missing missing;
  const Tokenizer* tokenizer = nullptr;  // nullptr: not known before the data stage
};

}  // namespace coppice
