#include "recipes/stages/training.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "recipes/folder/machine.h"
#include "recipes/folder/midway.h"
#include "src/base/errors.h"
#include "src/base/failpoint.h"
#include "src/base/files.h"
#include "src/base/log.h"
#include "src/base/signals.h"
#include "src/checkpoint/checkpoint.h"
#include "src/tensors/device.h"

namespace coppice {
namespace {

enum Wanted : int64_t { kStop, kSave, kNumWanted };  // what travels with the vote of a step

/// What results are rounded by and no identity holds: in every checkpoint, a warning where it is another on resuming.
/// How a master is kept is not among it: it changes no bit.
Json rounding_facts(const StageContext& context, const TrainingOptions& options, const Model& model) {
  const Placement& placement = model.arena->placement();
  const Json host = host_json();
  return {{"device", device_name(placement.device)},
          {"compute", compute_name(placement)},
          {"attention",
           placement.device.is_cpu() || options.document_mask ? "repeatable" : context.stage.placement.attention},
          {"threads", host.at("threads")},
          {"cpu_capability", host.at("cpu_capability")}};
}

constexpr double kSnapshotShare = 0.8;  // of the host's free memory, at most

CheckpointWriter::Options writer_options(const StageContext& context, const TrainingOptions& options,
                                         const Model& model) {
  const at::Device device = model.arena->placement().device;
  const bool wanted = COPPICE_FAILPOINT("ckpt.background");  // tests have no device
  return {.folder = context.folder() / "ckpt",
          .keep_last = options.keep_last,
          .device = device,
          .background = wanted || (!device.is_cpu() && context.comm.size() == 1),
          .memory_bytes = kSnapshotShare * available_memory()};
}

}  // namespace

int64_t warmup_steps(const TrainingOptions& options, int64_t published) {
  return options.optimizer.warmup_steps >= 0 ? options.optimizer.warmup_steps
                                             : std::min(published, (options.steps() + 9) / 10);
}

Placement place_trained(const StageContext& context) {
  Placement on = place(context.stage);
  on.split_master = context.split_master;
  return on;
}

TrainingCheckpoints::TrainingCheckpoints(const StageContext& context, const TrainingOptions& options, Model& model,
                                         Optimizer& optimizer, std::vector<NamedTensor> extra)
    : context_(context),
      options_(options),
      model_(model),
      optimizer_(optimizer),
      extra_(std::move(extra)),
      writer_(writer_options(context, options, model)) {}

/// Everything of a checkpoint: parameters as `master_of` gives them, slots, what the stage adds.
TensorSource TrainingCheckpoints::tensors(std::function<at::Tensor(const std::string&)> master_of) const {
  std::vector<TensorSource> sources = {parameter_source(model_.config, "/model/", std::move(master_of))};
  for (const std::string& slot : optimizer_.slot_names())
    sources.push_back(parameter_source(model_.config, "/optim/" + slot + "/",
                                       [this, slot](const std::string& name) { return optimizer_.slot(slot, name); }));
  sources.push_back(source_of(extra_));
  return join(std::move(sources));
}

/// Of this stage's options, tokenizer and tokens; another machine is a warning.
void TrainingCheckpoints::check_manifest(const Json& manifest, const std::string& path, int64_t step) const {
  if (const std::string held = string_at(manifest, "fingerprint", path);
      held != context_.fingerprint && !changed_at(context_.identity, held, step))
    throw UserError::recipe(
        context_.stage.where,
        fmt::format(
            "stage '{}': {} belongs to other options; use --rerun to start the stage again{}", context_.stage.name,
            std::filesystem::path(path).parent_path().string(),
            context_.identity.contains("changes")
                ? fmt::format(", or go on from it: coppice rewind {} --step {}", context_.folder().string(), step)
                : ""));
  const auto check_same = [&](const char* what, const std::string& held, const std::string& now) {
    if (held != now)
      throw UserError::bad_file(
          path, fmt::format("was trained on {} {}, the run's data/ now holds {}; bring the old data/ back, or move the "
                            "stage's folder away to begin it again",
                            what, held, now));
  };
  check_same("the tokenizer", string_at(manifest, "tokenizer_sha256", path), context_.data.tokenizer->fingerprint());
  check_same("the tokens", string_at(object_at(manifest, "data", path), "manifest_sha256", path),
             context_.data.tokens_sha256);
  Json held = {{"compute", "fp32"}, {"attention", "repeatable"}};  // of checkpoints from before these were keys
  held.update(object_at(manifest, "machine", path));
  const Json facts = rounding_facts(context_, options_, model_);
  for (const auto& [key, now] : facts.items())
    if (held.at(key) != now)
      log_warning(
          fmt::format("stage '{}': the checkpoint was written with {} {}, now it is {}: results may differ by rounding "
                      "from an undisturbed run",
                      context_.stage.name, key, held.at(key).dump(), now.dump()));
}

Json TrainingCheckpoints::resume(TrainingState& state, SampleStream& samples, const Prepare& prepare) {
  const std::filesystem::path ckpt = context_.folder() / "ckpt";
  if (std::filesystem::exists(ckpt)) remove_temporaries(ckpt);
  const auto newest = find_newest_checkpoint(ckpt);
  if (!newest) return Json::object();
  std::string path;
  std::optional<MasterEditor> master;  // until the tensors are read
  std::vector<NamedTensor> on_host;    // of a split one, which joined would lie on the device all at once
  const Json manifest = read_checkpoint(*newest, [&](const Json& found, const std::string& where) {
    path = where;
    check_manifest(found, path, newest->step);
    if (prepare) prepare(object_at(found, "extra", path), path);
    master.emplace(*model_.arena);
    return tensors_of(tensors([&](const std::string& name) {
      if (!model_.arena->placement().split_master) return (*master)[name];
      return on_host.emplace_back(NamedTensor{name, at::empty(model_.arena->entry(name).shape, at::kFloat)}).value;
    }));
  });
  for (const auto& [name, value] : on_host) (*master)[name].copy_(value);
  master.reset();
  const Json& counts = object_at(manifest, "state", path);
  state = {.step = static_cast<int64_t>(unsigned_at(manifest, "step", path)),
           .tokens = static_cast<int64_t>(unsigned_at(manifest, "tokens", path)),
           .consecutive_skips = static_cast<int64_t>(unsigned_at(counts, "consecutive_skips", path)),
           .flops = number_at(counts, "flops", path)};
  optimizer_.restore(static_cast<int64_t>(unsigned_at(counts, "t", path)),
                     static_cast<int64_t>(unsigned_at(counts, "skipped", path)));
  samples.restore(object_at(object_at(manifest, "data", path), "drawn", path), path);
  log_info(fmt::format("stage '{}': resuming at step {} of {}", context_.stage.name, state.step, options_.steps()));
  resumed_step_ = state.step;
  return object_at(manifest, "extra", path);
}

void TrainingCheckpoints::save(const TrainingState& state, const SampleStream& samples, const Json& extra_facts) {
  Json machine = rounding_facts(context_, options_, model_);
  machine["recompute"] = recompute_name(context_.recompute);  // rounds nothing: no warning where it is another
  const Json facts = {{"run", context_.recipe.name},
                      {"stage", {{"name", context_.stage.name}, {"kind", context_.stage.kind}}},
                      {"fingerprint", context_.fingerprint},
                      {"step", state.step},
                      {"tokens", state.tokens},
                      {"world_size", context_.comm.size()},
                      {"parent", context_.identity.at("inputs")},
                      {"recipe_sha256", sha256_hex(context_.recipe.resolved)},
                      {"recipe", context_.recipe.resolved},
                      {"model", to_json(model_.config)},
                      {"tokenizer_sha256", context_.data.tokenizer->fingerprint()},
                      {"data", {{"manifest_sha256", context_.data.tokens_sha256}, {"drawn", samples.drawn()}}},
                      {"seed", context_.recipe.seed},
                      {"state",
                       {{"t", optimizer_.t()},
                        {"skipped", optimizer_.skipped()},
                        {"consecutive_skips", state.consecutive_skips},
                        {"flops", state.flops}}},
                      {"extra", extra_facts},
                      {"machine", machine},
                      {"versions", versions_json()}};
  const MasterReader master = model_.arena->read_master();
  writer_.save(state.step, tensors([&](const std::string& name) { return master[name]; }), facts);
}

void TrainingCheckpoints::finish() {
  writer_.wait();
  const std::filesystem::path ckpt = context_.folder() / "ckpt";
  if (std::filesystem::exists(ckpt)) prune_checkpoints(ckpt, options_.keep_last);
}

Training::Training(const StageContext& context_, const TrainingOptions& options_, Model& model_, Optimizer& optimizer_,
                   const std::vector<std::string>& teachers, std::vector<NamedTensor> extra)
    : context(context_),
      options(options_),
      model(model_),
      optimizer(optimizer_),
      samples(context, options, context.comm, model.arena->placement().device),
      heldout(context.data, options, model.arena->placement().device),
      journal(context, options, teachers),
      checkpoints(context, options, model, optimizer, std::move(extra)),
      num_steps(options.steps()) {
  const Placement found = model.arena->placement(), asked = place(context.stage);
  COPPICE_CHECK(
      found.device == asked.device && found.compute == asked.compute,
      fmt::format("stage {}: its model is on {} in {}, its keys ask for {} in {}", context.stage.name,
                  device_name(found.device), compute_name(found), device_name(asked.device), compute_name(asked)));
}

Json Training::resume(const TrainingCheckpoints::Prepare& prepare) {
  Json extra_facts = checkpoints.resume(state, samples, prepare);
  journal.open(state);
  return extra_facts;
}

const std::vector<Batch>& Training::begin_step() {
  journal.begin_step();
  return samples.next();
}

const Batch* Training::read_ahead() {
  if (state.step + 1 >= num_steps) return nullptr;
  samples.read_ahead();
  return samples.ahead();
}

double Training::heldout_loss_if_due() const {
  return heldout.due(state.step + 1) ? heldout.loss(model) : std::nan("");
}

void Training::save(const Json& extra_facts) {
  journal.sync();
  checkpoints.save(state, samples, extra_facts);
  count_time();
}

void Training::count_time() {
  const double stall_s = checkpoints.take_stall_s();
  stall_s_ += stall_s;
  context.run.add_seconds(context.stage.name, journal.take_seconds(), stall_s);
}

StepVote Training::vote() const {
  StepVote vote(kNumWanted, model.arena->placement().device);
  vote.sums().select(0, kStop).fill_(stop_requested() ? 1 : 0);
  vote.sums().select(0, kSave).fill_(take_save_request() ? 1 : 0);
  return vote;
}

void Training::end_step(const StepRecord& record, const StepVote& vote, const Json& extra_facts) {
  journal.end_step(state, record, model.config, samples.batches(), [&] {
    try {
      checkpoints.wait();
    } catch (const Error& error) {  // the run ends for another reason, which is said
      log_warning(fmt::format("stage '{}': the last checkpoint was not written: {}", context.stage.name, error.what()));
    }
    return checkpoints.saved_step();
  });
  checkpoints.check();
  const bool stop = vote.sums()[kStop].item<double>() > 0 && state.step < num_steps;
  const bool last = state.step == num_steps && options.keep_finished;
  if (state.step % options.checkpoint_steps == 0 || last || stop || vote.sums()[kSave].item<double>() > 0)
    save(extra_facts);
  if (stop) {
    checkpoints.wait();
    count_time();
    throw Stopped(fmt::format("stopped at step {} of stage '{}', checkpoint written; run again to go on", state.step,
                              context.stage.name));
  }
  (void)COPPICE_FAILPOINT("train.after_step");
}

Json Training::finish() {
  checkpoints.finish();  // a kill may have come between the last one and the removal of what it replaced
  count_time();
  journal.finish(state, samples.waited_s(), stall_s_);
  return {{"steps", state.step},
          {"tokens", state.tokens},
          {"skipped_steps", optimizer.skipped()},
          {"flops", state.flops},
          {"seq_len", options.seq_len}};
}

}  // namespace coppice
