// One row a format; the first that matches answers.
#include "src/checkpoint/given_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <future>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/log.h"
#include "src/checkpoint/checkpoint.h"
#include "src/checkpoint/folder_commit.h"
#include "src/checkpoint/gguf_import.h"
#include "src/checkpoint/hf_import.h"
#include "src/checkpoint/model_card.h"
#include "src/tokens/gguf_vocabulary.h"

namespace coppice {

namespace fs = std::filesystem;

namespace {

constexpr const char* kFactsFormat = "coppice.import";

Json reference_json(const GgufReference& reference) {
  Json json = {{"name", reference.name}};
  for (const auto& [key, value] : {std::pair{"version", &reference.version},
                                   {"organization", &reference.organization},
                                   {"repo_url", &reference.repo_url}})
    if (!value->empty()) json[key] = *value;
  return json;
}

Json origin_json(const GgufGeneral& general) {
  Json origin = Json::object();
  for (const auto& [key, value] : {std::pair{"name", &general.name},
                                   {"license", &general.license},
                                   {"license_name", &general.license_name},
                                   {"license_link", &general.license_link}})
    if (!value->empty()) origin[key] = *value;
  for (const GgufReference& base : general.base_models) origin["base_models"].push_back(reference_json(base));
  for (const GgufReference& data : general.datasets) origin["datasets"].push_back(reference_json(data));
  return origin;
}

Json gguf_origin(const fs::path& path) {
  const GgufFacts facts = gguf_facts(path);
  Json origin = origin_json(facts.general);
  if (facts.quantised) origin["weight_type"] = facts.weight_type;
  return origin;
}

GivenShape hf_shape(const fs::path& path) {
  const HfShape shape = import_hf_config(path);
  return {.config = shape.config, .attention_window = shape.attention_window};
}

Tokenizer tokenizer_of_folder(const fs::path& folder) {
  const std::optional<fs::path> file = tokenizer_in(folder);
  if (!file)
    throw UserError::bad_file(folder.string(), "has no tokenizer.model and no tokenizer.json: a model needs its own");
  return Tokenizer::load(*file);
}

Json facts_of(const fs::path& folder) { return read_sealed(folder / kImportedFacts, kFactsFormat, 1); }

Model read_imported(const fs::path& folder, int64_t vocab_size, const Placement& placement = {}) {
  LoadedModel loaded = load_model(folder / "model", placement);
  if (const int64_t rows = loaded.model.config.vocab_size; vocab_size != 0 && vocab_size != rows)
    throw UserError::bad_file(folder.string(),
                              fmt::format("its vocabulary has {} ids, {} were asked for", rows, vocab_size));
  return std::move(loaded.model);
}

struct Format {
  bool (*matches)(const fs::path&);
  GivenShape (*shape)(const fs::path&);
  void (*check)(const fs::path&);
  StoredWeights (*weights)(const fs::path&, int64_t vocab_size);  // null: a folder of ours, see read_imported
  std::string (*sha256)(const fs::path&);
  ReadSettings (*settings)(const fs::path&, const Tokenizer&);
  Json (*origin)(const fs::path&);
  Tokenizer (*tokenizer)(const fs::path&);
};

constexpr std::array<Format, 3> kFormats{{
    {.matches = is_gguf,
     .shape = [](const fs::path& path) { return GivenShape{.config = import_gguf_config(path)}; },
     .check = check_gguf_file,
     .weights = gguf_weights,
     .sha256 = [](const fs::path& path) { return sha256_file(path); },
     .settings = [](const fs::path& path, const Tokenizer&) { return gguf_settings(path); },
     .origin = gguf_origin,
     .tokenizer = [](const fs::path& path) { return tokenizer_from_gguf(gguf_tokenizer(path), path.string()); }},
    {.matches = [](const fs::path& path) { return fs::is_regular_file(path / kImportedFacts); },
     .shape =
         [](const fs::path& path) {
           return GivenShape{.config = load_model_config(path / "model"),
                             .attention_window = facts_of(path).at("attention_window").get<int64_t>()};
         },
     .check = [](const fs::path& path) { load_model_config(path / "model"); },
     .weights = nullptr,
     .sha256 = [](const fs::path& path) { return sha256_hex(read_file(path / "model" / "manifest.json")); },
     .settings =
         [](const fs::path& path, const Tokenizer&) {
           return ReadSettings{.settings = load_hf_settings(path / kHfSettingsFile), .left_behind = {}};
         },
     .origin = [](const fs::path& path) { return facts_of(path).at("origin"); },
     .tokenizer = [](const fs::path& path) { return tokenizer_of_folder(path / kImportedTokenizer); }},
    {.matches = [](const fs::path&) { return true; },
     .shape = hf_shape,
     .check = check_hf_files,
     .weights = hf_weights,
     .sha256 = hf_folder_sha256,
     .settings = read_hf_settings,
     .origin = [](const fs::path& path) { return origin_json(read_model_card(path)); },
     .tokenizer = tokenizer_of_folder},
}};

const Format& format_of(const fs::path& path) {
  return *std::ranges::find_if(kFormats, [&](const Format& format) { return format.matches(path); });
}

}  // namespace

bool is_gguf(const fs::path& path) {
  std::error_code error;
  if (!fs::is_regular_file(path, error)) return false;
  std::array<char, 4> magic{};
  std::ifstream(path, std::ios::binary).read(magic.data(), magic.size());
  return std::string_view(magic.data(), magic.size()) == "GGUF";
}

bool is_given_model(const fs::path& path) {
  return is_gguf(path) || fs::is_regular_file(path / kImportedFacts) || fs::is_regular_file(path / "config.json");
}

GivenShape given_shape(const fs::path& path) { return format_of(path).shape(path); }

void check_given_files(const fs::path& path) { format_of(path).check(path); }

Model read_given_model(const fs::path& path, int64_t vocab_size, const Placement& placement) {
  const Format& format = format_of(path);
  return format.weights != nullptr ? read_model(format.weights(path, vocab_size), placement)
                                   : read_imported(path, vocab_size, placement);
}

void save_given_model(const fs::path& folder, const fs::path& given, int64_t vocab_size, Json facts) {
  const Format& format = format_of(given);
  if (format.weights != nullptr)
    save_model(folder, format.weights(given, vocab_size), std::move(facts));
  else
    save_model(folder, read_imported(given, vocab_size), std::move(facts));
}

std::string given_model_sha256(const fs::path& path) { return format_of(path).sha256(path); }

ReadSettings given_settings(const fs::path& path, const Tokenizer& tokenizer) {
  return format_of(path).settings(path, tokenizer);
}

Json given_origin(const fs::path& path) { return format_of(path).origin(path); }

Tokenizer given_tokenizer(const fs::path& path) {
  std::error_code error;
  const bool is_file = fs::is_regular_file(path, error) && !is_gguf(path);
  return is_file ? Tokenizer::load(path) : format_of(path).tokenizer(path);
}

Json import_into(const fs::path& folder, const fs::path& given) {
  check_given_files(given);
  const GivenShape shape = given_shape(given);
  const Tokenizer tokenizer = given_tokenizer(given);
  const std::optional<int64_t> padded = padded_rows(shape.config.vocab_size, tokenizer.vocab_size());
  if (!padded)
    throw UserError::bad_file(given.string(),
                              fmt::format("{} rows in the vocabulary table, but its tokenizer has {} ids; every id "
                                          "needs a row",
                                          shape.config.vocab_size, tokenizer.vocab_size()));
  Json facts = {{"format", kFactsFormat},
                {"version", 1},
                {"attention_window", shape.attention_window},
                {"padded_rows", *padded},
                {"origin", given_origin(given)}};
  const fs::path temporary = start_temporary_folder(folder);
  try {
    // one thread hashes what was given while the other reads it
    std::future<std::string> sha256 = std::async(std::launch::async, given_model_sha256, given);
    save_given_model(temporary / "model", given, tokenizer.vocab_size(),
                     {{"tokenizer_sha256", tokenizer.fingerprint()}});
    make_folder(temporary / kImportedTokenizer);
    tokenizer.save(temporary / kImportedTokenizer);
    const auto [settings, left_behind] = given_settings(given, tokenizer);
    for (const std::string& line : left_behind) log_warning("not kept for exports: " + line);
    save_hf_settings(temporary / kHfSettingsFile, settings);
    facts["sha256_of_source"] = sha256.get();
    write_file_atomically(temporary / kImportedFacts, seal(facts));
    commit_folder(temporary, folder);
  } catch (...) {
    discard_folder(temporary);
    throw;
  }
  return facts;
}

}  // namespace coppice
