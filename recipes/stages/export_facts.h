// What an export says beside weights and ids: what the imported model said of itself, and where the model comes from.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "src/checkpoint/gguf_metadata.h"
#include "src/checkpoint/hf_settings.h"

namespace coppice {

class RunFolder;
struct Recipe;

struct ExportFacts {
  std::optional<HfSettings> settings;  // of the model that was imported; nothing for one that began here
  GgufGeneral general;                 // names, what it was made from and with, the license of what was imported

  const HfSettings* kept() const { return settings ? &*settings : nullptr; }
};
/// Of a stage's model. Says in a line what was kept.
ExportFacts facts_for_export(const Recipe& recipe, const RunFolder& run, const std::string& stage_name);
/// Of whatever model a user names: a stage's folder by the recipe in the run around it (a warning where there is none
/// to be read), a model that was imported or may be by what it says itself. `tokenizer`: the model's.
ExportFacts facts_for_export(const std::filesystem::path& model, const Tokenizer& tokenizer);

/// The settings alone, silently: of a stage's model those that the import it descends from kept; nothing where that is
/// not known.
std::optional<HfSettings> kept_settings(const std::filesystem::path& model, const Tokenizer& tokenizer);

}  // namespace coppice
