// What train and learn_masks share of their tables, and what a train stage's losses and teachers must have.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "recipes/language/recipe_reading.h"

namespace coppice {
namespace {

constexpr double kMinBeta = 1e-3;                      // of jsd: float32 keeps both shares of the mean apart from 0
constexpr int64_t kMaxTokens = 1'000'000'000'000'000;  // sums of a few stay inside 64 bits

/// [[stage.mixture]], or the weights of [[data.domain]].
std::vector<MixtureEntry> read_mixture(OptionTable& table, const std::vector<DomainOptions>& domains) {
  std::vector<MixtureEntry> mixture;
  std::vector<std::string> given;
  for (OptionTable row : table.tables("mixture")) {
    MixtureEntry entry;
    row.take("domain", entry.domain, "name of a [[data.domain]]");
    row.take("weight", entry.weight, "share, relative to the others");
    row.take("max_epochs", entry.max_epochs, "0 = no limit");
    row.finish();
    std::vector<std::string> names;
    for (const DomainOptions& domain : domains) names.push_back(domain.name);
    check_choice(entry.domain, names, row.where("domain"), "domain");
    check(entry.weight >= 0 && std::isfinite(entry.weight), row.where("weight"),
          fmt::format("weight: got {}, expected 0 or more", entry.weight));
    check(entry.max_epochs >= 0 && std::isfinite(entry.max_epochs), row.where("max_epochs"),
          fmt::format("max_epochs: got {}, expected 0 (no limit) or more", entry.max_epochs));
    check(std::ranges::find(given, entry.domain) == given.end(), row.where("domain"),
          fmt::format("domain: '{}' is given twice", entry.domain));
    given.push_back(entry.domain);
    if (entry.weight > 0) mixture.push_back(entry);
  }
  if (mixture.empty())
    for (const DomainOptions& domain : domains)
      if (domain.weight > 0) mixture.push_back({domain.name, domain.weight, domain.max_epochs});
  check(!mixture.empty(), table.where(), "the mixture has no domain with a weight above 0");
  return mixture;
}

}  // namespace

TrainingOptions read_training(OptionTable& table, const std::vector<DomainOptions>& domains, uint64_t seed) {
  TrainingOptions training;
  table.take_count("tokens", training.tokens, "tokens to train on, for instance 1.2e6");
  // adamw's published settings differ from adastar's; they are defaults, so a recipe may still set each.
  std::string optimizer = training.optimizer.optimizer;
  table.take("optimizer", optimizer, "adastar or adamw");
  if (optimizer == "adamw") {
    training.optimizer.beta_1 = 0.9;
    training.optimizer.weight_decay = 1e-4;
    training.optimizer.final_lr_ratio = 1e-4;
  }
  table.read(training);
  training.data_seed = training.data_seed == 0 ? seed : training.data_seed + ((seed - 1) << 32);
  const auto at = [&](const char* key) { return table.where(key); };
  check(training.tokens > 0 && training.tokens <= kMaxTokens, at("tokens"),
        fmt::format("tokens: got {}, expected 1 to {}", training.tokens, kMaxTokens));
  check(training.seq_len >= 2, at("seq_len"), fmt::format("seq_len: got {}, expected at least 2", training.seq_len));
  check(
      training.batch_tokens > 0 && training.batch_tokens <= kMaxTokens && training.batch_tokens % training.seq_len == 0,
      at("batch_tokens"),
      fmt::format("batch_tokens: got {}, expected a positive multiple of seq_len = {}", training.batch_tokens,
                  training.seq_len));
  check(training.steps() < 100'000'000, at("batch_tokens"),
        fmt::format(
            "batch_tokens: got {}, so {} steps, expected below 10^8 (checkpoints have step numbers of eight digits)",
            training.batch_tokens, training.steps()));
  check(training.micro_batch_tokens >= 0 && training.micro_batch_tokens % training.seq_len == 0,
        at("micro_batch_tokens"),
        fmt::format("micro_batch_tokens: got {}, expected 0 or a multiple of seq_len = {}", training.micro_batch_tokens,
                    training.seq_len));
  check(training.eval_steps >= 0 && training.eval_tokens >= 0, at("eval_steps"),
        "eval_steps and eval_tokens: expected 0 or more");
  check(training.checkpoint_steps >= 1, at("checkpoint_steps"),
        fmt::format("checkpoint_steps: got {}, expected at least 1", training.checkpoint_steps));
  check(training.keep_last >= 2, at("keep_last"),
        fmt::format("keep_last: got {}, expected at least 2: the newest may be damaged", training.keep_last));
  check_optimizer_options(training.optimizer, at);
  check(training.z_loss >= 0 && std::isfinite(training.z_loss), at("z_loss"),
        fmt::format("z_loss: got {}, expected 0 or more", training.z_loss));
  check(training.max_skipped_steps >= 0, at("max_skipped_steps"),
        fmt::format("max_skipped_steps: got {}, expected 0 or more", training.max_skipped_steps));
  training.mixture = read_mixture(table, domains);
  return training;
}

void check_distillation(const OptionTable& table, TrainStage& train, const Recipe& recipe) {
  const KdOptions& kd = train.distillation;
  const auto at = [&](const char* key) { return table.where(key); };
  check_choice(kd.loss, {"labels", "top_k", "kl", "reverse_kl", "jsd"}, at("loss"), "loss");
  check(train.labels.empty() || train.teachers.empty(), at("teacher"),
        "labels and teacher: a stage has one or the other");
  check(kd.teacher_weight >= 0 && kd.teacher_weight <= 1, at("teacher_weight"),
        fmt::format("teacher_weight: got {}, expected 0 to 1", kd.teacher_weight));
  check(kd.teacher_weight_end == -1 || (kd.teacher_weight_end >= 0 && kd.teacher_weight_end <= 1),
        at("teacher_weight_end"),
        fmt::format("teacher_weight_end: got {}, expected 0 to 1, or -1", kd.teacher_weight_end));
  check(kd.temperature > 0 && std::isfinite(kd.temperature), at("kd_temperature"),
        fmt::format("kd_temperature: got {}, expected above 0", kd.temperature));
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
  check(kd.loss != "labels" || kd.temperature == 1, at("kd_temperature"),
        "kd_temperature: loss = \"labels\" knows the teacher's choice only; use top_k, kl, reverse_kl or jsd");
  check(kd.loss == "labels" || train.has_teacher(), at("loss"),
        fmt::format("loss: '{}' needs `labels` or `teacher`", kd.loss));
  check_choice(kd.hidden_loss, {"none", "cosine", "mse"}, at("hidden_loss"), "hidden_loss");
  check(kd.hidden_loss == "none" || !train.teachers.empty(), at("hidden_loss"),
        "hidden_loss: hidden states are not stored; give `teacher` instead of `labels`");
  check(kd.hidden_weight >= 0 && std::isfinite(kd.hidden_weight), at("hidden_weight"),
        fmt::format("hidden_weight: got {}, expected 0 or more", kd.hidden_weight));

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

  for (const std::string& name : train.labels) {
    const Stage& stage = recipe.stage(name);
    const auto& label = std::get<LabelStage>(stage.options);
    check(!train.training.document_mask || label.window_rule != "aligned", at("document_mask"),
          fmt::format("document_mask: the teacher of stage '{}' reads across documents (window_rule = \"aligned\"), "
                      "this stage does not; give it "
                      "window_rule = \"document\"",
                      name));
    if (kd.loss == "labels") continue;
    check(kd.loss == "top_k", at("loss"),
          fmt::format(
              "loss: '{}' needs the teacher's whole distribution: give `teacher` instead of `labels`, or use top_k",
              kd.loss));
    check(
        label.tier != "top1", at("loss"),
        fmt::format("loss: top_k needs probabilities, and stage '{}' stores tier top1; give it tier = \"topk\"", name));
    check(label.temperature == kd.temperature, at("kd_temperature"),
          fmt::format("kd_temperature: got {}, and stage '{}' stores probabilities at {}", kd.temperature, name,
                      label.temperature));
  }
}

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

}  // namespace coppice
