// The model card (README.md) of a Hugging Face folder: under which license a model is, what it is called, what it was
// made from. config.json says none of it: its _name_or_path is where transformers once loaded from, somebody's path or
// the model before. Keys as the hub and llama.cpp's converter know them.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "src/checkpoint/gguf_metadata.h"

namespace coppice {

inline constexpr const char* kModelCardFile = "README.md";

/// From the YAML between two lines "---" that a card begins with: license, license_name, license_link where it is an
/// address, model_name or name, base_model; texts above 1 kB or of more than one line are left out. UserError::bad_file
/// where that YAML does not end within 256 KiB, or parse_yaml() refuses it.
GgufGeneral parse_model_card(std::string_view text, const std::string& where);

/// Of a folder; where the card names no license, that of a file LICENSE: apache-2.0 and mit by their words, "other"
/// with its first line as license_name. A card that cannot be read is said in a warning and says nothing.
GgufGeneral read_model_card(const std::filesystem::path& folder);

/// "organization/name", or the name alone.
std::string model_id(const GgufReference& model);
/// The card of a model that was made from others; empty without a license that it could name.
std::string model_card_text(const GgufGeneral& general);

}  // namespace coppice
