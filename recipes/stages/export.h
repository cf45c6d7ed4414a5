// export: a folder or file that other programs open, read back and compared before it gets its name.
#pragma once

#include <string>
#include <vector>

#include "recipes/language/stage.h"
#include "src/base/option_mark.h"

namespace coppice {

class Tokenizer;

struct ExportStage {
  std::string from;
  std::vector<std::string> formats = {"hf"};
  std::string dtype = "f32";
  std::string quantization = "f32";

  template <class Field>
  void visit_fields(Field& field) {
    field("from", from, Mark::place, "the model to export");
    field("formats", formats, Mark::decides,
          "hf (a Hugging Face folder) or gguf (one file, for llama.cpp); several, for instance [\"hf\", \"gguf\"]");
    field("dtype", dtype, Mark::decides, "of the Hugging Face folder: f32 or bf16");
    field("quantization", quantization, Mark::decides, "of the GGUF file: f32, f16, bf16, q8_0 or q4_0");
  }
};

/// Which text has other ids in the tokenizer.json of this tokenizer than in SentencePiece; empty when none has.
std::string prefix_warning(const Tokenizer& tokenizer);

}  // namespace coppice
