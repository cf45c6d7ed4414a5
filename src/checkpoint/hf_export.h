// Export to a Hugging Face folder: config.json, model.safetensors, tokenizer.json, tokenizer_config.json,
// tokenizer.model, generation_config.json. Qwen3ForCausalLM with QK-norm, LlamaForCausalLM without. Layers of different
// width are padded with zero channels (exact).
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "src/tokens/tokenizer.h"
#include "src/model/decoder.h"

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
  const HfSettings* settings =
      nullptr;  // of the folder that the model was imported from: written again (add_bos among them)
};

/// Writes `.tmp-*`, reads it back, compares logits on fixed prompts (above 1e-4: nothing is renamed, InternalError),
/// renames. dtype "f32" or "bf16" (bf16: compared with a model whose weights were rounded).
HfExportReport export_hf(const std::filesystem::path& folder, const Model& model, const Tokenizer& tokenizer,
                         const std::string& dtype, const HfExportOptions& options = {});

/// Opens such a folder (our own exports, layers cut back to their true widths, and plain Llama / Mistral / Qwen3
/// folders with tied or untied heads). UserError::bad_file naming what is not supported, or the tensor with expected
/// and found.
Model import_hf(const std::filesystem::path& folder);
/// Refuses what import_hf() would, short of the weights' values: config.json, index, and the header of every file,
/// without reading a parameter.
void check_hf_files(const std::filesystem::path& folder);
/// SHA-256 over the names and bytes of all that import_hf() and its tokenizer are read from.
std::string hf_folder_sha256(const std::filesystem::path& folder);
struct HfShape {
  ModelConfig config;
  int64_t attention_window =
      0;  // > 0: the model is plain up to so many tokens (its max_position_embeddings) and slides a window beyond
};
/// Shape of the model that import_hf() returns, from config.json alone.
HfShape import_hf_config(const std::filesystem::path& folder);

/// How many rows of a vocabulary table of `rows` rows stand for none of its tokenizer's `vocab_size` ids: rounded up
/// (151,936 against 151,643), or added and unknown to tokenizer.model (32,001 against 32,000). Nothing when ids lack a
/// row: the table belongs to another tokenizer.
std::optional<int64_t> padded_rows(int64_t rows, int64_t vocab_size);
/// The same model without the padded rows of its embedding and output tables.
Model without_padded_rows(const Model& model, int64_t vocab_size);

/// tokenizer.json for a SentencePiece BPE model that check_exportable() lets pass: ids equal SentencePiece's.
std::string tokenizer_json(const Tokenizer& tokenizer, bool add_bos);
/// Refuses at `where` (UserError::recipe) what tokenizer.json cannot say or other programs would read differently: a
/// control, unknown or byte piece that splits into two pieces, an unused piece that takes part in merges, BOS wanted
/// and none there.
void check_exportable(const Tokenizer& tokenizer, const std::string& where, bool add_bos = false);
/// A user-defined piece that a text with nothing else in it loses its dummy prefix to (see tokenizer_json.cpp); empty =
/// there is none.
std::string piece_without_prefix(const Tokenizer& tokenizer);

}  // namespace coppice
