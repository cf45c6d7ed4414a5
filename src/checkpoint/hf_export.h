// Export to a Hugging Face folder: config.json, model.safetensors, tokenizer.json, tokenizer_config.json, tokenizer.model, generation_config.json.
// Qwen3ForCausalLM with QK-norm, LlamaForCausalLM without. Layers of different width are padded with zero channels (exact).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "src/data/tokenizer.h"
#include "src/model/decoder.h"

namespace coppice {

struct HfExportReport {
  double max_logit_difference = 0;  // re-imported against ours, fp32
  uint64_t bytes = 0;
};

struct HfExportOptions {
  uint64_t shard_bytes = 5'000'000'000;  // above it: several files and an index
  bool add_bos = false;                  // the tokenizer puts BOS before a text; off, since token shards separate documents by EOS alone
};

/// Writes `.tmp-*`, reads it back, compares logits on fixed prompts (above 1e-4: nothing is renamed, InternalError), renames.
/// dtype "f32" or "bf16" (bf16: compared with a model whose weights were rounded).
HfExportReport export_hf(const std::filesystem::path& folder, const Model& model, const Tokenizer& tokenizer, const std::string& dtype,
                         const HfExportOptions& options = {});

/// Opens such a folder (our own exports, layers cut back to their true widths, and plain Llama / Qwen3 folders with tied or untied heads).
/// UserError::bad_file naming what is not supported, or the tensor with expected and found.
Model import_hf(const std::filesystem::path& folder);

/// tokenizer.json for a SentencePiece BPE model: ids equal SentencePiece's.
std::string tokenizer_json(const Tokenizer& tokenizer, bool add_bos);
/// Refuses (exit 2) a vocabulary in which a control, unknown or byte piece splits into two pieces.
void check_control_pieces(const Tokenizer& tokenizer);

}  // namespace coppice
