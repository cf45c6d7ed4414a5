// Metadata of an exported GGUF file.
#pragma once

#include <cstdint>

#include "src/checkpoint/gguf_export.h"
#include "src/checkpoint/gguf_writer.h"
#include "src/model/config.h"

namespace coppice {

struct GgufExported {
  const ModelConfig& config;
  int64_t width;       // of every layer's FFN in the file
  uint32_t file_type;  // general.file_type
  const Tokenizer& tokenizer;
  const GgufExportOptions& options;
};

/// Whether BOS opens a text: as the settings say, else as asked.
bool adds_bos(const GgufExportOptions& options);

/// general.*, <architecture>.*, coppice.*, tokenizer.*: every key that llama.cpp needs. UserError::recipe where a key
/// cannot say it.
void add_gguf_metadata(GgufWriter& writer, const GgufExported& exported);

}  // namespace coppice
