// export: a folder that other programs open, read back and compared before it gets its name.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "recipes/stages.h"
#include "src/base/log.h"
#include "src/checkpoint/hf_export.h"

namespace coppice {

void check_export(const BeforeWork& before, const Stage&) {
  if (before.tokenizer != nullptr) check_control_pieces(*before.tokenizer);
}

Json run_export(StageContext& context) {
  const auto& options = std::get<ExportStage>(context.stage.options);
  const LoadedModel loaded = load_model(context.model_folder(options.from));
  Json results = Json::object();
  for (const std::string& format : options.formats) {
    const std::filesystem::path folder = context.folder() / format;
    const HfExportReport report = export_hf(folder, loaded.model, *context.data.tokenizer, options.dtype);
    log_info(fmt::format("stage '{}': {} written ({}), re-imported logits differ by {:.2e}", context.stage.name, folder.string(),
                         format_bytes(static_cast<double>(report.bytes)), report.max_logit_difference));
    results[format] = {{"reimport_logit_difference", report.max_logit_difference}, {"bytes", report.bytes}};
  }
  return {{"tokens", 0}, {"results", results}};
}

}  // namespace coppice
