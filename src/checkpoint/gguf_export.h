// Export to one GGUF file: metadata, tokenizer, weights in F32, F16, BF16, Q8_0 or Q4_0. Architecture qwen3 with
// QK-norm, qwen2 with biases, llama without either. Layers of different width are padded with zero channels (exact).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "src/checkpoint/gguf_metadata.h"
#include "src/model/decoder.h"
#include "src/tokens/tokenizer.h"

namespace coppice {

struct GgufExportOptions {
  std::string type = "f32";  // f32, f16, bf16, q8_0, q4_0 (with embedding and output in Q8_0); vectors are F32 in all
  bool add_bos = false;      // llama.cpp puts BOS before a text
  const HfSettings* settings = nullptr;  // of what the model was imported from (add_bos among them)
  GgufGeneral general;                   // empty texts are left out
  std::string source_sha256;             // coppice.source_sha256: what the model was made from; empty = left out
  std::string version;                   // coppice.version; empty = left out
};

struct GgufExportReport {
  double max_logit_difference = 0;  // re-imported against ours, fp32; beside f32 what rounding did
  uint64_t bytes = 0;
};

/// Writes `.tmp-*`, reads it back, compares every weight with the rounded one (exactly), token ids and, for f32, logits
/// on fixed prompts (above 1e-4: nothing is renamed, InternalError), renames. UserError::recipe for a type that is not
/// known or rows that do not divide into its blocks; weights that are not finite are never exported.
GgufExportReport export_gguf(const std::filesystem::path& file, const Model& model, const Tokenizer& tokenizer,
                             const GgufExportOptions& options = {});
/// Refuses what export_gguf() would, short of weights and disk: type, block sizes, architecture, tokenizer.
void check_gguf_export(const ModelConfig& config, const Tokenizer& tokenizer, const GgufExportOptions& options);

}  // namespace coppice
