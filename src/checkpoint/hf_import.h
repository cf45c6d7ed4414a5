// Import of a Hugging Face folder: Llama, Mistral, Qwen2 and Qwen3 models, and our own exports.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "src/checkpoint/hf_config.h"
#include "src/checkpoint/stored_weights.h"
#include "src/model/config.h"
#include "src/model/decoder.h"

namespace coppice {

/// The weights of a Hugging Face folder (our own exports, layers cut back to their true widths, and plain Llama /
/// Mistral / Qwen2 / Qwen3 folders with tied or untied heads). Of the vocabulary tables the first `vocab_size` rows are
/// read (0 = all; padded_rows). UserError::bad_file naming what is not supported, or the tensor with expected and
/// found.
StoredWeights hf_weights(const std::filesystem::path& folder, int64_t vocab_size = 0);
Model import_hf(const std::filesystem::path& folder, int64_t vocab_size = 0);
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

/// The parameters of a model as large as the files say (padded layers stay padded), or with fewer rows in its
/// vocabulary tables and fewer FFN channels, which the files must hold first, zeros behind. Each tensor is read once,
/// straight to its place.
Model read_hf_model(const std::filesystem::path& folder, const HfConfig& hf, const ModelConfig& wanted);

}  // namespace coppice
