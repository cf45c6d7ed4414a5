#include "recipes/stages/export.h"

#include <fmt/format.h>

#include <filesystem>
#include <memory>

#include "recipes/commands/open_model.h"
#include "recipes/commands/verbs.h"
#include "recipes/folder/machine.h"
#include "recipes/stages/export_facts.h"
#include "src/base/errors.h"
#include "src/base/log.h"
#include "src/checkpoint/gguf_export.h"
#include "src/checkpoint/hf_export.h"
#include "src/checkpoint/hf_settings.h"
#include "src/checkpoint/model_card.h"
#include "src/tensors/shape.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

struct Flags {
  std::string stage, out, dtype = "f32", quantization = "f32";
  std::vector<std::string> formats = {"hf"};
};

/// One format goes to what -o names; several into a folder of that name.
fs::path place_of(const Flags& flags, const std::string& format) {
  if (flags.formats.size() == 1) return flags.out;
  return fs::path(flags.out) / (format == "gguf" ? "model.gguf" : "hf");
}

void export_stage(const Flags& flags) {
  start_torch(0);
  if (fs::exists(flags.out))
    throw UserError::recipe("-o", fmt::format("{} exists already; name a folder or file to create", flags.out));
  const auto [loaded, tokenizer] = open_model(flags.stage);
  const ExportFacts facts = facts_for_export(flags.stage, tokenizer);
  if (const std::string warning = prefix_warning(tokenizer); !warning.empty()) log_warning(warning);
  for (const std::string& format : flags.formats) {
    const fs::path place = place_of(flags, format);
    if (format == "gguf") {
      const GgufExportReport report = export_gguf(place, loaded.model, tokenizer,
                                                  {.type = flags.quantization,
                                                   .settings = facts.kept(),
                                                   .general = facts.general,
                                                   .source_sha256 = loaded.sha256,
                                                   .version = versions_json().at("coppice").get<std::string>()});
      fmt::print("{}: {}, every weight read back, logits differ by {:.2e}\n", place.string(),
                 format_bytes(static_cast<double>(report.bytes)), report.max_logit_difference);
    } else {
      const HfExportReport report = export_hf(place, loaded.model, tokenizer, flags.dtype,
                                              {.model_card = model_card_text(facts.general), .settings = facts.kept()});
      fmt::print("{}: {}, re-imported logits differ by {:.2e}\n", place.string(),
                 format_bytes(static_cast<double>(report.bytes)), report.max_logit_difference);
    }
  }
}

}  // namespace

void add_export(CLI::App& app, Action& action) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* exports = add_verb(app, "export", "write a model for other programs",
                               "coppice export runs/demo/long -o demo.gguf --format gguf --quantization q8_0");
  exports->add_option("model", flags->stage, "stage folder of a run, or any model that coppice opens")->required();
  exports->add_option("-o,--out", flags->out, "folder (hf, or several formats) or file (gguf) to create")->required();
  exports->add_option("--format", flags->formats, "hf, gguf, or both: hf,gguf")
      ->delimiter(',')
      ->check(CLI::IsMember({"hf", "gguf"}));
  exports->add_option("--dtype", flags->dtype, "of the Hugging Face folder: f32 or bf16")
      ->check(CLI::IsMember({"f32", "bf16"}));
  exports->add_option("--quantization", flags->quantization, "of the GGUF file: f32, f16, bf16, q8_0 or q4_0")
      ->check(CLI::IsMember({"f32", "f16", "bf16", "q8_0", "q4_0"}));
  exports->callback([flags, &action] { action = [flags] { export_stage(*flags); }; });
}

}  // namespace coppice
