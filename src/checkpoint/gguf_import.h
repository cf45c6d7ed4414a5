// Import of a GGUF file: Llama, Qwen2 and Qwen3 models in one file, dequantised to float32; and our own exports.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "src/checkpoint/gguf_metadata.h"
#include "src/checkpoint/hf_settings.h"
#include "src/checkpoint/stored_weights.h"
#include "src/model/config.h"
#include "src/model/decoder.h"
#include "src/tokens/gguf_vocabulary.h"

namespace coppice {

/// The weights of a GGUF file (F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K), layers cut back to
/// their true widths. Of the vocabulary tables the first `vocab_size` rows are read (0 = all). Each tensor is read
/// once, straight to its place. UserError::bad_file naming what is not supported, or the tensor with expected and
/// found.
StoredWeights gguf_weights(const std::filesystem::path& path, int64_t vocab_size = 0);
Model import_gguf(const std::filesystem::path& path, int64_t vocab_size = 0);
/// Shape of the model that import_gguf() returns, all rows of its vocabulary tables included.
ModelConfig import_gguf_config(const std::filesystem::path& path);
/// Refuses what import_gguf() would, short of the weights' values: header, metadata, every tensor's name, type and
/// shape.
void check_gguf_file(const std::filesystem::path& path);
/// The tokenizer inside the file, for tokenizer_from_gguf().
GgufVocabulary gguf_tokenizer(const std::filesystem::path& path);

struct GgufFacts {
  std::string architecture;  // llama, qwen2, qwen3
  GgufGeneral general;
  std::string weight_type;  // of most weights: "Q4_1"
  bool quantised = false;   // some weights are held in fewer bits than F16 and BF16
};
GgufFacts gguf_facts(const std::filesystem::path& path);
/// End-of-text ids, BOS, chat template; see read_gguf_settings().
ReadSettings gguf_settings(const std::filesystem::path& path);

}  // namespace coppice
