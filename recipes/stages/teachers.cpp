#include "recipes/stages/teachers.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "recipes/stages/label.h"
#include "recipes/stages/stored_labels.h"
#include "src/checkpoint/checkpoint.h"
#include "src/data/draw_numbers.h"
#include "src/model/parameters.h"
#include "src/tensors/transfers.h"
#include "teacher/label.h"
#include "teacher/live_signal.h"

namespace coppice {

StageTeachers::StageTeachers(const StageContext& context, const TrainStage& options)
    : stage_(context.stage.name),
      top_k_(options.top_k),
      draws_(options.draws),
      seq_len_(options.training.seq_len),
      proposal_temperature_(options.proposal_temperature),
      seed_(context.stage.seed),
      domains_(context.data.shards_of(options.training.mixture)) {
  for (const std::string& label_stage : options.labels) {
    Teacher& teacher = teachers_.emplace_back();
    teacher.name = label_stage;
    teacher.some = context.recipe.stage(label_stage).get<LabelStage>().coverage == "some";
    std::vector<const LabelCache*> labels;
    for (const MixtureEntry& entry : options.training.mixture) {
      teacher.labels.push_back(std::make_unique<LabelCache>(open_labels(context, label_stage, entry.domain)));
      labels.push_back(teacher.labels.back().get());
    }
    check_labels(context, context.stage, label_stage, labels);
  }
  for (const std::string& stage : options.teachers) {
    Teacher& teacher = teachers_.emplace_back();
    teacher.name = stage;
    teacher.model = std::make_unique<Model>(load_model(context.model_folder(stage), place(context.stage)).model);
  }
  for (size_t i = 0; i < teachers_.size(); ++i) teachers_[i].share = options.teacher_shares.at(i);
}

std::vector<std::string> StageTeachers::names() const {
  std::vector<std::string> names;
  for (const Teacher& teacher : teachers_) names.push_back(teacher.name);
  return names;
}

SignalRequest StageTeachers::request_of(const KdOptions& distillation) const {
  return {.loss = distillation.loss,
          .top_k = top_k_,
          .temperature = label_temperature(distillation),
          .proposal_temperature = proposal_temperature_,
          .hidden_layers = {}};
}

/// As messages call a live one.
std::string StageTeachers::name_of(const Teacher& teacher) const {
  return fmt::format("stage '{}', the teacher of '{}'", teacher.name, stage_);
}

TeacherSignal StageTeachers::stored(const Teacher& teacher, const Batch& batch, const SignalRequest& request) const {
  std::vector<const LabelCache*> caches;
  for (const auto& cache : teacher.labels) caches.push_back(cache.get());
  return stored_signal(caches, batch, request, teacher.some);
}

void StageTeachers::read_ahead(const Batch& batch, const KdOptions& distillation) {
  signal_.clear();
  ahead_BT_ = at::Tensor();
  try {
    for (const Teacher& teacher : teachers_)
      signal_.push_back(teacher.model ? TeacherSignal() : stored(teacher, batch, request_of(distillation)));
    ahead_BT_ = batch.token_BT;
  } catch (const std::exception&) {  // the step under way ends first; the next one reads again, and fails
    signal_.clear();
  }
}

std::vector<Targets> StageTeachers::targets(const Batch& batch, KdOptions distillation, int64_t num_layers) {
  if (distillation.hidden_layers.empty()) distillation.hidden_layers = {num_layers};
  SignalRequest request = request_of(distillation);
  if (distillation.hidden_loss != "none") request.hidden_layers = distillation.hidden_layers;
  if (reads_draws(request.loss) && teachers_.front().model)
    request.draw_number_NR = sent(draw_numbers(batch, domains_, draws_, seed_), batch.token_BT.device());
  const bool is_ahead = batch.token_BT.is_same(ahead_BT_);
  std::vector<Targets> targets;
  for (size_t i = 0; i < teachers_.size(); ++i) {
    const Teacher& teacher = teachers_[i];
    const TeacherSignal signal = teacher.model ? live_signal(*teacher.model, batch, request)
                                 : is_ahead    ? signal_[i]
                                               : stored(teacher, batch, request);
    if (signal.faults.defined()) {
      if (!faults_T_.defined()) faults_T_ = at::zeros({std::ssize(teachers_)}, signal.faults.options());
      faults_T_[static_cast<int64_t>(i)].add_(signal.faults);
    }
    targets.push_back(distillation_targets(batch, signal, distillation));
    targets.back().share = teacher.share;
  }
  return targets;
}

void StageTeachers::check_faults() {
  if (!faults_T_.defined()) return;
  for (size_t i = 0; i < teachers_.size(); ++i) {
    const int64_t faults = faults_T_.const_data_ptr<int64_t>()[i];
    if (teachers_[i].model)
      check_finite(faults, name_of(teachers_[i]));
    else
      check_labelled(faults, teachers_[i].name);
  }
  faults_T_ = at::Tensor();
}

double StageTeachers::flops(const Batch& batch) const {
  double flops = 0;
  for (const Teacher& teacher : teachers_)
    if (teacher.model)
      flops += forward_flops_per_token(teacher.model->config, seq_len_) * static_cast<double>(batch.token_BT.numel());
  return flops;
}

}  // namespace coppice
