#include "recipes/stages/teachers.h"

#include <fmt/format.h>

#include "recipes/stages/label.h"
#include "recipes/stages/stored_labels.h"
#include "src/checkpoint/checkpoint.h"
#include "src/data/draw_numbers.h"
#include "src/model/parameters.h"
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

std::vector<Targets> StageTeachers::targets(const Batch& batch, KdOptions distillation, int64_t num_layers) const {
  if (distillation.hidden_layers.empty()) distillation.hidden_layers = {num_layers};
  SignalRequest request{.loss = distillation.loss,
                        .top_k = top_k_,
                        .temperature = label_temperature(distillation),
                        .proposal_temperature = proposal_temperature_,
                        .hidden_layers = {}};
  if (distillation.hidden_loss != "none") request.hidden_layers = distillation.hidden_layers;
  if (reads_draws(request.loss) && teachers_.front().model)
    request.draw_number_NR = draw_numbers(batch, domains_, draws_, seed_).to(batch.token_BT.device());
  std::vector<Targets> targets;
  for (const Teacher& teacher : teachers_) {
    std::vector<const LabelCache*> caches;
    for (const auto& cache : teacher.labels) caches.push_back(cache.get());
    const TeacherSignal signal = teacher.model
                                     ? live_signal(*teacher.model, batch, request,
                                                   fmt::format("stage '{}', the teacher of '{}'", teacher.name, stage_))
                                     : stored_signal(caches, batch, request, teacher.some, teacher.name);
    targets.push_back(distillation_targets(batch, signal, distillation));
    targets.back().share = teacher.share;
  }
  return targets;
}

double StageTeachers::flops(const Batch& batch) const {
  double flops = 0;
  for (const Teacher& teacher : teachers_)
    if (teacher.model)
      flops += forward_flops_per_token(teacher.model->config, seq_len_) * static_cast<double>(batch.token_BT.numel());
  return flops;
}

}  // namespace coppice
