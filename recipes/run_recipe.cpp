#include "recipes/run_recipe.h"

#include <fmt/format.h>

#include <map>
#include <nlohmann/json.hpp>

#include "recipes/collect_report.h"
#include "recipes/cost.h"
#include "recipes/stages.h"
#include "src/base/errors.h"
#include "src/base/failpoint.h"
#include "src/base/log.h"
#include "src/base/signals.h"
#include "src/tensors/shape.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

struct PlannedStage {
  std::string name;
  std::string fingerprint;
  Json identity;
  bool done = false;
};

/// Moves a stage's folder to .old-<stage>-<8 hex>, so that a changed recipe never destroys a result.
void move_aside(const fs::path& root, const std::string& name, const std::string& old_fingerprint) {
  const fs::path target = root / fmt::format(".old-{}-{}", name, old_fingerprint.substr(0, 8));
  fs::remove_all(target);
  commit_rename(root / name, target);
  log_info(fmt::format("stage '{}' was made with other options: moved to {}", name, target.string()));
}

/// Fingerprints of data and stages, set beside what the folder holds. Exit 2 listing what would run again, unless `rerun`.
std::vector<PlannedStage> plan_stages(const Recipe& recipe, const RunFolder& run, const Json& data, bool rerun) {
  std::vector<PlannedStage> planned = {{.name = "data", .fingerprint = fingerprint(data), .identity = data}};
  std::map<std::string, std::string> fingerprints;
  for (const Stage& stage : recipe.stages) {
    const Json identity = stage_identity(recipe, stage, fingerprints, planned[0].fingerprint);
    fingerprints[stage.name] = fingerprint(identity);
    planned.push_back({.name = stage.name, .fingerprint = fingerprints[stage.name], .identity = identity});
  }
  std::vector<std::pair<std::string, std::string>> changed;  // name, old fingerprint
  for (PlannedStage& stage : planned) {
    const fs::path folder = run.stage(stage.name);
    const auto manifest = find_stage_manifest(folder);
    const std::string held = manifest ? manifest->fingerprint : begun_fingerprint(folder);
    if (!held.empty() && held != stage.fingerprint) changed.emplace_back(stage.name, held);
    stage.done = manifest && manifest->fingerprint == stage.fingerprint;
  }
  if (changed.empty()) return planned;
  if (!rerun) {
    std::string names;
    for (const auto& [name, held] : changed) names += (names.empty() ? "" : ", ") + name;
    throw UserError::recipe("", fmt::format("{} holds results of other options for: {}; run with --rerun to move them aside and run these stages again, or choose another folder with --out", run.root().string(), names));
  }
  for (const auto& [name, held] : changed) move_aside(run.root(), name, held);
  return planned;
}

const StageRow& row_of(const std::string& kind) {
  for (const StageRow& row : stage_table())
    if (kind == row.kind) return row;
  throw InternalError("no stage kind " + kind);
}

const TrainingOptions* training_of(const Stage& stage) {
  if (const auto* train = std::get_if<TrainStage>(&stage.options)) return &train->training;
  if (const auto* masks = std::get_if<LearnMasksStage>(&stage.options)) return &masks->training;
  return nullptr;
}

/// Loads and checks what needs no work yet; opens the folder for this process alone.
struct OpenedRun {
  Recipe recipe;
  std::unique_ptr<RunFolder> run;
  std::vector<PlannedStage> stages;
};

OpenedRun open_run(const RunRequest& request) {
  OpenedRun opened{.recipe = load_recipe(request.recipe_file, request.overrides, request.unset)};
  const Recipe& recipe = opened.recipe;
  start_torch(recipe.threads);
  const fs::path root = run_root(request, recipe);
  if (request.fresh && fs::exists(root / "recipe.toml")) throw UserError::recipe("--fresh", fmt::format("{} already holds a run; leave --fresh out to go on with it", root.string()));
  const Json data = data_identity(recipe);
  check_fits(estimate_cost(recipe, corpus_bytes(recipe), 0), root);
  opened.run = std::make_unique<RunFolder>(root);
  opened.stages = plan_stages(recipe, *opened.run, data, request.rerun);
  set_log_file(root / "log.txt");
  write_file_atomically(root / "recipe.toml", recipe.resolved);
  return opened;
}

}  // namespace

fs::path run_root(const RunRequest& request, const Recipe& recipe) { return request.out.empty() ? fs::path("runs") / recipe.name : request.out; }

void run_recipe(const RunRequest& request) {
  const OpenedRun opened = open_run(request);
  const Recipe& recipe = opened.recipe;
  RunFolder& run = *opened.run;
  const bool complete = std::ranges::all_of(opened.stages.begin() + 1, opened.stages.end(), &PlannedStage::done);
  if (complete) {
    fmt::print("already complete\n");
  } else {
    run.write_run_file(recipe);
    for (const Stage& stage : recipe.stages)
      if (const TrainingOptions* training = training_of(stage); training && training->steps() * training->batch_tokens != training->tokens)
        log_info(fmt::format("stage '{}': {} tokens are {} steps of {}", stage.name, training->tokens, training->steps(), training->batch_tokens));
    const PreparedData data = prepare_data(recipe, run, opened.stages[0].identity);
    for (const Stage& stage : recipe.stages)  // a domain without one whole window is refused before the first stage
      if (const TrainingOptions* training = training_of(stage)) Loader(data.shards_of(training->mixture), training->mixture, {.seq_len = training->seq_len});
    for (size_t i = 0; i < recipe.stages.size(); ++i) {
      const Stage& stage = recipe.stages[i];
      const PlannedStage& planned = opened.stages[i + 1];
      if (planned.done) {
        log_info(fmt::format("stage '{}': already complete", stage.name));
        continue;
      }
      run.begin_stage(stage.name, planned.fingerprint, planned.identity);
      StageContext context{.recipe = recipe, .stage = stage, .run = run, .data = data, .fingerprint = planned.fingerprint, .identity = planned.identity};
      const double begin_s = monotonic_s();
      try {
        Json body = row_of(stage.kind).run(context);
        if (training_of(stage) == nullptr) run.add_seconds(stage.name, monotonic_s() - begin_s);  // training counts its own, checkpoint by checkpoint
        (void)COPPICE_FAILPOINT("stage.before_manifest");
        body["identity"] = planned.identity;
        run.finish_stage(stage.name, stage.kind, planned.fingerprint, body);
      } catch (const Stopped&) {
        write_report(run.root());
        throw;
      }
      if (const TrainingOptions* training = training_of(stage); training && !training->keep_finished) fs::remove_all(context.folder() / "ckpt");
      write_report(run.root());
      if (stop_requested() && i + 1 < recipe.stages.size()) throw Stopped(fmt::format("stopped after stage '{}'; run again to go on", stage.name));
    }
  }
  const std::string verdict = write_report(run.root());
  fmt::print("{}\n\nreport: {}, .md, .json\n", verdict, (run.root() / "report.html").string());
}

void tokenize_recipe(const RunRequest& request) {
  const OpenedRun opened = open_run(request);
  const PreparedData data = prepare_data(opened.recipe, *opened.run, opened.stages[0].identity);
  for (const auto& [domain, shards] : data.train) {
    const auto heldout = data.heldout.find(domain);
    fmt::print("{}: {} tokens, {:.3f} bytes a token, {} held out\n", domain, shards.num_tokens(), static_cast<double>(shards.text_bytes()) / static_cast<double>(shards.num_tokens()),
               heldout == data.heldout.end() ? 0 : heldout->second.num_tokens());
  }
}

}  // namespace coppice
