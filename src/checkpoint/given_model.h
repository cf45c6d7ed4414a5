// A model that somebody names, whatever it is stored as: a Hugging Face folder, a GGUF file, or what `coppice import`
// made of one.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "src/base/json.h"
#include "src/checkpoint/hf_settings.h"
#include "src/model/config.h"
#include "src/model/decoder.h"
#include "src/tokens/tokenizer.h"

namespace coppice {

/// Whether the file begins as a GGUF file does.
bool is_gguf(const std::filesystem::path& path);

/// Whether a model lies there that one of the functions below would open.
bool is_given_model(const std::filesystem::path& path);

struct GivenShape {
  ModelConfig config;
  int64_t attention_window = 0;  // > 0: the model is plain up to so many tokens (its max_position_embeddings) and
                                 // slides a window beyond
};
/// Shape of the model that read_given_model() returns with all its rows, from its header or config.json alone.
/// UserError::bad_file by name for what is not supported, here and below.
GivenShape given_shape(const std::filesystem::path& path);
/// Refuses what read_given_model() would, short of the weights' values.
void check_given_files(const std::filesystem::path& path);
/// The model, with the first `vocab_size` rows of its vocabulary tables (0 = all), where it is to compute.
Model read_given_model(const std::filesystem::path& path, int64_t vocab_size = 0, const Placement& placement = {});
/// The same into a folder, as save_model() leaves it; of files from elsewhere a parameter at a time is held.
void save_given_model(const std::filesystem::path& folder, const std::filesystem::path& given, int64_t vocab_size,
                      Json facts);
/// SHA-256 of all that it is read from.
std::string given_model_sha256(const std::filesystem::path& path);
/// What it says beside weights and ids, as far as a model with this tokenizer can have it.
ReadSettings given_settings(const std::filesystem::path& path, const Tokenizer& tokenizer);
/// Where it comes from, as far as it says so: name, license, license_name, license_link, base_models and datasets (the
/// fields of GgufReference), weight_type where its weights were quantised. An empty object when it says nothing.
Json given_origin(const std::filesystem::path& path);
/// The tokenizer that belongs to it; of a tokenizer.model or tokenizer.json itself as well.
Tokenizer given_tokenizer(const std::filesystem::path& path);

// What `coppice import` leaves in a folder: model/ as a stage leaves it, and beside it:
inline constexpr const char* kImportedTokenizer = "tokenizer";
inline constexpr const char* kImportedFacts = "import.json";  // sealed: sha256 of the source, attention_window, origin
/// Imports into a new folder, committed by rename, as a recipe's import stage would: rows of the vocabulary that stand
/// for no id are cut. Returns the facts.
Json import_into(const std::filesystem::path& folder, const std::filesystem::path& given);

}  // namespace coppice
