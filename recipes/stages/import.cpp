// import: a model that was trained elsewhere, from a Hugging Face folder; padded rows of its vocabulary are cut,
// whatever else differs was refused with the recipe.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "recipes/stages/stages.h"
#include "src/base/errors.h"
#include "src/base/log.h"
#include "src/checkpoint/hf_import.h"
#include "src/checkpoint/hf_settings.h"

namespace coppice {
namespace {

/// Texts that the folder adds to its tokenizer are ids that no text of ours ever has.
void warn_of_added_tokens(const StageContext& context, const std::string& folder) {
  constexpr size_t kShown = 5;
  const std::vector<std::string> added = added_tokens(folder, *context.data.tokenizer);
  if (added.empty()) return;
  std::string names;
  for (size_t i = 0; i < std::min(added.size(), kShown); ++i)
    names += fmt::format("{}'{}'", i == 0 ? "" : ", ", printable(added[i]));
  log_warning(fmt::format("stage '{}': {} adds {} tokens to its tokenizer.model that do not come along: {}{}",
                          context.stage.name, folder, added.size(), names, added.size() > kShown ? ", ..." : ""));
}

/// Keeps for exports what the folder says beside weights and ids.
void keep_settings(const StageContext& context, const std::string& folder) {
  const auto [settings, left_behind] = read_hf_settings(folder, *context.data.tokenizer);
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

}  // namespace

void check_import(const BeforeWork&, const Stage& stage) { check_hf_files(std::get<ImportStage>(stage.options).path); }

Json run_import(StageContext& context) {
  const auto& options = std::get<ImportStage>(context.stage.options);
  Model model = import_hf(options.path);
  const int64_t rows = model.config.vocab_size, vocab_size = options.config.vocab_size;
  if (rows > vocab_size) {
    log_info(fmt::format("stage '{}': the vocabulary table of {} has {} padded rows beyond {} ids: they are cut",
                         context.stage.name, options.path, rows - vocab_size, vocab_size));
    model = without_padded_rows(model, vocab_size);
  }
  if (options.attention_window > 0)
    log_info(
        fmt::format("stage '{}': {} slides a window over texts longer than {} tokens; up to there it is a plain model, "
                    "which is what is imported",
                    context.stage.name, options.path, options.attention_window));
  warn_of_added_tokens(context, options.path);
  keep_settings(context, options.path);
  save_model(context.folder() / "model", model, model_facts(context));
  return {{"tokens", 0}, {"results", {{"padded_rows", rows - vocab_size}}}};
}

}  // namespace coppice
