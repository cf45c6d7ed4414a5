// The model of a stage folder that a user names, with the tokenizer of the run around it.
#pragma once

#include <filesystem>

#include "src/checkpoint/checkpoint.h"
#include "src/tokens/tokenizer.h"

namespace coppice {

struct StageModel {
  LoadedModel loaded;
  Tokenizer tokenizer;
};
/// `stage`: a stage folder, its model/ part, or an arm's. UserError::bad_file where there is no model or no tokenizer,
/// or where they do not belong together.
StageModel load_stage_model(const std::filesystem::path& stage);

}  // namespace coppice
