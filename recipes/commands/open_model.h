// The model that a user names, with its tokenizer, whatever it is: a stage's, or one that another program left.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "src/checkpoint/checkpoint.h"
#include "src/tokens/tokenizer.h"

namespace coppice {

struct OpenedModel {
  LoadedModel loaded;
  Tokenizer tokenizer;
};
/// `path`: a stage folder, its model/ part, or an arm's; a Hugging Face folder, a GGUF file, or what `coppice import`
/// made of one. UserError::bad_file where there is no model or no tokenizer, or where they do not belong together.
OpenedModel open_model(const std::filesystem::path& path, const Placement& placement = {});
/// Its two halves, for what can be refused before the weights are read.
Tokenizer open_tokenizer(const std::filesystem::path& path);
LoadedModel open_weights(const std::filesystem::path& path, const Tokenizer& tokenizer,
                         const Placement& placement = {});
/// SHA-256 of what it is read from; of a stage's model its manifest's seal, and no weight is read.
std::string model_sha256(const std::filesystem::path& path);

/// A text to continue: a run's documents start after the end of the last one, the texts of other programs' models as
/// their tokenizer says.
std::vector<int32_t> prompt_ids(const std::filesystem::path& path, const Tokenizer& tokenizer, std::string_view prompt);

}  // namespace coppice
