// import: padded rows of the vocabulary are cut; whatever else differs from what we train was refused with the recipe.
#include "recipes/stages/import.h"

#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "recipes/language/recipe_reading.h"
#include "recipes/language/sources.h"
#include "recipes/stages/context.h"
#include "recipes/stages/stage_cost.h"
#include "recipes/stages/stages.h"
#include "src/base/errors.h"
#include "src/base/log.h"
#include "src/checkpoint/checkpoint.h"
#include "src/checkpoint/given_model.h"
#include "src/checkpoint/hf_import.h"
#include "src/checkpoint/hf_settings.h"
#include "src/model/parameters.h"

namespace coppice {
namespace {

/// Ids must mean the same to the imported model and to the data; known before any work, from config.json and the two
/// tokenizers.
void check_ids(const ImportStage& import, const TokenizerOptions& tokenizer, Sources& sources,
               const std::string& where) {
  const std::filesystem::path model_file = std::filesystem::path(import.path) / "tokenizer.model";
  const bool has_own_file = std::filesystem::is_regular_file(model_file) || sources.recorded("tokenizer", model_file);
  const std::string own = has_own_file ? model_file.string() : import.path;
  check(!tokenizer.path.empty(), where,
        fmt::format("path: an imported model needs its own tokenizer; set tokenizer.path = \"{}\"", own));
  const std::string ids = tokenizer_fingerprint(sources, own),
                    data_ids = tokenizer_fingerprint(sources, tokenizer.path);
  check(ids == data_ids, where,
        fmt::format("path: the model in {} was trained with another tokenizer: {} there, {} in {}", import.path, ids,
                    data_ids, tokenizer.path));
  check(padded_rows(import.config.vocab_size, tokenizer.vocab_size).has_value(), where,
        fmt::format("path: the model in {} has {} rows in its vocabulary table (tokenizer {}), the data {} ids "
                    "(tokenizer {}); every id needs a row",
                    import.path, import.config.vocab_size, ids, tokenizer.vocab_size, data_ids));
}

std::any read(OptionTable& table, const Recipe& recipe, uint64_t) {
  ImportStage import;
  table.read(import);
  const std::string where = table.where("path");
  check(!import.path.empty(), where, "path: missing; name a Hugging Face folder or a GGUF file");
  const GivenShape shape = shape_of(*recipe.sources, import.path);
  import.config = shape.config;
  import.attention_window = shape.attention_window;
  check_ids(import, recipe.tokenizer, *recipe.sources, where);
  import.config.vocab_size = recipe.tokenizer.vocab_size;
  return import;
}

std::vector<std::string> inputs(const Stage&) { return {}; }

ModelConfig leaves_model(const Recipe&, const Stage& stage) { return stage.get<ImportStage>().config; }

std::vector<OutsideSource> needs(const Recipe&, const Stage& stage) {
  return {{stage.get<ImportStage>().path, "its model is imported from there"}};
}

Json identity(const Recipe& recipe, const Stage& stage) {
  const std::string& path = stage.get<ImportStage>().path;
  return {{"folder", recipe.sources->look_text("weights", path, [&] { return given_model_sha256(path); })}};
}

void cost(const CostBasis&, const Stage& stage, StageCost& cost) {
  const ModelConfig& config = stage.get<ImportStage>().config;
  cost.parameters = count_parameters(config);
  cost.memory_bytes = model_bytes(config);
  cost.disk_bytes = model_bytes(config);
}

void check_early(const BeforeWork&, const Stage& stage) { check_given_files(stage.get<ImportStage>().path); }

/// Texts that the folder adds to its tokenizer are ids that no text of ours ever has.
void warn_of_added_tokens(const StageContext& context, const std::string& folder) {
  constexpr size_t kShown = 5;
  const std::vector<std::string> added = added_tokens(folder, *context.data.tokenizer);
  if (added.empty()) return;
  std::string names;
  for (size_t i = 0; i < std::min(added.size(), kShown); ++i)
    names += fmt::format("{}'{}'", i == 0 ? "" : ", ", printable(added[i]));
  log_warning(fmt::format("stage '{}': {} adds {} tokens to its {} that do not come along: {}{}", context.stage.name,
                          folder, added.size(), context.data.tokenizer->file_name(), names,
                          added.size() > kShown ? ", ..." : ""));
}

/// Keeps for exports what the folder says beside weights and ids.
void keep_settings(const StageContext& context, const std::string& folder) {
  const auto [settings, left_behind] = given_settings(folder, *context.data.tokenizer);
  for (const std::string& line : left_behind)
    log_warning(fmt::format("stage '{}': not kept for exports: {}", context.stage.name, line));
  if (const std::string summary = settings.summary(); !summary.empty())
    log_info(fmt::format("stage '{}': kept for exports: {}", context.stage.name, summary));
  if (settings.add_bos == true)
    log_warning(
        fmt::format("stage '{}': its tokenizer puts BOS before every text (add_bos_token), coppice none: it trains, "
                    "labels and evaluates documents that "
                    "end with EOS and begin with their first token; an export puts BOS again",
                    context.stage.name));
  save_hf_settings(context.folder() / kHfSettingsFile, settings);
}

Json run(StageContext& context) {
  const auto& options = context.stage.get<ImportStage>();
  const int64_t rows = given_shape(options.path).config.vocab_size, vocab_size = options.config.vocab_size;
  if (rows > vocab_size)
    log_info(fmt::format("stage '{}': the vocabulary table of {} has {} padded rows beyond {} ids: they are cut",
                         context.stage.name, options.path, rows - vocab_size, vocab_size));
  if (options.attention_window > 0)
    log_info(
        fmt::format("stage '{}': {} slides a window over texts longer than {} tokens; up to there it is a plain model, "
                    "which is what is imported",
                    context.stage.name, options.path, options.attention_window));
  if (std::filesystem::is_directory(options.path)) warn_of_added_tokens(context, options.path);
  keep_settings(context, options.path);
  Json results = {{"padded_rows", rows - vocab_size}};
  if (const Json origin = given_origin(options.path); !origin.empty()) {
    results["origin"] = origin;
    if (origin.contains("license"))
      log_info(fmt::format("stage '{}': kept for exports: license {}", context.stage.name,
                           origin.value("license_name", origin.at("license").get<std::string>())));
    if (origin.contains("weight_type"))
      log_info(fmt::format("stage '{}': most weights of {} are {}: what is imported has been quantised once",
                           context.stage.name, options.path, origin.at("weight_type").get<std::string>()));
  }
  save_given_model(context.folder() / "model", options.path, vocab_size, model_facts(context));
  return {{"tokens", 0}, {"results", results}};
}

}  // namespace

const StageKind kImport = {.kind = "import",
                           .options = option_lines<ImportStage>,
                           .read = read,
                           .inputs = inputs,
                           .leaves_model = leaves_model,
                           .needs = needs,
                           .identity = identity,
                           .cost = cost,
                           .check = check_early,
                           .run = run};

const Stage* imported_from(const Recipe& recipe, std::string stage_name) {
  for (; !stage_name.empty(); stage_name = start_of(recipe.stage(stage_name)))
    if (const Stage& found = recipe.stage(stage_name); found.kind == kImport.kind) return &found;
  return nullptr;
}

void check_attention_window(const Recipe& recipe, const Stage& stage, const std::string& model, const char* key,
                            int64_t length) {
  const Stage* import = model.empty() ? nullptr : imported_from(recipe, model);
  const int64_t window = import == nullptr ? 0 : import->get<ImportStage>().attention_window;
  check(window == 0 || length <= window, stage.where,
        fmt::format("{}: {}: got {}, but the model of stage '{}' sees no more than {} tokens (sliding_window in its "
                    "config.json); expected at most that",
                    stage.name, key, length, import == nullptr ? "" : import->name, window));
}

}  // namespace coppice
