// import: a model that was trained elsewhere, from a Hugging Face folder; padded rows of its vocabulary are cut, whatever else differs was refused with the
// recipe.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "recipes/stages.h"
#include "src/base/log.h"
#include "src/checkpoint/hf_export.h"

namespace coppice {

void check_import(const BeforeWork&, const Stage& stage) { check_hf_files(std::get<ImportStage>(stage.options).path); }

Json run_import(StageContext& context) {
  const auto& options = std::get<ImportStage>(context.stage.options);
  Model model = import_hf(options.path);
  const int64_t rows = model.config.vocab_size, vocab_size = options.config.vocab_size;
  if (rows > vocab_size) {
    log_info(fmt::format("stage '{}': the vocabulary table of {} has {} padded rows beyond {} ids: they are cut", context.stage.name, options.path,
                         rows - vocab_size, vocab_size));
    model = without_padded_rows(model, vocab_size);
  }
  save_model(context.folder() / "model", model, model_facts(context));
  return {{"tokens", 0}, {"results", {{"padded_rows", rows - vocab_size}}}};
}

}  // namespace coppice
