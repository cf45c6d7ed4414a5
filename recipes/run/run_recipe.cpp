#include "recipes/run/run_recipe.h"

#include <fmt/format.h>
#include <unistd.h>

#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

#include "recipes/folder/machine.h"
#include "recipes/folder/midway.h"
#include "recipes/folder/stage_changes.h"
#include "recipes/language/sources.h"
#include "recipes/language/training_options.h"
#include "recipes/run/before_work.h"
#include "recipes/run/collect_report.h"
#include "recipes/run/cost.h"
#include "recipes/run/device_plan.h"
#include "recipes/run/placed_cost.h"
#include "recipes/run/recipe_warnings.h"
#include "recipes/stages/context.h"
#include "recipes/stages/import.h"
#include "recipes/stages/label.h"
#include "recipes/stages/make_corpus.h"
#include "src/base/errors.h"
#include "src/base/failpoint.h"
#include "src/base/log.h"
#include "src/base/signals.h"
#include "src/tensors/attention.h"
#include "src/tensors/cuda_devices.h"
#include "src/tensors/executor/executor.h"
#include "src/tensors/shape.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

struct PlannedStage {
  std::string name;
  std::string fingerprint;
  Json identity;
  bool done = false;
  bool goes_on = false;  // from what lies there, though that had other options
  std::string held;      // fingerprint of what lies there of other options; empty = nothing
};

/// Fingerprints of data and stages, with what was or is to be changed midway in this run.
std::vector<PlannedStage> identify_stages(const Recipe& recipe, const fs::path& root, const Json& data,
                                          const std::vector<std::string>& allow_change) {
  std::vector<PlannedStage> planned = {{.name = "data", .fingerprint = fingerprint(data), .identity = data}};
  std::map<std::string, std::string> fingerprints;
  for (const Stage& stage : recipe.stages) {
    const auto [identity, goes_on] = identity_in_folder(
        root / stage.name, stage, stage_identity(recipe, stage, fingerprints, planned[0].fingerprint), allow_change);
    fingerprints[stage.name] = fingerprint(identity);
    planned.push_back(
        {.name = stage.name, .fingerprint = fingerprints[stage.name], .identity = identity, .goes_on = goes_on});
  }
  return planned;
}

/// The same beside what the folder holds.
std::vector<PlannedStage> plan_stages(const Recipe& recipe, const RunFolder& run, const Json& data,
                                      const std::vector<std::string>& allow_change) {
  std::vector<PlannedStage> planned = identify_stages(recipe, run.root(), data, allow_change);
  for (PlannedStage& stage : planned) {
    const fs::path folder = run.stage(stage.name);
    const auto manifest = find_stage_manifest(folder);
    const std::string held = manifest ? manifest->fingerprint : begun_fingerprint(folder);
    if (held != stage.fingerprint && !stage.goes_on) stage.held = held;
    stage.done = manifest && manifest->fingerprint == stage.fingerprint;
  }
  return planned;
}

/// Exit 2 listing what would run again, and why; and where training could go on, how.
void refuse_changed(const std::vector<PlannedStage>& planned, const Recipe& recipe, const RunFolder& run) {
  std::string names, allow;
  const bool one = std::ranges::count_if(planned, [](const PlannedStage& stage) { return !stage.held.empty(); }) == 1;
  for (size_t i = 0; i < planned.size(); ++i) {
    const PlannedStage& stage = planned[i];
    if (stage.held.empty()) continue;
    if (one && i > 0)
      for (const std::string& key : keys_to_allow(recipe.stages[i - 1], run.stage(stage.name), stage.identity))
        allow += " --allow-change " + key;
    const auto begun = begun_identity(run.stage(stage.name));
    names += fmt::format(
        "{}{} ({})", names.empty() ? "" : ", ", stage.name,
        begun ? changed_keys(begun->value("identity", Json::object()), stage.identity) : "no identity.json");
  }
  if (!names.empty())
    throw UserError::recipe(
        "", fmt::format("{} holds results of other options for: {}; run with --rerun to move them aside and run these "
                        "stages again, {}or choose another folder "
                        "with --out",
                        run.root().string(), names,
                        allow.empty() ? "" : fmt::format("with{} to go on from the last checkpoint, ", allow)));
}

/// A change that is allowed and does not happen is a slip of the pen.
void warn_of_idle_changes(const std::vector<std::string>& allowed, const std::vector<PlannedStage>& planned) {
  for (const std::string& text : allowed)
    if (std::ranges::none_of(planned, [&](const PlannedStage& stage) {
          return text.starts_with(stage.name + ".") && records_change(stage.identity, text);
        }))
      log_warning(fmt::format("--allow-change {} changes nothing: no stage under way has another value of it", text));
}

std::vector<std::string> names_of_done(const std::vector<PlannedStage>& planned) {
  std::vector<std::string> done;
  for (const PlannedStage& stage : planned)
    if (stage.done) done.push_back(stage.name);
  return done;
}

enum class Until { data, end };  // how far this process is to go

/// Refuses (exit 4 or 7) what has no room for the stages that are still to be run; of tokenizing, for that alone.
void check_rest_fits(const Recipe& recipe, std::vector<std::string> done, const fs::path& root, Until until) {
  if (until == Until::data)
    for (const Stage& stage : recipe.stages) done.push_back(stage.name);
  const RecipeCost rest = remaining_cost(estimate_cost(recipe, corpus_bytes(recipe), 0), root, done);
  for (const StageCost& cost : rest.stages)
    if (cost.name != "data") check_device_fits(recipe.stage(cost.name), cost);
  check_fits(placed_cost(recipe, rest), root);
}

/// Refuses what is still to be done where a stage could not do it, or where there is no room for it.
void check_rest(const Recipe& recipe, const std::vector<PlannedStage>& planned, const fs::path& root, Until until) {
  const std::vector<std::string> done = names_of_done(planned);
  if (until == Until::end) check_placements(recipe, done);
  check_before_work(recipe, Missing::refused, done);
  for (size_t i = 0; i < recipe.stages.size(); ++i) {
    if (planned[i + 1].done) continue;
    check_data_there(recipe, planned[0].held.empty() ? root / "data" : fs::path());  // what is held goes aside
    check_there(recipe, recipe.stages[i]);
  }
  if (done.size() + 1 < planned.size()) check_rest_fits(recipe, done, root, until);
}

/// A stop is a stop, whatever becomes of the report.
void report_of_stopped(const fs::path& root) {
  try {
    (void)COPPICE_FAILPOINT("run.stopped_report");
    write_report(root);
  } catch (const std::exception& error) {
    log_warning(fmt::format("no report of what was stopped: {}", error.what()));
  }
}

/// Places of the stages in the order of work, what is taken over first.
std::vector<size_t> work_order(const Recipe& recipe) {
  const std::set<std::string> taken_over = taken_over_stages(recipe);
  std::vector<size_t> order(recipe.stages.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_partition(order, [&](size_t i) { return taken_over.contains(recipe.stages[i].name); });
  return order;
}

/// Loads and checks what needs no work yet; opens the folder for this process alone.
struct OpenedRun {
  Recipe recipe;
  std::unique_ptr<RunFolder> run;
  std::vector<PlannedStage> stages;
};

OpenedRun open_run(const RunRequest& request, Until until) {
  OpenedRun opened{.recipe = load_recipe(request.recipe_file, request.overrides, request.unset,
                                         std::make_shared<Sources>(request.out))};
  const Recipe& recipe = opened.recipe;
  if (!recipe.arms.empty() || !recipe.seeds.empty())
    throw UserError::recipe(request.recipe_file,
                            fmt::format("the recipe has {} arms and {} seeds: coppice ablate {} runs them",
                                        recipe.arms.size(), recipe.seeds.size(), request.recipe_file));
  check_allowed_changes(request.allow_change, recipe);
  install_signal_handlers(recipe.grace_s);
  start_torch(recipe.threads);
  if (COPPICE_FAILPOINT("executor.shuffle")) executor::set_schedule({executor::Order::random, 1});
  const fs::path root = run_root(request, recipe);
  if (request.fresh && fs::exists(root / "recipe.toml"))
    throw UserError::recipe("--fresh",
                            fmt::format("{} already holds a run; leave --fresh out to go on with it", root.string()));
  opened.run = std::make_unique<RunFolder>(root);  // first: a second run is told so before it reads the corpus
  set_log_file(root / "log.txt");
  make_corpus(recipe);
  const Json data = data_identity(recipe);
  if (stop_requested()) throw Stopped("stopped before any work; run again to go on");
  opened.stages = plan_stages(recipe, *opened.run, data, request.allow_change);
  if (!request.rerun) refuse_changed(opened.stages, recipe, *opened.run);
  check_rest(recipe, opened.stages, root, until);
  for (const PlannedStage& stage : opened.stages)
    if (!stage.held.empty()) opened.run->move_aside(stage.name, stage.held);
  recipe.sources->save(root);  // first: whoever reads the recipe finds what goes with it
  write_file_atomically(root / "recipe.toml", recipe.resolved);
  return opened;
}

/// Of the model that a stage leaves, else of the first that it reads; 0 for labels from elsewhere, which no model
/// reads.
int64_t head_size_of(const Recipe& recipe, const Stage& stage) {
  if (kind_of(stage).leaves_model) return recipe.model_after(stage.name).head_dim;
  const std::vector<std::string> inputs = stage.inputs();
  return inputs.empty() ? 0 : recipe.model_after(inputs.front()).head_dim;
}

/// The process computes as the stage's keys say, and says so where it is not the CPU's ordinary way.
void take_placement(const Recipe& recipe, const Stage& stage) {
  if (!kind_of(stage).computes) return;
  set_attention_mode(stage.placement.attention == "fast" ? AttentionMode::fast : AttentionMode::repeatable);
  const Placement on = place(stage);
  const TrainingOptions* const training = training_of(stage);
  const bool documents = training != nullptr && training->document_mask;
  if (!on.device.is_cpu() || on.compute != at::kFloat)
    log_info(fmt::format("stage '{}': on {} in {}, attention {}", stage.name, device_name(on.device), compute_name(on),
                         attention_text(on, head_size_of(recipe, stage), documents)));
}

/// How a stage that trains keeps its master, and what it computes again: as its options say. Where they leave it open:
/// on a device what a plan would choose for the memory that is free there now, on a CPU a whole master and nothing.
void take_memory_choice(const Recipe& recipe, const Stage& stage, StageContext& context) {
  const TrainingOptions* training = training_of(stage);
  if (training == nullptr) return;
  const Placement on = place(stage);
  const bool narrow = on.compute == at::kBFloat16;
  const std::optional<Recompute> recompute = find_recompute(training->recompute);
  std::optional<bool> split_master;  // open
  if (!narrow || training->master == "fp32" || on.device.is_cpu()) split_master = false;
  if (narrow && training->master == "split") split_master = true;
  if (on.device.is_cpu() || (recompute && split_master)) {
    context.recompute = recompute.value_or(Recompute::none);
    context.split_master = *split_master;
    if (*split_master)
      log_info(fmt::format("stage '{}': master split, recompute {}", stage.name, recompute_name(context.recompute)));
    return;
  }
  StageCost cost{.name = stage.name, .kind = stage.kind};
  kind_of(stage).cost({.recipe = recipe}, stage, cost);
  cost.work.front().split_master = split_master;
  const TrainingChoice choice =
      choose_training(cost, free_device_memory(on.device) / (narrow ? 1 : 2));  // plans are of bf16
  (choice.fits ? log_info : log_warning)(fmt::format("stage '{}': master {}, recompute {}: {}", stage.name,
                                                     choice.settings.split_master ? "split" : "fp32",
                                                     recompute_name(choice.settings.recompute), choice.why));
  context.recompute = choice.settings.recompute;
  context.split_master = choice.settings.split_master;
}

/// What is said once nothing is refused any more, its threads first.
void say_before_work(const OpenedRun& opened, const RunRequest& request) {
  log_threads(opened.recipe.threads, num_threads(), 1);
  log_warnings(recipe_warnings(opened.recipe));
  say_what_is_gone(opened.recipe);
  warn_of_idle_changes(request.allow_change, opened.stages);
}

}  // namespace

std::set<std::string> taken_over_stages(const Recipe& recipe) {
  std::set<std::string> taken_over;
  for (const Stage& stage : recipe.stages) {
    const auto* label = stage.find<LabelStage>();
    const bool from_elsewhere = stage.find<ImportStage>() != nullptr || (label != nullptr && !label->has_own_labels());
    if (from_elsewhere &&
        std::ranges::all_of(stage.inputs(), [&](const std::string& input) { return taken_over.contains(input); }))
      taken_over.insert(stage.name);
  }
  return taken_over;
}

fs::path run_root(const RunRequest& request, const Recipe& recipe) {
  return request.out.empty() ? fs::path("runs") / recipe.name : request.out;
}

void run_stage(const Recipe& recipe, const Stage& stage, RunFolder& run, const PreparedData& data,
               const std::string& fingerprint, const Json& identity) {
  Recipe seeded = recipe;  // a stage's own seed is the recipe's while it runs
  seeded.seed = stage.seed;
  run.begin_stage(stage.name, fingerprint, identity);
  const std::unique_ptr<Comm> comm = alone();
  StageContext context{.recipe = seeded,
                       .stage = seeded.stage(stage.name),
                       .run = run,
                       .data = data,
                       .comm = *comm,
                       .fingerprint = fingerprint,
                       .identity = identity};
  take_placement(recipe, stage);
  take_memory_choice(seeded, context.stage, context);
  const TrainingOptions* training = training_of(stage);
  const double begin_s = monotonic_s();
  (void)take_peak_memory();
  try {
    Json body = kind_of(stage).run(context);
    if (training == nullptr)
      run.add_seconds(stage.name, monotonic_s() - begin_s);  // training counts its own, checkpoint by checkpoint
    run.add_peak(stage.name, take_peak_memory());
    (void)COPPICE_FAILPOINT("stage.before_manifest");
    body["identity"] = identity;
    run.finish_stage(stage.name, stage.kind, fingerprint, body);
  } catch (const Stopped&) {
    end_grace();  // saved: what follows may take longer than grace_s
    run.add_peak(stage.name, take_peak_memory());
    throw;
  }
  remove_checkpoints(stage, context.folder());
}

void remove_checkpoints(const Stage& stage, const fs::path& folder) {
  const TrainingOptions* training = training_of(stage);
  if (training != nullptr && !training->keep_finished) fs::remove_all(folder / "ckpt");
}

void run_recipe(const RunRequest& request) {
  const OpenedRun opened = open_run(request, Until::end);
  const Recipe& recipe = opened.recipe;
  RunFolder& run = *opened.run;
  const bool complete = std::ranges::all_of(opened.stages.begin() + 1, opened.stages.end(), &PlannedStage::done);
  if (complete) {
    say_what_is_gone(recipe);
    warn_of_idle_changes(request.allow_change, opened.stages);
    fmt::print("already complete\n");
  } else {
    say_before_work(opened, request);
    run.write_run_file(recipe);
    for (const Stage& stage : recipe.stages)
      if (const TrainingOptions* training = training_of(stage);
          training && training->steps() * training->batch_tokens != training->tokens)
        log_info(fmt::format("stage '{}': {} tokens are {} steps of {}", stage.name, training->tokens,
                             training->steps(), training->batch_tokens));
    const PreparedData data = prepare_data(recipe, run, opened.stages[0].identity);
    check_before_work(recipe, Missing::refused, names_of_done(opened.stages), data.tokenizer.get());
    log_warnings(check_windows(recipe, data));
    const RecipeCost cost = placed_cost(recipe, estimate_cost(recipe, corpus_bytes(recipe), gemm_gflops()));
    size_t num_done = 0;
    for (const size_t i : work_order(recipe)) {
      const Stage& stage = recipe.stages[i];
      ++num_done;
      const PlannedStage& planned = opened.stages[i + 1];
      if (planned.done) {
        log_info(fmt::format("stage '{}': already complete", stage.name));
        remove_checkpoints(stage, run.stage(stage.name));  // a kill may have come between the manifest and this
        continue;
      }
      if (begun_fingerprint(run.stage(stage.name)).empty())
        run.add_prediction(stage.name, cost.stages[i + 1].seconds, cost.stages[i + 1].memory_bytes);
      try {
        run_stage(recipe, stage, run, data, planned.fingerprint, planned.identity);
      } catch (const Stopped&) {
        report_of_stopped(run.root());
        throw;
      }
      write_report(run.root());
      if (stop_requested() && num_done < recipe.stages.size())
        throw Stopped(fmt::format("stopped after stage '{}'; run again to go on", stage.name));
    }
  }
  const std::string verdict = write_report(run.root());
  fmt::print("{}\nreport: {}, .md, .json\n", verdict, (run.root() / "report.html").string());
}

void join_labels(const RunRequest& request, const std::string& stage_name) {
  const Recipe recipe =
      load_recipe(request.recipe_file, request.overrides, request.unset, std::make_shared<Sources>(request.out));
  const auto found = std::ranges::find(recipe.stages, stage_name, &Stage::name);
  const auto* label = found == recipe.stages.end() ? nullptr : found->find<LabelStage>();
  if (label == nullptr || !label->has_own_labels() || !recipe.arms.empty() || !recipe.seeds.empty())
    throw UserError::recipe(
        "--stage",
        fmt::format("'{}' is no label stage with a teacher of a recipe without arms and seeds", printable(stage_name)));
  check_placement(*found);
  start_torch(recipe.threads);
  const fs::path root = run_root(request, recipe);
  const std::vector<PlannedStage> planned = identify_stages(recipe, root, data_identity(recipe), {});
  const PlannedStage& stage = planned[static_cast<size_t>(found - recipe.stages.begin()) + 1];
  for (const PlannedStage* needed : {&planned[0], &stage}) {
    const std::string begun = begun_fingerprint(root / needed->name);
    const bool reached =
        !begun.empty() &&
        (needed != &stage || fs::exists(root / stage.name / "labels"));  // its batch size is chosen by then
    if (!reached)
      throw UserError::recipe("--stage", fmt::format("{} has not come to '{}' yet; start `coppice run` first",
                                                     root.string(), needed->name));
    if (begun != needed->fingerprint)
      throw UserError::recipe("--stage",
                              fmt::format("{} was begun with other options; give the recipe and --set of the run",
                                          (root / needed->name).string()));
  }
  if (find_stage_manifest(root / stage.name)) {
    fmt::print("already complete\n");
    return;
  }
  log_threads(recipe.threads, num_threads(), 1);
  say_what_is_gone(recipe);
  RunFolder run = RunFolder::beside_its_owner(root);
  const PreparedData data = open_data(root);
  const std::unique_ptr<Comm> comm = alone();
  const StageContext context{.recipe = recipe,
                             .stage = *found,
                             .run = run,
                             .data = data,
                             .comm = *comm,
                             .fingerprint = stage.fingerprint,
                             .identity = stage.identity};
  take_placement(recipe, *found);
  const LabelledShards labelled = label_shards(context);
  fmt::print("{} of {} shards labelled here\n", labelled.here, labelled.total);
}

void tokenize_recipe(const RunRequest& request) {
  const OpenedRun opened = open_run(request, Until::data);
  say_before_work(opened, request);
  const PreparedData data = prepare_data(opened.recipe, *opened.run, opened.stages[0].identity);
  const auto tokens_in = [](const std::map<std::string, TokenShards>& split, const std::string& domain) {
    const auto found = split.find(domain);
    return found == split.end() ? 0 : found->second.num_tokens();
  };
  for (const auto& [domain, shards] : data.train)
    fmt::print("{}: {} tokens, {:.3f} bytes a token, {} held out{}\n", domain, shards.num_tokens(),
               static_cast<double>(shards.text_bytes()) / static_cast<double>(shards.num_tokens()),
               tokens_in(data.heldout, domain),
               data.tuning.empty() ? "" : fmt::format(", {} for tuning", tokens_in(data.tuning, domain)));
}

}  // namespace coppice
