// import: a model that was trained elsewhere, from a Hugging Face folder or a GGUF file.
#pragma once

#include <cstdint>
#include <string>

#include "recipes/language/stage.h"
#include "src/base/option_mark.h"
#include "src/model/config.h"

namespace coppice {

struct ImportStage {
  std::string path;
  ModelConfig config;            // of the model it leaves: padded rows of the vocabulary are cut
  int64_t attention_window = 0;  // > 0: texts up to so many tokens are seen whole, longer ones through a window, which
                                 // we do not have

  template <class Field>
  void visit_fields(Field& field) {
    field("path", path, Mark::place,
          "a Hugging Face folder (config.json, safetensors, tokenizer.model or tokenizer.json) or a GGUF file");
  }
};

/// The import stage whose model this stage's descends from by cutting and training; nullptr when it began with fresh
/// weights.
const Stage* imported_from(const Recipe& recipe, std::string stage_name);
/// A model that slides a window over longer texts is imported for the texts that it sees whole: UserError::recipe for a
/// stage that gives its model others. `model` may be empty; `key` is what the stage calls the length.
void check_attention_window(const Recipe& recipe, const Stage& stage, const std::string& model, const char* key,
                            int64_t length);

}  // namespace coppice
