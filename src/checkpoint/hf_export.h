// Export to a Hugging Face folder: config.json, model.safetensors, tokenizer.json, tokenizer_config.json,
// tokenizer.model, generation_config.json. Qwen3ForCausalLM with QK-norm, Qwen2ForCausalLM with biases of q, k and v,
// LlamaForCausalLM without either. Layers of different width are padded with zero channels (exact).
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "src/model/decoder.h"
#include "src/tokens/tokenizer.h"

namespace coppice {

struct HfSettings;

struct HfExportReport {
  double max_logit_difference = 0;  // re-imported against ours, fp32
  uint64_t bytes = 0;
};

struct HfExportOptions {
  uint64_t shard_bytes = 5'000'000'000;  // above it: several files and an index
  bool add_bos =
      false;  // the tokenizer puts BOS before a text; off, since token shards separate documents by EOS alone
  std::string model_card;  // README.md (model_card.h); empty = none
  const HfSettings* settings =
      nullptr;  // of the folder that the model was imported from: written again (add_bos among them)
};

/// Writes `.tmp-*`, reads it back, compares logits on fixed prompts (above 1e-4: nothing is renamed, InternalError),
/// renames. dtype "f32" or "bf16" (bf16: compared with a model whose weights were rounded).
HfExportReport export_hf(const std::filesystem::path& folder, const Model& model, const Tokenizer& tokenizer,
                         const std::string& dtype, const HfExportOptions& options = {});

}  // namespace coppice
