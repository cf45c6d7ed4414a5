#include "recipes/compress/write_recipe.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "recipes/compress/recipe_text.h"
#include "recipes/folder/machine.h"
#include "recipes/folder/run_folder.h"
#include "recipes/language/sources.h"
#include "recipes/run/before_work.h"
#include "recipes/run/cost.h"
#include "recipes/run/recipe_warnings.h"
#include "src/base/errors.h"
#include "src/base/log.h"
#include "src/base/signals.h"
#include "src/model/parameters.h"
#include "src/tensors/shape.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

constexpr double kLeastDocuments = 10;
constexpr double kMeasuredShare = 0.005, kMeasuredMost = 20;  // of the time asked for, and seconds: each kind of pass

/// The recipe under a name that is not final; gone unless it was given its own.
class Draft {
 public:
  explicit Draft(const CompressPlace& place) : place_(place), path_(temporary_path(place.file)) {}
  ~Draft() {
    std::error_code error;
    fs::remove(path_, error);
  }
  Draft(const Draft&) = delete;
  Draft& operator=(const Draft&) = delete;
  Recipe load(const std::string& text) {
    write_file_atomically(path_, text);
    return load_recipe(path_.string(), {}, {}, std::make_shared<Sources>(place_.out));
  }
  void commit() { commit_rename(path_, place_.file); }

 private:
  const CompressPlace& place_;
  fs::path path_;
};

/// What a run takes besides tokens, as far as it is known before.
CompressWork work_of(const CompressSource& source, const CompressText& text, const CompressTarget& target,
                     const CompressRequest& request) {
  constexpr double kPasses = 3, kReadBytes = 2e8;  // hashed, surveyed, tokenized; a second
  return {.source_bytes = model_bytes(source.config),
          .student_bytes = model_bytes(target.config),
          .text_s = text.bytes * (kPasses / kReadBytes + text.encode_s / num_threads()),
          .text_tokens = text.tokens(),
          .num_formats = static_cast<double>(request.formats.size())};
}

/// What it will do, and the table of `plan`, its times as the schedule is held to take. Refuses what does not fit.
std::string plan_text(const Compression& compression, const Recipe& recipe, const std::vector<StageSeconds>& seconds,
                      const fs::path& root) {
  RecipeCost cost = estimate_cost(recipe, compression.text.bytes, 0);
  for (StageCost& stage : cost.stages)
    for (const StageSeconds& known : seconds)
      if (known.stage == stage.name) stage.seconds = known.seconds;
  check_fits(cost, root);
  const double share = recipe.data.heldout_share, tokens = compression.text.tokens();
  std::vector<std::string> lines = recipe_warnings(recipe);
  std::ranges::copy(corpus_warnings(recipe, {.train = {{"text", tokens * (1 - share)}}, .heldout = tokens * share}),
                    std::back_inserter(lines));
  return fmt::format("{}\n{}{}", compress_plan(compression, total_seconds(seconds)), cost_table(recipe, cost),
                     warnings_text(lines));
}

/// No more than what is held out, in whole windows.
void limit_scores(Schedule& schedule, double heldout_tokens) {
  const int64_t seq_len = schedule.shape.seq_len, windows = static_cast<int64_t>(heldout_tokens) / seq_len;
  schedule.scored_tokens = std::min(schedule.scored_tokens, std::max<int64_t>(1, windows) * seq_len);
}

}  // namespace

CompressPlace place_of(const std::string& name, const std::string& out, const CompressSource& source,
                       const CompressTarget& target) {
  CompressPlace place{.name = name.empty() ? fmt::format("{}-{}", source.name, target.width) : name,
                      .out = out,
                      .file = {},
                      .root = {}};
  if (place.name.find('/') != std::string::npos)
    throw UserError::recipe("--name", fmt::format("got '{}', expected a name without '/': the recipe is written to the "
                                                  "working folder, and -o says where the run lies",
                                                  printable(place.name)));
  place.file = place.name + ".toml";
  place.root = out.empty() ? fs::path("runs") / place.name : fs::path(out);
  return place;
}

bool is_begun(const CompressPlace& place, const CompressRequest& request) {
  constexpr const char* kRemedy = "choose another --name, or move it away";
  if (!fs::exists(place.file)) {
    if (fs::exists(place.root / "recipe.toml"))
      throw UserError::recipe("--name", fmt::format("{} holds a run already, and there is no {}; {}",
                                                    place.root.string(), place.file.string(), kRemedy));
    return false;
  }
  const std::string text = read_file(place.file, 1 << 20), first = text.substr(0, text.find('\n'));
  if (first != request_line(request))
    throw UserError::recipe("--name", fmt::format("{} answers another request ({}); {}", place.file.string(),
                                                  first.starts_with("# coppice compress ") ? printable(first.substr(2))
                                                                                           : "not one of compress",
                                                  kRemedy));
  return true;
}

std::string write_recipe(const CompressRequest& request, const CompressSource& source, const CompressTarget& target,
                         const CompressPlace& place, bool dry_run) {
  const CompressText text = look_at_text(request.text, source.tokenizer);
  if (text.documents < kLeastDocuments)
    throw UserError::recipe(
        "--text",
        fmt::format("{} holds {:.0f} documents, expected at least {:.0f}: held-out text is set aside by whole "
                    "documents; cut long ones into several",
                    request.text, text.documents, kLeastDocuments));
  const BatchShape shape = batch_shape(source.config, source.longest);
  const CompressWork work = work_of(source, text, target, request);
  CompressSpeeds speeds = estimate_speeds(source.config, target.config, shape, gemm_gflops());
  Schedule schedule = schedule_for(request.tokens > 0 ? request.tokens : least_tokens(shape), shape, speeds);
  const Compression compression{request, source, text, target, schedule, speeds, place.name};
  Draft draft(place);
  Recipe recipe = draft.load(compress_recipe(compression));
  check_before_work(recipe, Missing::refused);
  if (request.tokens == 0) {
    check_fits(estimate_cost(recipe, text.bytes, 0), place.root);  // measuring takes as much memory as the run
    install_signal_handlers();  // measuring takes minutes; what stops it leaves no draft
    log_info("measuring how fast this machine is with these shapes");
    speeds = measure_speeds(source.config, target.config, shape,
                            std::min(kMeasuredShare * 3600 * request.hours, kMeasuredMost));
    schedule = schedule_for_hours(request.hours, shape, speeds, work);
  }
  check_epochs(schedule, text.tokens());
  limit_scores(schedule, text.tokens() * heldout_share(text));
  recipe = draft.load(compress_recipe(compression));
  const std::string plan = plan_text(compression, recipe, seconds_of_stages(schedule, speeds, work), place.root);
  if (!dry_run) draft.commit();
  return fmt::format("{}\n{} {}, and its run {} in {}\n", plan, dry_run ? "the recipe would be" : "the recipe is",
                     place.file.string(), dry_run ? "would lie" : "lies", place.root.string());
}

std::string result_text(const fs::path& run_root) {
  const Recipe recipe = load_recorded_recipe(run_root);
  const auto parameters = [](const ModelConfig& config) {
    return format_count(static_cast<double>(count_parameters(config)));
  };
  std::string text;
  for (const Stage& stage : recipe.stages) {
    const std::optional<StageManifest> manifest =
        stage.kind == "export" ? find_stage_manifest(run_root / stage.name) : std::nullopt;
    if (!manifest) continue;
    const std::string path = (run_root / stage.name / "manifest.json").string();
    for (const auto& [format, result] : object_at(manifest->body, "results", path).items()) {
      fs::path written = run_root / stage.name / format;
      if (result.contains("file")) written /= string_at(result, "file", path);
      text += fmt::format("verified: {}, {}, {} -> {} parameters\n", written.string(),
                          format_bytes(number_at(result, "bytes", path)), parameters(recipe.models.at("source")),
                          parameters(recipe.model_after(stage.inputs().front())));
    }
  }
  return text;
}

}  // namespace coppice
