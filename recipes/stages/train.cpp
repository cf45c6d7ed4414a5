#include "recipes/stages/train.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "recipes/language/identity.h"
#include "recipes/language/recipe_reading.h"
#include "recipes/stages/import.h"
#include "recipes/stages/label.h"
#include "recipes/stages/stage_cost.h"
#include "recipes/stages/stages.h"
#include "src/data/draw_numbers.h"
#include "src/model/parameters.h"

namespace coppice {
namespace {

constexpr double kMinBeta = 1e-3;  // of jsd: float32 keeps both shares of the mean apart from 0

/// The options of the losses, each by itself and beside the others.
void check_losses(const OptionTable& table, const TrainStage& train, const Recipe& recipe) {
  const KdOptions& kd = train.distillation;
  const auto at = [&](const char* key) { return table.where(key); };
  check_choice(kd.loss, {"labels", "top_k", "decoupled_top_k", "sample", "hybrid", "kl", "reverse_kl", "jsd"},
               at("loss"), "loss");
  check(train.labels.empty() || train.teachers.empty(), at("teacher"),
        "labels and teacher: a stage has one or the other");
  check(kd.teacher_weight >= 0 && kd.teacher_weight <= 1, at("teacher_weight"),
        fmt::format("teacher_weight: got {}, expected 0 to 1", kd.teacher_weight));
  check(kd.teacher_weight_end == -1 || (kd.teacher_weight_end >= 0 && kd.teacher_weight_end <= 1),
        at("teacher_weight_end"),
        fmt::format("teacher_weight_end: got {}, expected 0 to 1, or -1", kd.teacher_weight_end));
  check(kd.temperature >= kLeastTemperature && kd.temperature <= kMostTemperature, at("kd_temperature"),
        fmt::format("kd_temperature: got {}, expected {} to {}", kd.temperature, kLeastTemperature, kMostTemperature));
  check(kd.beta >= kMinBeta && kd.beta <= 1 - kMinBeta, at("jsd_beta"),
        fmt::format("jsd_beta: got {}, expected {} to {}: nearer to 0 or 1 it is kl or reverse_kl", kd.beta, kMinBeta,
                    1 - kMinBeta));
  const auto [from, to] = distil_span(kd, train.training.steps());
  check(kd.distil_from >= 0 && from < to && to <= 1, at("distil_from"),
        fmt::format("distil_from and distil_to: got {} and {}, expected 0 <= distil_from < distil_to, as shares up to "
                    "1 or, above 1, as some of the {} steps",
                    kd.distil_from, kd.distil_to, train.training.steps()));
  check(train.top_k >= 1 && train.top_k < recipe.tokenizer.vocab_size, at("top_k"),
        fmt::format("top_k: got {}, expected 1 to vocab_size - 1", train.top_k));
  check(train.draws >= 1 && train.draws <= kMaxDraws, at("draws"),
        fmt::format("draws: got {}, expected 1 to {}", train.draws, kMaxDraws));
  check_proposal(train.proposal_temperature, at("proposal_temperature"));
  check(kd.loss != "labels" || kd.temperature == 1, at("kd_temperature"),
        "kd_temperature: loss = \"labels\" knows the teacher's choice only; use top_k, decoupled_top_k, sample, "
        "hybrid, kl, reverse_kl or jsd");
  check(kd.loss == "labels" || train.has_teacher(), at("loss"),
        fmt::format("loss: '{}' needs `labels` or `teacher`", kd.loss));
  check_choice(kd.hidden_loss, {"none", "cosine", "mse"}, at("hidden_loss"), "hidden_loss");
  check(kd.hidden_loss == "none" || !train.teachers.empty(), at("hidden_loss"),
        "hidden_loss: hidden states are not stored; give `teacher` instead of `labels`");
  check(kd.hidden_weight >= 0 && std::isfinite(kd.hidden_weight), at("hidden_weight"),
        fmt::format("hidden_weight: got {}, expected 0 or more", kd.hidden_weight));
}

/// Each teacher once, and a share for each; fills and normalises teacher_shares.
void finish_teachers(const OptionTable& table, TrainStage& train) {
  const auto at = [&](const char* key) { return table.where(key); };
  for (const std::vector<std::string>* names : {&train.labels, &train.teachers})
    for (size_t i = 1; i < names->size(); ++i)
      check(std::find(names->begin(), names->begin() + static_cast<std::ptrdiff_t>(i), (*names)[i]) ==
                names->begin() + static_cast<std::ptrdiff_t>(i),
            at(names == &train.labels ? "labels" : "teacher"), fmt::format("'{}' is given twice", (*names)[i]));
  const size_t num_teachers = train.labels.size() + train.teachers.size();
  if (train.teacher_shares.empty()) train.teacher_shares.assign(num_teachers, 1.0);
  check(train.teacher_shares.size() == num_teachers, at("teacher_shares"),
        fmt::format("teacher_shares: got {} numbers for {} teachers", train.teacher_shares.size(), num_teachers));
  double sum = 0;
  for (const double share : train.teacher_shares) {
    check(share > 0 && std::isfinite(share), at("teacher_shares"),
          fmt::format("teacher_shares: got {}, expected numbers above 0", share));
    sum += share;
  }
  for (double& share : train.teacher_shares) share /= sum;
}

/// What a loss needs must be there: the teacher's choice, probabilities or draws, the latter two taken at the loss's
/// temperature.
void check_stored_labels(const OptionTable& table, const TrainStage& train, const Recipe& recipe) {
  const KdOptions& kd = train.distillation;
  const auto at = [&](const char* key) { return table.where(key); };
  for (const std::string& name : train.labels) {
    const Stage& stage = recipe.stage(name);
    const auto& label = stage.get<LabelStage>();
    check(!train.training.document_mask || label.window_rule != "aligned", at("document_mask"),
          fmt::format("document_mask: the teacher of stage '{}' reads across documents (window_rule = \"aligned\"), "
                      "this stage does not; give it "
                      "window_rule = \"document\"",
                      name));
    check(kd.loss == "sample" || label.tier != "sample", at("loss"),
          fmt::format("loss: '{}' needs the teacher's choice or probabilities, and stage '{}' stores draws; use sample",
                      kd.loss, name));
    if (kd.loss == "labels") continue;
    check(reads_some_ids(kd.loss), at("loss"),
          fmt::format("loss: '{}' needs the teacher's whole distribution: give `teacher` instead of `labels`, or use "
                      "top_k, sample or hybrid",
                      kd.loss));
    check(reads_draws(kd.loss) || label.tier != "top1", at("loss"),
          fmt::format("loss: {} needs probabilities, and stage '{}' stores tier top1; give it tier = \"topk\"", kd.loss,
                      name));
    check(!reads_draws(kd.loss) || label.tier == kd.loss, at("loss"),
          fmt::format("loss: {} needs draws{}, and stage '{}' stores tier {}; give it tier = \"{}\"", kd.loss,
                      kd.loss == "hybrid" ? " beside its ids" : "", name, label.tier, kd.loss));
    const bool softens = kd.loss == "decoupled_top_k";
    check(label.temperature == label_temperature(kd), at(softens ? "loss" : "kd_temperature"),
          softens ? fmt::format("loss: {} softens probabilities itself, and stage '{}' stores them at temperature {}; "
                                "give it temperature = 1",
                                kd.loss, name, label.temperature)
                  : fmt::format("kd_temperature: got {}, and stage '{}' stores probabilities at {}", kd.temperature,
                                name, label.temperature));
  }
}

/// Hidden states are compared width by width, layer by layer.
void check_hidden_loss(const OptionTable& table, const TrainStage& train, const Recipe& recipe) {
  if (train.distillation.hidden_loss == "none") return;
  const ModelConfig student = train.from.empty() ? recipe.models.at(train.model) : recipe.model_after(train.from);
  for (const int64_t layer : train.distillation.hidden_layers)
    check(layer >= 1 && layer <= student.num_hidden_layers, table.where("hidden_layers"),
          fmt::format("hidden_layers: got {}, expected 1 to {}", layer, student.num_hidden_layers));
  for (const std::string& name : train.teachers) {
    const ModelConfig teacher = recipe.model_after(name);
    check(teacher.hidden_size == student.hidden_size && teacher.num_hidden_layers == student.num_hidden_layers,
          table.where("hidden_loss"),
          fmt::format(
              "hidden_loss: '{}' has {} layers of hidden_size {}, this stage's model {} of {}; they must be equal",
              name, teacher.num_hidden_layers, teacher.hidden_size, student.num_hidden_layers, student.hidden_size));
  }
}

std::any read(OptionTable& table, const Recipe& recipe, uint64_t seed) {
  TrainStage train;
  prepare_training(table, train.training);
  table.read(train);
  finish_training(table, train.training, recipe.data, seed);
  check(train.from.empty() != train.model.empty(), table.where(),
        "a train stage needs exactly one of `model` (fresh weights) and `from` (an earlier stage)");
  if (!train.from.empty()) check_input(recipe.stages, train.from, model_kinds(), table.where("from"), "from");
  if (!train.model.empty()) check_model(recipe, train.model, table.where("model"), "model");
  for (const std::string& name : train.labels)
    check_input(recipe.stages, name, {kLabel.kind}, table.where("labels"), "labels");
  for (const std::string& name : train.teachers)
    check_input(recipe.stages, name, model_kinds(), table.where("teacher"), "teacher");
  check_losses(table, train, recipe);
  finish_teachers(table, train);
  check_stored_labels(table, train, recipe);
  check_hidden_loss(table, train, recipe);
  check(train.rope_theta == 0 || (train.rope_theta > 1 && std::isfinite(train.rope_theta)), table.where("rope_theta"),
        fmt::format("rope_theta: got {}, expected above 1", train.rope_theta));
  return train;
}

std::string start(const Stage& stage) { return stage.get<TrainStage>().from; }
const TrainingOptions* training(const Stage& stage) { return &stage.get<TrainStage>().training; }

std::vector<std::string> inputs(const Stage& stage) {
  const auto& train = stage.get<TrainStage>();
  std::vector<std::string> names = {train.from};
  names.insert(names.end(), train.labels.begin(), train.labels.end());
  for (const std::string& teacher : train.teachers)
    if (teacher != train.from) names.push_back(teacher);
  return names;
}

ModelConfig leaves_model(const Recipe& recipe, const Stage& stage) {
  const auto& train = stage.get<TrainStage>();
  ModelConfig config = train.from.empty() ? recipe.models.at(train.model) : recipe.model_after(train.from);
  if (train.rope_theta > 0) config.rope_theta = train.rope_theta;
  config.max_position_embeddings = std::max(config.max_position_embeddings, train.training.seq_len);
  return config;
}

void check_models(const Recipe& recipe, const Stage& stage) {
  const auto& train = stage.get<TrainStage>();
  check_attention_window(recipe, stage, train.from, "seq_len", train.training.seq_len);
  for (const std::string& teacher : train.teachers)
    check_attention_window(recipe, stage, teacher, "seq_len", train.training.seq_len);
}

std::vector<OutsideSource> needs(const Recipe& recipe, const Stage& stage) {
  std::vector<OutsideSource> needs;
  for (const std::string& labels : stage.get<TrainStage>().labels)
    if (const std::string& cache = recipe.stage(labels).get<LabelStage>().cache; !cache.empty())
      for (const DomainOptions& domain : recipe.data.domains)
        needs.push_back({label_cache(cache, domain.name), "it reads these labels where they lie (`cache`)"});
  return needs;
}

Json identity(const Recipe& recipe, const Stage& stage) {
  const auto& train = stage.get<TrainStage>();
  Json json = deciding(train, kAlsoInFingerprints);
  json.update(drawing_json(train.training));
  const Json distillation = take_part(json, train.distillation);
  if (train.has_teacher()) json["distillation"] = distillation;
  if (train.from.empty()) json["model"] = to_json(recipe.models.at(train.model));
  // One teacher is known by its fingerprint among the inputs; of several the names say whose share is whose.
  json.erase("teacher");
  if (!train.teachers.empty()) json["teachers"] = train.teachers;
  if (train.labels.size() < 2) json.erase("labels");
  if (train.teacher_shares.size() < 2) json.erase("teacher_shares");
  if (train.teachers.empty() || !reads_top_k(train.distillation.loss)) json.erase("top_k");
  if (train.teachers.empty() || !reads_draws(train.distillation.loss)) json.erase("draws");
  if (train.teachers.empty() || train.distillation.loss != "sample" || train.proposal_temperature == 1)
    json.erase("proposal_temperature");
  return json;
}

/// The pass over rows of logits that a loss is.
Kernel loss_kernel(const std::string& loss) {
  if (loss == "kl" || loss == "reverse_kl") return Kernel::kl_rows;
  if (loss == "jsd") return Kernel::jsd_rows;
  return loss == "labels" ? Kernel::label_mix_rows : Kernel::top_k_rows;
}

void cost(const CostBasis& basis, const Stage& stage, StageCost& cost) {
  const auto& train = stage.get<TrainStage>();
  const KdOptions& kd = train.distillation;
  const ModelConfig config = basis.recipe.model_after(stage.name);
  const int64_t seq_len = train.training.seq_len;
  add_training(cost, train.training, config);
  const double look = look_tokens(train.training, basis);
  cost.uncounted_flops = look * forward_flops_per_token(config, seq_len);
  cost.work.front().read_tokens = look;
  if (train.has_teacher()) {
    cost.work.front().loss = loss_kernel(kd.loss);
    cost.work.front().ids = reads_top_k(kd.loss) ? train.top_k : train.draws;
  }
  if (train.teachers.empty()) return;
  const auto [first, last] = train.distilling_steps();  // in which every teacher reads the batch
  const double tokens = static_cast<double>(last - first) * static_cast<double>(train.training.batch_tokens);
  for (const std::string& name : train.teachers) {
    const ModelConfig teacher = basis.recipe.model_after(name);
    cost.flops += tokens * forward_flops_per_token(teacher, seq_len);
    cost.memory_bytes += model_bytes(teacher);
    cost.work.push_back(reading_work(teacher, seq_len, tokens));
  }
}

}  // namespace

const StageKind kTrain = {.kind = "train",
                          .seeded = true,
                          .computes = true,
                          .on_ranks = true,
                          .options = option_lines<TrainStage>,
                          .read = read,
                          .inputs = inputs,
                          .start = start,
                          .leaves_model = leaves_model,
                          .check_models = check_models,
                          .training = training,
                          .needs = needs,
                          .identity = identity,
                          .cost = cost,
                          .run = run_train};

std::pair<int64_t, int64_t> TrainStage::distilling_steps() const {
  const int64_t steps = training.steps();
  int64_t first = 0;
  while (first < steps && !distils_at(distillation, first, steps)) ++first;
  int64_t last = first;
  while (last < steps && distils_at(distillation, last, steps)) ++last;
  return {first, last};
}

}  // namespace coppice
