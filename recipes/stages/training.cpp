#include "recipes/stages/training.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "recipes/folder/machine.h"
#include "recipes/folder/midway.h"
#include "recipes/stages/label.h"
#include "recipes/stages/stored_labels.h"
#include "recipes/stages/train.h"
#include "src/base/errors.h"
#include "src/base/failpoint.h"
#include "src/base/signals.h"
#include "src/model/parameters.h"
#include "teacher/label.h"

namespace coppice {
namespace {

constexpr const char* kCheckpointFormat = "coppice.checkpoint";

/// What a frozen model says about a batch it reads itself.
TeacherSignal live_signal(const StageTeacher& stage, const Batch& batch, const KdOptions& distillation, int64_t k,
                          const StageContext& context) {
  const at::NoGradGuard no_grad;
  const Model& teacher = *stage.model;
  TeacherSignal signal;
  TopFacts facts;
  DecoderTaps taps;
  std::vector<at::Tensor> output_ND;
  if (distillation.hidden_loss != "none")
    taps.layer_output = [&](int, const at::Tensor& layer_ND) { output_ND.push_back(layer_ND); };
  const at::Tensor hidden_NE = decoder_hidden(
      teacher, {.token_BT = batch.token_BT, .position_BT = batch.position_BT, .document_BT = batch.document_BT}, {},
      taps);
  const at::Tensor head_VE = output_head(teacher);
  if (distillation.loss == "labels") {
    signal.label_BT = top_1(hidden_NE, head_VE, &facts).reshape(batch.token_BT.sizes());
  } else if (distillation.loss == "top_k") {
    signal.top = top_k(hidden_NE, head_VE, k, distillation.temperature, &facts);
  } else {
    signal.hidden_NE = hidden_NE;
    signal.head_VE = head_VE;
  }
  check_finite(facts, fmt::format("stage '{}', the teacher of '{}'", stage.name, context.stage.name));
  if (!output_ND.empty())
    for (const int64_t layer : distillation.hidden_layers)
      signal.layer_ND.push_back(output_ND.at(static_cast<size_t>(layer - 1)));
  return signal;
}

/// A sample of held-out windows, spread evenly over the domains, read once.
std::vector<Batch> read_heldout(const PreparedData& data, const TrainingOptions& options) {
  std::vector<Batch> batches;
  if (options.eval_tokens == 0) return batches;
  const auto windows =
      std::max<int64_t>(1, options.eval_tokens / options.seq_len / static_cast<int64_t>(data.heldout.size()));
  for (const auto& [domain, shards] : data.heldout) {
    WindowReader reader(shards, options.seq_len, options.document_mask, windows);
    for (Batch batch; reader.next(options.micro_rows(), batch);) batches.push_back(std::move(batch));
  }
  return batches;
}

}  // namespace

LoaderOptions loader_options(const StageContext& context, const TrainingOptions& training) {
  return {.seq_len = training.seq_len,
          .document_mask = training.document_mask,
          .seed = training.data_seed ? training.data_seed : context.recipe.seed};
}

int64_t warmup_steps(const TrainingOptions& options, int64_t published) {
  return options.optimizer.warmup_steps >= 0 ? options.optimizer.warmup_steps
                                             : std::min(published, (options.steps() + 9) / 10);
}

std::vector<StageTeacher> open_teachers(const StageContext& context, const TrainStage& options) {
  std::vector<StageTeacher> teachers;
  for (const std::string& label_stage : options.labels) {
    StageTeacher& teacher = teachers.emplace_back();
    teacher.name = label_stage;
    std::vector<const LabelCache*> labels;
    for (const MixtureEntry& entry : options.training.mixture) {
      teacher.labels.push_back(std::make_unique<LabelCache>(open_labels(context, label_stage, entry.domain)));
      labels.push_back(teacher.labels.back().get());
    }
    check_labels(context, context.stage, label_stage, labels);
  }
  for (const std::string& stage : options.teachers) {
    StageTeacher& teacher = teachers.emplace_back();
    teacher.name = stage;
    teacher.model = std::make_unique<Model>(load_model(context.model_folder(stage)).model);
  }
  for (size_t i = 0; i < teachers.size(); ++i) teachers[i].share = options.teacher_shares.at(i);
  return teachers;
}

std::string ZeroGradientWatch::look(double norm, int64_t step) {
  zeros_ = norm == 0 ? zeros_ + 1 : 0;
  if (said_ || zeros_ < enough_) return {};
  said_ = true;
  return fmt::format(
      "{} is exactly 0 in steps {} to {}: nothing is learned; look at its loss, its labels and what it starts from",
      what_, step - zeros_ + 1, step);
}

TrainingSession::TrainingSession(StageContext& context, const TrainingOptions& options, Model& model,
                                 Optimizer& optimizer, std::vector<StageTeacher> teachers, int64_t top_k,
                                 std::vector<NamedTensor> extra)
    : context_(context),
      options_(options),
      model_(model),
      optimizer_(optimizer),
      teachers_(std::move(teachers)),
      top_k_(top_k),
      extra_(std::move(extra)),
      progress_(context.stage.name, static_cast<uint64_t>(options.steps()), "step"),
      zero_gradient_(fmt::format("stage '{}': the gradient of the weights", context.stage.name), options.steps()) {
  num_steps_ = options.steps();
  eval_steps_ = options.eval_steps > 0 ? options.eval_steps : std::max<int64_t>(1, num_steps_ / 10);
  loader_ = std::make_unique<Loader>(context.data.shards_of(options.mixture), options.mixture,
                                     loader_options(context, options));
  heldout_batches_ = read_heldout(context.data, options);
}

void TrainingSession::resume(Json& extra_facts, const Prepare& prepare) {
  extra_facts = Json::object();
  const std::filesystem::path ckpt = context_.folder() / "ckpt";
  if (std::filesystem::exists(ckpt)) remove_temporaries(ckpt);
  if (const auto newest = find_newest_checkpoint(ckpt)) {
    const std::string path = (newest->folder / "manifest.json").string();
    const Json manifest = read_tensor_manifest(newest->folder, kCheckpointFormat);
    if (const std::string held = string_at(manifest, "fingerprint", path);
        held != context_.fingerprint && !changed_at(context_.identity, held, newest->step))
      throw UserError::recipe(
          context_.stage.where,
          fmt::format("stage '{}': {} belongs to other options; use --rerun to start the stage again{}",
                      context_.stage.name, newest->folder.string(),
                      context_.identity.contains("changes")
                          ? fmt::format(", or go on from it: coppice rewind {} --step {}", context_.folder().string(),
                                        newest->step)
                          : ""));
    const auto check_same = [&](const char* what, const std::string& held, const std::string& now) {
      if (held != now)
        throw UserError::bad_file(path, fmt::format("was trained on {} {}, the run's data/ now holds {}; bring the old "
                                                    "data/ back, or move the stage's folder away "
                                                    "to begin it again",
                                                    what, held, now));
    };
    check_same("the tokenizer", string_at(manifest, "tokenizer_sha256", path), context_.data.tokenizer->fingerprint());
    check_same("the tokens", string_at(object_at(manifest, "data", path), "manifest_sha256", path),
               context_.data.tokens_sha256);
    extra_facts = object_at(manifest, "extra", path);
    if (prepare) prepare(extra_facts, path);
    const MasterEditor master = model_.arena->edit_master();
    const std::vector<NamedTensor> tensors = state_tensors([&](const std::string& name) { return master[name]; });
    read_tensor_folder(newest->folder, kCheckpointFormat, tensors);
    const Json& state = object_at(manifest, "state", path);
    step_ = static_cast<int64_t>(unsigned_at(manifest, "step", path));
    tokens_seen_ = static_cast<int64_t>(unsigned_at(manifest, "tokens", path));
    consecutive_skips_ = static_cast<int64_t>(unsigned_at(state, "consecutive_skips", path));
    flops_ = number_at(state, "flops", path);
    optimizer_.restore(static_cast<int64_t>(unsigned_at(state, "t", path)),
                       static_cast<int64_t>(unsigned_at(state, "skipped", path)));
    const Json& drawn_by_domain = object_at(object_at(manifest, "data", path), "drawn", path);
    std::vector<uint64_t> drawn;
    for (const MixtureEntry& entry : options_.mixture)
      drawn.push_back(unsigned_at(drawn_by_domain, entry.domain.c_str(), path));
    loader_->restore(drawn);
    const Json machine = machine_json();
    for (const char* key : {"threads", "cpu_capability"})
      if (manifest.at("machine").at(key) != machine.at(key))
        log_warning(
            fmt::format("stage '{}': the checkpoint was written with {} {}, now it is {}: results may differ in the "
                        "last bits from an undisturbed run",
                        context_.stage.name, key, manifest.at("machine").at(key).dump(), machine.at(key).dump()));
    log_info(fmt::format("stage '{}': resuming at step {} of {}", context_.stage.name, step_, num_steps_));
    saved_step_ = step_;
  }
  metrics_ = std::make_unique<MetricsWriter>(context_.folder() / "metrics.jsonl", step_);
  if (const std::filesystem::path bad = context_.folder() / "bad_batches.jsonl"; std::filesystem::exists(bad))
    MetricsWriter(bad, step_);  // cuts lost steps
  session_begin_s_ = step_begin_s_ = counted_s_ = monotonic_s();
}

std::vector<Batch> TrainingSession::next_batches() {
  step_begin_s_ = monotonic_s();
  std::vector<Batch> batches;
  int64_t live = 0;
  for (int64_t left = options_.rows(); left > 0; left -= options_.micro_rows()) {
    batches.push_back(loader_->next(std::min(left, options_.micro_rows())));
    live += batches.back().num_live;
  }
  scale_ = gradient_scale(live);
  data_s_ += monotonic_s() - step_begin_s_;
  batches_ = batches;
  return batches;
}

TeacherSignal TrainingSession::stored_signal(const StageTeacher& teacher, const Batch& batch,
                                             const std::string& loss) const {
  std::vector<const LabelCache*> caches;
  for (const auto& cache : teacher.labels) caches.push_back(cache.get());
  TeacherSignal signal;
  at::Tensor label_BT;
  if (loss == "top_k") {
    signal.top = lookup_top_k(caches, batch);
    label_BT = signal.top.id_NK.select(1, 0).reshape(batch.token_BT.sizes());
  } else {
    label_BT = signal.label_BT = lookup_labels(caches, batch);
  }
  const bool some = context_.recipe.stage(teacher.name).get<LabelStage>().coverage == "some";
  const at::Tensor missing = batch.true_label_BT.ge(0).logical_and(label_BT.lt(0));
  COPPICE_CHECK(some || !missing.any().item<bool>(),  // check_labels walked these very samples
                fmt::format("{} positions of step {} have no label of '{}'", missing.sum().item<int64_t>(), step_ + 1,
                            teacher.name));
  return signal;
}

std::vector<Targets> TrainingSession::targets(const Batch& batch, KdOptions distillation, bool distils) const {
  distillation.z_loss = options_.z_loss;
  if (teachers_.empty() || !distils) return {make_targets(batch, {}, distillation)};
  if (distillation.hidden_layers.empty()) distillation.hidden_layers = {model_.config.num_hidden_layers};
  std::vector<Targets> targets;
  for (const StageTeacher& teacher : teachers_) {
    const TeacherSignal signal = teacher.model ? live_signal(teacher, batch, distillation, top_k_, context_)
                                               : stored_signal(teacher, batch, distillation.loss);
    targets.push_back(distillation_targets(batch, signal, distillation));
    targets.back().share = teacher.share;
  }
  return targets;
}

void TrainingSession::count_live_teachers(const Batch& batch) {
  for (const StageTeacher& teacher : teachers_)
    if (teacher.model)
      step_flops_ += forward_flops_per_token(teacher.model->config, options_.seq_len) *
                     static_cast<double>(batch.token_BT.numel());
}

double TrainingSession::heldout_loss(const FfnMasks& masks) {
  LossSums total;
  for (const Batch& batch : heldout_batches_) {
    total.add(
        evaluate_batch(model_, batch, make_targets(batch, {}, KdOptions{.teacher_weight = 0, .z_loss = 0}), masks));
  }
  return total.num_live == 0 ? std::nan("") : total.ce / static_cast<double>(total.num_live);
}

bool TrainingSession::wants_heldout() const {
  return !heldout_batches_.empty() && ((step_ + 1) % eval_steps_ == 0 || step_ + 1 == num_steps_);
}

void TrainingSession::end_step(const LossSums& sums, double teacher_weight, const StepOutcome& outcome, double heldout,
                               const std::vector<std::pair<std::string, double>>& extra, const Json& extra_facts) {
  ++step_;
  tokens_seen_ += sums.num_live;
  consecutive_skips_ = outcome.applied ? 0 : consecutive_skips_ + 1;
  const LossTerms terms = sums.terms(teacher_weight);
  const double now_s = monotonic_s(), step_s = now_s - step_begin_s_;
  work_s_ += step_s;
  const double tokens_per_s = static_cast<double>(options_.batch_tokens) / step_s;
  step_flops_ += training_flops_per_token(model_.config, options_.seq_len) *
                 static_cast<double>(options_.batch_tokens);  // of the model's shape now
  flops_ += step_flops_;
  const double mfu = step_flops_ / step_s / 1e9 / gemm_gflops();
  step_flops_ = 0;

  MetricsLine line;
  line.add("step", step_);
  line.add("tokens", tokens_seen_);
  line.add("loss", terms.loss);
  line.add("ce", terms.ce);
  if (teacher_weight > 0) line.add("kd", terms.kd);
  for (size_t i = 0; i < sums.kd_of.size(); ++i)
    line.add("kd." + teachers_[i].name, sums.num_live == 0 ? 0.0 : sums.kd_of[i] / static_cast<double>(sums.num_live));
  if (sums.hidden > 0) line.add("hidden_loss", sums.hidden / static_cast<double>(sums.num_live));
  if (options_.z_loss > 0) line.add("z_loss", sums.num_live == 0 ? 0.0 : sums.z / static_cast<double>(sums.num_live));
  line.add("lr", outcome.lr);
  line.add("grad_norm", outcome.grad_norm);
  if (!std::isnan(heldout)) line.add("heldout_loss", heldout);
  for (const auto& [key, value] : extra) line.add(key, value);
  line.add("tok_s", tokens_per_s);
  line.add("mfu", mfu);
  line.add("t", now_s - session_begin_s_);
  metrics_->append(line);

  if (outcome.lr > 0)  // else skipped, or weights that the stage holds still
    if (const std::string zero = zero_gradient_.look(outcome.grad_norm, step_); !zero.empty()) log_warning(zero);
  if (!outcome.applied) {
    log_warning(
        fmt::format("stage '{}' step {}: update skipped (loss {:.4g}, gradient norm {:.4g}); weights and optimizer "
                    "state stay as they were",
                    context_.stage.name, step_, terms.loss, outcome.grad_norm));
    Json bad = {{"step", step_},
                {"loss", fmt::format("{}", terms.loss)},
                {"grad_norm", fmt::format("{}", outcome.grad_norm)},
                {"spans", Json::array()}};
    for (const Batch& batch : batches_)
      for (const Span& span : batch.spans)
        bad["spans"].push_back({{"domain", options_.mixture[static_cast<size_t>(span.domain)].domain},
                                {"shard", span.shard},
                                {"offset", span.offset},
                                {"length", span.length}});
    OutputFile file(context_.folder() / "bad_batches.jsonl", OutputFile::Mode::append);
    file.write(bad.dump() + "\n");
    file.sync();
    file.close();
  }
  progress_.update(static_cast<uint64_t>(step_), {{"loss", fmt::format("{:.4f}", terms.loss)},
                                                  {"tok/s", format_count(tokens_per_s)},
                                                  {"of GEMM", fmt::format("{:.0f}%", 100 * mfu)}});

  if (consecutive_skips_ > options_.max_skipped_steps)
    throw DivergedError(
        fmt::format("stage '{}' step {}: {} steps in a row were skipped (last loss {:.4g}, gradient norm {:.4g}); last "
                    "checkpoint: step {}. Look at "
                    "bad_batches.jsonl, or go back to a checkpoint before step {} (coppice rewind) and on with a lower "
                    "{}.lr (--allow-change)",
                    context_.stage.name, step_, consecutive_skips_, terms.loss, outcome.grad_norm,
                    std::max<int64_t>(saved_step_, 0), step_ - consecutive_skips_ + 1, context_.stage.name));
  const bool stop = stop_requested() && step_ < num_steps_;
  const bool last = step_ == num_steps_ && options_.keep_finished;
  if (step_ % options_.checkpoint_steps == 0 || last || stop || take_save_request()) save(extra_facts);
  if (stop)
    throw Stopped(fmt::format("stopped at step {} of stage '{}', checkpoint written; run again to go on", step_,
                              context_.stage.name));
  (void)COPPICE_FAILPOINT("train.after_step");
}

std::vector<NamedTensor> TrainingSession::state_tensors(
    const std::function<at::Tensor(const std::string&)>& master_of) const {
  std::vector<NamedTensor> tensors = parameter_tensors(model_.config, "/model/", master_of);
  for (const std::string& slot : optimizer_.slot_names())
    for (NamedTensor& tensor : parameter_tensors(model_.config, "/optim/" + slot + "/",
                                                 [&](const std::string& name) { return optimizer_.slot(slot, name); }))
      tensors.push_back(std::move(tensor));
  tensors.insert(tensors.end(), extra_.begin(), extra_.end());
  return tensors;
}

void TrainingSession::save(const Json& extra_facts) {
  metrics_->sync();
  const MasterReader master = model_.arena->read_master();
  const std::vector<NamedTensor> tensors = state_tensors([&](const std::string& name) { return master[name]; });
  Json drawn = Json::object();
  for (size_t d = 0; d < options_.mixture.size(); ++d) drawn[options_.mixture[d].domain] = loader_->drawn()[d];
  const Json facts = {{"run", context_.recipe.name},
                      {"stage", {{"name", context_.stage.name}, {"kind", context_.stage.kind}}},
                      {"fingerprint", context_.fingerprint},
                      {"step", step_},
                      {"tokens", tokens_seen_},
                      {"world_size", 1},
                      {"parent", context_.identity.at("inputs")},
                      {"recipe_sha256", sha256_hex(context_.recipe.resolved)},
                      {"recipe", context_.recipe.resolved},
                      {"model", to_json(model_.config)},
                      {"tokenizer_sha256", context_.data.tokenizer->fingerprint()},
                      {"data", {{"manifest_sha256", context_.data.tokens_sha256}, {"drawn", drawn}}},
                      {"seed", context_.recipe.seed},
                      {"state",
                       {{"t", optimizer_.t()},
                        {"skipped", optimizer_.skipped()},
                        {"consecutive_skips", consecutive_skips_},
                        {"flops", flops_}}},
                      {"extra", extra_facts},
                      {"machine",
                       {{"device", "cpu"},
                        {"threads", machine_json().at("threads")},
                        {"cpu_capability", machine_json().at("cpu_capability")},
                        {"deterministic", true}}},
                      {"versions", versions_json()}};
  const std::filesystem::path ckpt = context_.folder() / "ckpt";
  make_folder(ckpt);
  write_checkpoint(ckpt, step_, tensors, facts);
  prune_checkpoints(ckpt, options_.keep_last);
  saved_step_ = step_;
  const double now_s = monotonic_s();
  context_.run.add_seconds(context_.stage.name, now_s - counted_s_);
  counted_s_ = now_s;
}

Json TrainingSession::finish() {
  metrics_->sync();
  if (const std::filesystem::path ckpt = context_.folder() / "ckpt"; std::filesystem::exists(ckpt))
    prune_checkpoints(
        ckpt, options_.keep_last);  // a kill may have come between the last one and the removal of what it replaced
  progress_.finish(fmt::format("{} steps, {} tokens; waiting for data took {:.2f}% of the time", step_,
                               format_count(static_cast<double>(tokens_seen_)),
                               work_s_ > 0 ? 100 * data_s_ / work_s_ : 0.0));
  context_.run.add_seconds(context_.stage.name, monotonic_s() - counted_s_);
  return {{"steps", step_},
          {"tokens", tokens_seen_},
          {"skipped_steps", optimizer_.skipped()},
          {"flops", flops_},
          {"seq_len", options_.seq_len}};
}

}  // namespace coppice
