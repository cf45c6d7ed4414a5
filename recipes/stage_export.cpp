// export: a folder that other programs open, read back and compared before it gets its name.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "recipes/stages.h"
#include "src/base/errors.h"
#include "src/base/log.h"
#include "src/checkpoint/hf_export.h"

namespace coppice {

namespace {

void warn_of_prefix(const Tokenizer& tokenizer, const std::string& stage) {
  if (const std::string piece = piece_without_prefix(tokenizer); !piece.empty())
    log_warning(
        fmt::format("stage '{}': in the exported tokenizer.json a text that is nothing but '{}', or another user-defined piece, has no dummy prefix; every "
                    "other text has SentencePiece's ids",
                    stage, printable(piece)));
}

}  // namespace

void check_export(const BeforeWork& before, const Stage& stage) {
  if (before.tokenizer == nullptr) return;
  check_exportable(*before.tokenizer, stage.where);
  if (before.missing == Missing::allowed) warn_of_prefix(*before.tokenizer, stage.name);  // a run says it when it writes the file
}

Json run_export(StageContext& context) {
  const auto& options = std::get<ExportStage>(context.stage.options);
  const LoadedModel loaded = load_model(context.model_folder(options.from));
  warn_of_prefix(*context.data.tokenizer, context.stage.name);
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
