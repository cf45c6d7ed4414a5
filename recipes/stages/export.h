// export: a folder that other programs open, read back and compared before it gets its name.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "recipes/language/stage.h"
#include "src/base/option_mark.h"

namespace coppice {

class RunFolder;
class Tokenizer;
struct HfSettings;

struct ExportStage {
  std::string from;
  std::vector<std::string> formats = {"hf"};
  std::string dtype = "f32";

  template <class Field>
  void visit_fields(Field& field) {
    field("from", from, Mark::place, "the model to export");
    field("formats", formats, Mark::decides, "hf");
    field("dtype", dtype, Mark::decides, "f32 or bf16");
  }
};

/// What an export of that stage's model writes again; nothing for a model that began here. Says in a line what it is.
std::optional<HfSettings> settings_for_export(const Recipe& recipe, const RunFolder& run,
                                              const std::string& stage_name);
/// The same of a stage's folder, by the recipe in the run around it; a warning and nothing where there is none to be
/// read.
std::optional<HfSettings> settings_for_export(const std::filesystem::path& stage_folder);
/// Which text has other ids in the tokenizer.json of this tokenizer than in SentencePiece; empty when none has.
std::string prefix_warning(const Tokenizer& tokenizer);

}  // namespace coppice
