#include "recipes/commands/open_model.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "recipes/folder/run_folder.h"
#include "src/base/errors.h"
#include "src/checkpoint/given_model.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

/// The stage folder's model: the folder itself or its model/ part.
fs::path model_folder(const fs::path& path) {
  const fs::path model =
      (fs::exists(path / "manifest.json") && read_json(path / "manifest.json").value("format", "") == "coppice.stage"
           ? result_folder(path)
           : path) /
      "model";
  return fs::exists(model / "manifest.json") ? model : path;
}

/// data/tokenizer of the run that holds this stage.
Tokenizer tokenizer_beside(const fs::path& stage) {
  fs::path root = fs::absolute(stage).lexically_normal();
  for (int up = 0; up < 4; ++up) {  // <run>/<stage>, its model/, and <run>/<arm>/seed-<n>/<stage>
    root = root.parent_path();
    if (const auto file = tokenizer_in(root / "data" / "tokenizer")) return Tokenizer::load(*file);
  }
  throw UserError::bad_file(stage.string(),
                            "no tokenizer in data/tokenizer of the run folder above it; give the folder of a run's "
                            "stage, for instance runs/demo/long, a Hugging Face folder, a GGUF file, or what coppice "
                            "import made");
}

void check_tokenizer(const LoadedModel& loaded, const Tokenizer& tokenizer, const fs::path& path) {
  const std::string expected = loaded.manifest.value("tokenizer_sha256", "");
  if (expected != tokenizer.fingerprint())
    throw UserError::bad_file(path.string(),
                              fmt::format("the model was trained with tokenizer {}, data/tokenizer is {}", expected,
                                          tokenizer.fingerprint()));
}

}  // namespace

Tokenizer open_tokenizer(const fs::path& path) {
  return is_given_model(path) ? given_tokenizer(path) : tokenizer_beside(path);
}

LoadedModel open_weights(const fs::path& path, const Tokenizer& tokenizer, const Placement& placement) {
  if (is_given_model(path))
    return {.model = read_given_model(path, tokenizer.vocab_size(), placement), .manifest = Json(), .sha256 = ""};
  LoadedModel loaded = load_model(model_folder(path), placement);
  check_tokenizer(loaded, tokenizer, path);
  return loaded;
}

std::string model_sha256(const fs::path& path) {
  if (is_given_model(path)) return given_model_sha256(path);
  std::string sha256;
  load_model_config(model_folder(path), &sha256);
  return sha256;
}

OpenedModel open_model(const fs::path& path, const Placement& placement) {
  Tokenizer tokenizer = open_tokenizer(path);
  return {.loaded = open_weights(path, tokenizer, placement), .tokenizer = std::move(tokenizer)};
}

std::vector<int32_t> prompt_ids(const std::filesystem::path& path, const Tokenizer& tokenizer,
                                std::string_view prompt) {
  std::vector<int32_t> ids;
  const bool given = is_given_model(path);
  const auto add = [&](int64_t id) { ids.push_back(static_cast<int32_t>(id)); };
  if (!given || (prompt.empty() && !tokenizer.bos_id())) add(tokenizer.eos_id());
  if (given && tokenizer.bos_id() && (tokenizer.adds_bos() || prompt.empty())) add(*tokenizer.bos_id());
  for (const int32_t id : tokenizer.encode(prompt)) ids.push_back(id);
  return ids;
}

}  // namespace coppice
