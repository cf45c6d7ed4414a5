#include "recipes/stages/export.h"

#include <fmt/format.h>

#include <filesystem>
#include <memory>

#include "recipes/commands/stage_model.h"
#include "recipes/commands/verbs.h"
#include "src/base/errors.h"
#include "src/base/log.h"
#include "src/checkpoint/hf_export.h"
#include "src/checkpoint/hf_settings.h"
#include "src/tensors/shape.h"

namespace coppice {
namespace {

struct Flags {
  std::string stage, out, dtype = "f32";
  std::vector<std::string> formats = {"hf"};
};

void export_stage(const Flags& flags) {
  start_torch(0);
  if (std::filesystem::exists(flags.out))
    throw UserError::recipe("-o", fmt::format("{} exists already; name a folder to create", flags.out));
  const auto [loaded, tokenizer] = load_stage_model(flags.stage);
  const std::optional<HfSettings> settings = settings_for_export(flags.stage);
  if (const std::string warning = prefix_warning(tokenizer); !warning.empty()) log_warning(warning);
  const HfExportReport report =
      export_hf(flags.out, loaded.model, tokenizer, flags.dtype, {.settings = settings ? &*settings : nullptr});
  fmt::print("{}: {}, re-imported logits differ by {:.2e}\n", flags.out,
             format_bytes(static_cast<double>(report.bytes)), report.max_logit_difference);
}

}  // namespace

void add_export(CLI::App& app, Action& action) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* exports = add_verb(app, "export", "write a stage's model for other programs",
                               "coppice export runs/demo/long -o out --format hf");
  exports->add_option("stage", flags->stage, "stage folder of a run")->required();
  exports->add_option("-o,--out", flags->out, "folder to create")->required();
  exports->add_option("--format", flags->formats, "hf")->delimiter(',')->check(CLI::IsMember({"hf"}));
  exports->add_option("--dtype", flags->dtype, "f32 or bf16")->check(CLI::IsMember({"f32", "bf16"}));
  exports->callback([flags, &action] { action = [flags] { export_stage(*flags); }; });
}

}  // namespace coppice
