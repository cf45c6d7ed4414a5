#include "recipes/recipe.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "pruning/scores.h"
#include "src/base/errors.h"
#include "src/base/nearest.h"

namespace coppice {
namespace {

const std::vector<std::string> kKinds = {"train", "learn_masks", "prune", "label", "evaluate", "export"};
const std::vector<std::string> kTopLevel = {"name", "seed", "device", "threads", "data", "tokenizer", "model", "stage", "seeds", "reference", "compare", "arm"};
const std::vector<std::string> kAblationKeys = {"arm", "seeds", "reference", "compare"};

[[noreturn]] void refuse(const std::string& where, const std::string& message) { throw UserError::recipe(where, message); }

void check(bool holds, const std::string& where, const std::string& message) {
  if (!holds) refuse(where, message);
}

void check_choice(const std::string& value, const std::vector<std::string>& choices, const std::string& where, const std::string& key) {
  if (std::ranges::find(choices, value) != choices.end()) return;
  refuse(where, fmt::format("{}: got '{}', expected one of: {}; did you mean '{}'?", key, printable(value), fmt::join(choices, ", "), nearest(value, choices)));
}

/// A folder name of its own: letters, digits, '-', '_', '.'; not a top-level table, not a name the run folder uses.
void check_name(const std::string& name, const std::string& where, const std::string& what) {
  const auto plain = [](unsigned char c) { return std::isalnum(c) || c == '-' || c == '_' || c == '.'; };
  check(!name.empty() && name.size() <= 64 && std::ranges::all_of(name, plain) && name[0] != '.', where,
        fmt::format("{}: got '{}', expected 1 to 64 letters, digits, '-', '_' or '.', not starting with '.'", what, printable(name)));
}

ModelConfig read_model(OptionTable table, const ModelConfig* base, int64_t vocab_size) {
  ModelConfig config = base ? *base : ModelConfig{.head_dim = 0};
  std::string preset_name;
  table.take("preset", preset_name, "start from a named shape");
  if (!preset_name.empty()) config = preset(preset_name, table.where("preset"));
  config.vocab_size = vocab_size;
  table.take("hidden_size", config.hidden_size, "model width D");
  table.take("num_hidden_layers", config.num_hidden_layers, "layers");
  const int64_t heads_before = config.num_attention_heads;
  table.take("num_attention_heads", config.num_attention_heads, "query heads");
  table.take("num_key_value_heads", config.num_key_value_heads, "key and value heads; divides num_attention_heads");
  const bool keeps_heads = config.head_dim > 0 && heads_before == config.num_attention_heads;
  if (!keeps_heads && config.num_attention_heads > 0) config.head_dim = config.hidden_size / config.num_attention_heads;
  table.take("head_dim", config.head_dim, "size of a head; default hidden_size / num_attention_heads");
  const auto layers = static_cast<size_t>(std::clamp<int64_t>(config.num_hidden_layers, 0, 4096));
  std::vector<int64_t> widths = config.intermediate_size;  // one number where all layers are equal, so that other layer counts inherit it
  if (std::ranges::adjacent_find(widths, std::not_equal_to<>()) == widths.end()) widths.resize(1, 0);
  table.take_for_each("intermediate_size", widths, "FFN channels: one number for every layer, or an array with one for each");
  config.intermediate_size = widths.size() == 1 ? std::vector<int64_t>(layers, widths[0]) : widths;
  table.take("rope_theta", config.rope_theta, "RoPE base");
  table.take("rms_norm_eps", config.rms_norm_eps, "epsilon of every RMSNorm");
  table.take("tie_word_embeddings", config.tie_word_embeddings, "one matrix for input and output");
  table.take("qk_norm", config.qk_norm, "RMSNorm on queries and keys before RoPE");
  table.take("max_position_embeddings", config.max_position_embeddings, "longest sequence, written to config.json");
  table.finish();
  check_config(config, table.where(), false);
  return config;
}

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
  check(training.tokens > 0, at("tokens"), fmt::format("tokens: got {}, expected a positive number", training.tokens));
  check(training.seq_len >= 2, at("seq_len"), fmt::format("seq_len: got {}, expected at least 2", training.seq_len));
  check(training.batch_tokens > 0 && training.batch_tokens % training.seq_len == 0, at("batch_tokens"),
        fmt::format("batch_tokens: got {}, expected a positive multiple of seq_len = {}", training.batch_tokens, training.seq_len));
  check(training.micro_batch_tokens >= 0 && training.micro_batch_tokens % training.seq_len == 0, at("micro_batch_tokens"),
        fmt::format("micro_batch_tokens: got {}, expected 0 or a multiple of seq_len = {}", training.micro_batch_tokens, training.seq_len));
  check(training.eval_steps >= 0 && training.eval_tokens >= 0, at("eval_steps"), "eval_steps and eval_tokens: expected 0 or more");
  check(training.checkpoint_steps >= 1, at("checkpoint_steps"), fmt::format("checkpoint_steps: got {}, expected at least 1", training.checkpoint_steps));
  check(training.keep_last >= 2, at("keep_last"), fmt::format("keep_last: got {}, expected at least 2: the newest may be damaged", training.keep_last));
  check_choice(training.optimizer.optimizer, {"adastar", "adamw"}, at("optimizer"), "optimizer");
  check(training.optimizer.lr > 0 && std::isfinite(training.optimizer.lr), at("lr"),
        fmt::format("lr: got {}, expected a positive number", training.optimizer.lr));
  for (const auto& [key, value] : {std::pair{"beta_1", training.optimizer.beta_1}, {"beta_2", training.optimizer.beta_2}})
    check(value >= 0 && value < 1, at(key), fmt::format("{}: got {}, expected at least 0 and below 1", key, value));
  for (const auto& [key, value] :
       {std::pair{"weight_decay", training.optimizer.weight_decay}, {"z_loss", training.z_loss}, {"final_lr_ratio", training.optimizer.final_lr_ratio}})
    check(value >= 0 && std::isfinite(value), at(key), fmt::format("{}: got {}, expected 0 or more", key, value));
  for (OptionTable row : table.tables("mixture")) {
    MixtureEntry entry;
    row.take("domain", entry.domain, "name of a [[data.domain]]");
    row.take("weight", entry.weight, "share, relative to the others");
    row.take("max_epochs", entry.max_epochs, "0 = no limit");
    row.finish();
    std::vector<std::string> names;
    for (const DomainOptions& domain : domains) names.push_back(domain.name);
    check_choice(entry.domain, names, row.where("domain"), "domain");
    check(entry.weight >= 0 && std::isfinite(entry.weight), row.where("weight"), fmt::format("weight: got {}, expected 0 or more", entry.weight));
    if (entry.weight > 0) training.mixture.push_back(entry);
  }
  if (training.mixture.empty())
    for (const DomainOptions& domain : domains)
      if (domain.weight > 0) training.mixture.push_back({domain.name, domain.weight, domain.max_epochs});
  check(!training.mixture.empty(), table.where(), "the mixture has no domain with a weight above 0");
  return training;
}

/// Checks that `name` is an earlier stage of one of the kinds.
void check_input(const std::vector<Stage>& earlier, const std::string& name, const std::vector<std::string>& kinds, const std::string& where,
                 const std::string& key) {
  std::vector<std::string> names;
  for (const Stage& stage : earlier) {
    if (stage.name == name) {
      if (std::ranges::find(kinds, stage.kind) != kinds.end()) return;
      refuse(where, fmt::format("{}: stage '{}' is of kind {}, expected {}", key, name, stage.kind, fmt::join(kinds, " or ")));
    }
    names.push_back(stage.name);
  }
  if (name.empty()) refuse(where, fmt::format("{}: missing; expected the name of an earlier stage ({})", key, fmt::join(kinds, " or ")));
  refuse(where, fmt::format("{}: no earlier stage is named '{}'{}", key, printable(name),
                            names.empty() ? "" : fmt::format("; did you mean '{}'?", nearest(name, names))));
}

const std::vector<std::string> kModelKinds = {"train", "learn_masks", "prune"};

/// What a loss needs must be there: `kl` a live teacher, `top_k` stored probabilities taken at the loss's temperature.
void check_distillation(const OptionTable& table, const TrainStage& train, const Recipe& recipe) {
  const KdOptions& kd = train.distillation;
  const auto at = [&](const char* key) { return table.where(key); };
  check_choice(kd.loss, {"labels", "top_k", "kl", "reverse_kl", "jsd"}, at("loss"), "loss");
  check(train.labels.empty() || train.teacher.empty(), at("teacher"), "labels and teacher: a stage has one or the other");
  check(kd.teacher_weight >= 0 && kd.teacher_weight <= 1, at("teacher_weight"), fmt::format("teacher_weight: got {}, expected 0 to 1", kd.teacher_weight));
  check(kd.teacher_weight_end == -1 || (kd.teacher_weight_end >= 0 && kd.teacher_weight_end <= 1), at("teacher_weight_end"),
        fmt::format("teacher_weight_end: got {}, expected 0 to 1, or -1", kd.teacher_weight_end));
  check(kd.temperature > 0 && std::isfinite(kd.temperature), at("kd_temperature"), fmt::format("kd_temperature: got {}, expected above 0", kd.temperature));
  check(kd.beta > 0 && kd.beta < 1, at("jsd_beta"), fmt::format("jsd_beta: got {}, expected above 0 and below 1", kd.beta));
  check(kd.distil_from >= 0 && kd.distil_from < kd.distil_to && kd.distil_to <= 1, at("distil_from"),
        fmt::format("distil_from and distil_to: got {} and {}, expected 0 <= distil_from < distil_to <= 1", kd.distil_from, kd.distil_to));
  check(train.top_k >= 1 && train.top_k < recipe.tokenizer.vocab_size, at("top_k"), fmt::format("top_k: got {}, expected 1 to vocab_size - 1", train.top_k));
  check(kd.loss != "labels" || kd.temperature == 1, at("kd_temperature"),
        "kd_temperature: loss = \"labels\" knows the teacher's choice only; use top_k, kl, reverse_kl or jsd");
  check(kd.loss == "labels" || train.has_teacher(), at("loss"), fmt::format("loss: '{}' needs `labels` or `teacher`", kd.loss));
  if (kd.loss == "labels" || !train.teacher.empty() || train.labels.empty()) return;
  check(kd.loss == "top_k", at("loss"),
        fmt::format("loss: '{}' needs the teacher's whole distribution: give `teacher` instead of `labels`, or use top_k", kd.loss));
  for (const Stage& stage : recipe.stages)
    if (const auto* label = std::get_if<LabelStage>(&stage.options); label && stage.name == train.labels) {
      check(label->tier != "top1", at("loss"),
            fmt::format("loss: top_k needs probabilities, and stage '{}' stores tier top1; give it tier = \"topk\"", stage.name));
      check(label->temperature == kd.temperature, at("kd_temperature"),
            fmt::format("kd_temperature: got {}, and stage '{}' stores probabilities at {}", kd.temperature, stage.name, label->temperature));
    }
}

Stage read_stage(OptionTable table, const Recipe& recipe) {
  Stage stage{.where = table.where(), .seed = 0};
  table.take("name", stage.name, "the stage's folder and its name in messages");
  table.take("kind", stage.kind, "train, learn_masks, prune, label, evaluate or export");
  check(table.has("name"), stage.where, "[[stage]] without a name");
  check_name(stage.name, table.where("name"), "name");
  check(std::ranges::find(kTopLevel, stage.name) == kTopLevel.end(), table.where("name"),
        fmt::format("name: '{}' is the name of a top-level key; choose another", stage.name));
  for (const Stage& other : recipe.stages)
    check(other.name != stage.name, table.where("name"), fmt::format("name: '{}' is already the stage at {}", stage.name, other.where));
  check_choice(stage.kind, kKinds, table.where("kind"), "kind");
  if (stage.kind == "train" || stage.kind == "learn_masks" || stage.kind == "prune")
    table.take("seed", stage.seed, "of this stage alone; 0 = the recipe's. An ablation computes a stage with a seed of its own once for all seeds");
  if (stage.seed == 0) stage.seed = recipe.seed;

  const auto check_model = [&](const std::string& name, const char* key) {
    std::vector<std::string> names;
    for (const auto& [known, config] : recipe.models) names.push_back(known);
    check_choice(name, names, table.where(key), key);
  };
  if (stage.kind == "train") {
    TrainStage train;
    table.take("model", train.model, "[model.<name>] for fresh weights");
    table.take("from", train.from, "earlier stage to go on from");
    table.take("labels", train.labels, "label stage whose stored labels are the teacher's part of the loss");
    table.take("teacher", train.teacher, "earlier model that is the teacher itself, read while this stage trains; instead of labels");
    table.take("top_k", train.top_k, "ids a token that loss = \"top_k\" asks a live teacher for");
    table.read(train.distillation);
    table.take("rope_theta", train.rope_theta, "RoPE base of this stage; 0 = as the model has it");
    train.training = read_training(table, recipe.data.domains, stage.seed);
    check(train.from.empty() != train.model.empty(), stage.where, "a train stage needs exactly one of `model` (fresh weights) and `from` (an earlier stage)");
    if (!train.from.empty()) check_input(recipe.stages, train.from, kModelKinds, table.where("from"), "from");
    if (!train.model.empty()) check_model(train.model, "model");
    if (!train.labels.empty()) check_input(recipe.stages, train.labels, {"label"}, table.where("labels"), "labels");
    if (!train.teacher.empty()) check_input(recipe.stages, train.teacher, kModelKinds, table.where("teacher"), "teacher");
    check_distillation(table, train, recipe);
    check(train.rope_theta == 0 || train.rope_theta > 1, table.where("rope_theta"), fmt::format("rope_theta: got {}, expected above 1", train.rope_theta));
    stage.options = train;
  } else if (stage.kind == "learn_masks") {
    LearnMasksStage masks;
    table.take("from", masks.from, "the dense source");
    table.take("target", masks.target, "[model.<name>] whose intermediate_size is kept");
    table.read(masks.masks);
    masks.training = read_training(table, recipe.data.domains, stage.seed);
    check_input(recipe.stages, masks.from, {"train"}, table.where("from"), "from");
    check_model(masks.target, "target");
    check_mask_options(masks.masks, [&](const char* key) { return table.where(key); });
    stage.options = masks;
  } else if (stage.kind == "prune") {
    PruneStage prune;
    table.take("from", prune.from, "the model to cut");
    table.take("target", prune.target, "[model.<name>] whose intermediate_size is kept");
    check_input(recipe.stages, prune.from, {"train", "learn_masks"}, table.where("from"), "from");
    const bool after_masks =
        std::ranges::find_if(recipe.stages, [&](const Stage& s) { return s.name == prune.from && s.kind == "learn_masks"; }) != recipe.stages.end();
    prune.scores = after_masks ? "masks" : "";
    table.take("scores", prune.scores, "masks (after learn_masks), " + score_names());
    table.take("calibration_tokens", prune.calibration_tokens, "tokens that scores from activations see");
    check(!prune.scores.empty(), stage.where, "scores: missing; 'masks' needs `from` to be a learn_masks stage, otherwise name a score");
    check(prune.scores != "masks" || after_masks, table.where("scores"),
          fmt::format("scores = \"masks\" needs `from` to be a learn_masks stage, '{}' is none", prune.from));
    if (prune.scores != "masks") find_score(prune.scores, table.where("scores"));
    check(prune.calibration_tokens > 0, table.where("calibration_tokens"), "calibration_tokens: expected above 0");
    check_model(prune.target, "target");
    stage.options = prune;
  } else if (stage.kind == "label") {
    LabelStage label;
    table.take("teacher", label.teacher, "the model that labels");
    table.take("window_rule", label.window_rule, "document (each document alone) or aligned (the training windows)");
    table.take("coverage", label.coverage, "all tokens, or used: only those that stages with these labels will draw");
    table.take("context", label.context, "tokens of a labelling window");
    table.take("overlap", label.overlap, "tokens read but not labelled at a window's start; -1 = a quarter of context");
    table.take("batch_tokens", label.batch_tokens, "tokens of one forward pass (memory)");
    table.take("tier", label.tier, "top1 (2 or 3 bytes a token), top1_prob (and its probability) or topk");
    table.take("top_k", label.top_k, "ids a token in tier topk");
    table.take("temperature", label.temperature, "of the stored probabilities; a stage with loss = \"top_k\" needs its kd_temperature");
    check_choice(label.tier, {"top1", "top1_prob", "topk"}, table.where("tier"), "tier");
    check(label.top_k >= 1 && label.top_k < recipe.tokenizer.vocab_size, table.where("top_k"),
          fmt::format("top_k: got {}, expected 1 to vocab_size - 1", label.top_k));
    check(label.temperature > 0 && std::isfinite(label.temperature), table.where("temperature"),
          fmt::format("temperature: got {}, expected above 0", label.temperature));
    check_input(recipe.stages, label.teacher, kModelKinds, table.where("teacher"), "teacher");
    check_choice(label.window_rule, {"document", "aligned"}, table.where("window_rule"), "window_rule");
    check_choice(label.coverage, {"all", "used"}, table.where("coverage"), "coverage");
    check(label.context >= 2, table.where("context"), fmt::format("context: got {}, expected at least 2", label.context));
    if (label.overlap < 0) label.overlap = label.window_rule == "aligned" ? 0 : label.context / 4;
    check(label.overlap < label.context, table.where("overlap"), fmt::format("overlap: got {}, expected below context = {}", label.overlap, label.context));
    check(label.batch_tokens > 0, table.where("batch_tokens"), "batch_tokens: expected above 0");
    stage.options = label;
  } else if (stage.kind == "evaluate") {
    EvaluateStage evaluate;
    table.take("of", evaluate.of, "stages whose models are scored");
    table.take("teacher", evaluate.teacher, "whose top-1 agreement is measured; default the first of `of`");
    table.take("seq_len", evaluate.seq_len, "tokens of a window; equal for every model");
    table.take_count("tokens", evaluate.tokens, "held-out tokens at most; 0 = all");
    table.take("batch_tokens", evaluate.batch_tokens, "tokens of one forward pass (memory)");
    check(!evaluate.of.empty(), table.where("of"), "of: expected at least one stage name");
    for (const std::string& name : evaluate.of) check_input(recipe.stages, name, kModelKinds, table.where("of"), "of");
    if (evaluate.teacher.empty()) evaluate.teacher = evaluate.of[0];
    check_input(recipe.stages, evaluate.teacher, kModelKinds, table.where("teacher"), "teacher");
    check(evaluate.seq_len >= 2 && evaluate.batch_tokens > 0 && evaluate.tokens >= 0, stage.where, "seq_len, batch_tokens and tokens must be positive");
    stage.options = evaluate;
  } else {
    ExportStage exports;
    table.take("from", exports.from, "the model to export");
    table.take("formats", exports.formats, "hf");
    table.take("dtype", exports.dtype, "f32 or bf16");
    check_input(recipe.stages, exports.from, kModelKinds, table.where("from"), "from");
    for (const std::string& format : exports.formats) check_choice(format, {"hf"}, table.where("formats"), "formats");
    check_choice(exports.dtype, {"f32", "bf16"}, table.where("dtype"), "dtype");
    stage.options = exports;
  }
  table.finish();
  return stage;
}

/// The tables and keys of an ablation. A file without any of them is an ordinary recipe.
void read_ablation(OptionTable& root, Recipe& recipe) {
  if (std::ranges::none_of(kAblationKeys, [&](const std::string& key) { return root.has(key); })) return;
  std::vector<int64_t> seeds;
  root.take("seeds", seeds, "each arm runs once with each");
  for (const int64_t seed : seeds) {
    check(seed > 0, root.where("seeds"), fmt::format("seeds: got {}, expected numbers from 1", seed));
    check(std::ranges::find(recipe.seeds, static_cast<uint64_t>(seed)) == recipe.seeds.end(), root.where("seeds"),
          fmt::format("seeds: {} is given twice", seed));
    recipe.seeds.push_back(static_cast<uint64_t>(seed));
  }
  root.take("reference", recipe.reference, "the arm that the others are compared with; default the first");
  root.take("compare", recipe.compare, "stages whose models the tables compare; default the last one evaluated");
  // names beside the arms in the run folder
  const std::vector<std::string> reserved = {"data",        "recipe.toml",  "run.json",      "log.txt",     "ablation.html",
                                             "ablation.md", "ablation.csv", "ablation.json", "ablation.svg"};
  std::vector<std::string> names;
  for (OptionTable table : root.tables("arm")) {
    ArmOptions arm{.where = table.where()};
    table.take("name", arm.name, "the arm's folder and its name in tables");
    check(table.has("name"), arm.where, "[[arm]] without a name");
    check_name(arm.name, table.where("name"), "arm");
    check(std::ranges::find(reserved, arm.name) == reserved.end(), table.where("name"),
          fmt::format("arm: '{}' is the name of something else in the run folder; choose another", arm.name));
    check(std::ranges::find(names, arm.name) == names.end(), table.where("name"), fmt::format("arm: '{}' is given twice", arm.name));
    table.take("reference", arm.reference, "the arm that this one is compared with; default the recipe's reference");
    arm.set = table.overrides("set");
    table.take("drop", arm.drop, "stages that this arm does without");
    table.finish();
    for (const Override& override : arm.set) {
      const std::string first = override.path.substr(0, override.path.find('.'));
      const bool shared = std::ranges::find(kTopLevel, first) != kTopLevel.end() && first != "model";
      check(!shared, override.where,
            fmt::format("arm '{}' sets {}: what is shared by all arms cannot differ between them; an arm sets keys of stages and of [model.*]", arm.name,
                        override.path));
    }
    names.push_back(arm.name);
    recipe.arms.push_back(arm);
  }
  if (!recipe.reference.empty() && !names.empty()) check_choice(recipe.reference, names, root.where("reference"), "reference");
  for (const ArmOptions& arm : recipe.arms)
    if (!arm.reference.empty()) check_choice(arm.reference, names, arm.where, "reference");
}

/// What stages ask of the models they read: widths that can be cut, equal shapes otherwise.
void check_shapes(const Recipe& recipe) {
  for (const Stage& stage : recipe.stages) {
    const auto check_target = [&](const std::string& from, const std::string& target) {
      const ModelConfig source = recipe.model_after(from);
      ModelConfig wanted = recipe.models.at(target);
      for (size_t layer = 0; layer < source.intermediate_size.size() && layer < wanted.intermediate_size.size(); ++layer)
        check(wanted.intermediate_size[layer] <= source.intermediate_size[layer], stage.where,
              fmt::format("{}: model.{}.intermediate_size: got {}, expected at most {} (what stage '{}' has)", stage.name, target,
                          wanted.intermediate_size[layer], source.intermediate_size[layer], from));
      wanted.intermediate_size = source.intermediate_size;
      wanted.rope_theta = source.rope_theta;
      wanted.max_position_embeddings = source.max_position_embeddings;
      check(wanted == source, stage.where,
            fmt::format("{}: model.{} differs from stage '{}' in more than intermediate_size; only FFN channels are cut", stage.name, target, from));
    };
    if (const auto* masks = std::get_if<LearnMasksStage>(&stage.options)) {
      check_target(masks->from, masks->target);
      const ModelConfig source = recipe.model_after(masks->from);
      const int64_t kept = recipe.models.at(masks->target).intermediate_size.front();
      check_budget({.num_kept = kept, .global = masks->masks.budget == "global", .round_to = masks->masks.round_to}, source.num_hidden_layers,
                   source.intermediate_size.front(), stage.where);
      for (const auto& [what, config] :
           {std::pair{"stage '" + masks->from + "'", recipe.model_after(masks->from)}, {"model." + masks->target, recipe.models.at(masks->target)}})
        check(std::ranges::adjacent_find(config.intermediate_size, std::not_equal_to<>()) == config.intermediate_size.end(), stage.where,
              fmt::format("{}: {} has intermediate_size [{}]; learned masks need one width for all layers", stage.name, what,
                          fmt::join(config.intermediate_size, ", ")));
    }
    if (const auto* prune = std::get_if<PruneStage>(&stage.options)) check_target(prune->from, prune->target);
  }
}

}  // namespace

int64_t TrainingOptions::steps() const { return std::max<int64_t>(1, (tokens + batch_tokens / 2) / batch_tokens); }

std::vector<std::string> Stage::inputs() const {
  struct {
    std::vector<std::string> operator()(const TrainStage& s) const { return {s.from, s.labels, s.teacher == s.from ? "" : s.teacher}; }
    std::vector<std::string> operator()(const LearnMasksStage& s) const { return {s.from}; }
    std::vector<std::string> operator()(const PruneStage& s) const { return {s.from}; }
    std::vector<std::string> operator()(const LabelStage& s) const { return {s.teacher}; }
    std::vector<std::string> operator()(const EvaluateStage& s) const {
      std::vector<std::string> names = s.of;
      if (std::ranges::find(names, s.teacher) == names.end()) names.push_back(s.teacher);
      return names;
    }
    std::vector<std::string> operator()(const ExportStage& s) const { return {s.from}; }
  } names_of;
  std::vector<std::string> names = std::visit(names_of, options);
  std::erase(names, std::string());
  return names;
}

const Stage& Recipe::stage(const std::string& stage_name) const {
  const auto found = std::ranges::find(stages, stage_name, &Stage::name);
  COPPICE_CHECK(found != stages.end(), "no stage named " + stage_name);
  return *found;
}

ModelConfig Recipe::model_after(const std::string& stage_name) const {
  const Stage& found = stage(stage_name);
  if (const auto* train = std::get_if<TrainStage>(&found.options)) {
    ModelConfig config = train->from.empty() ? models.at(train->model) : model_after(train->from);
    if (train->rope_theta > 0) config.rope_theta = train->rope_theta;
    config.max_position_embeddings = std::max(config.max_position_embeddings, train->training.seq_len);
    return config;
  }
  if (const auto* masks = std::get_if<LearnMasksStage>(&found.options)) return model_after(masks->from);
  const auto* prune = std::get_if<PruneStage>(&found.options);
  COPPICE_CHECK(prune != nullptr, "stage " + stage_name + " leaves no model");
  ModelConfig config = model_after(prune->from);
  config.intermediate_size = models.at(prune->target).intermediate_size;
  return config;
}

const TrainingOptions* training_of(const Stage& stage) {
  if (const auto* train = std::get_if<TrainStage>(&stage.options)) return &train->training;
  if (const auto* masks = std::get_if<LearnMasksStage>(&stage.options)) return &masks->training;
  return nullptr;
}

Recipe load_recipe(const std::string& file, const std::vector<Override>& overrides, const std::vector<std::string>& unset, const ArmOptions* arm) {
  RecipeSource source = RecipeSource::load(file, overrides, unset);
  if (arm != nullptr) source.make_arm(kAblationKeys, arm->set, arm->drop, arm->where);
  OptionTable root = source.root();
  Recipe recipe;
  recipe.name = std::filesystem::path(file).stem().string();
  root.take("name", recipe.name, "the run folder's name");
  check_name(recipe.name, root.where("name"), "name");
  root.take("seed", recipe.seed, "of every random stream");
  root.take("device", recipe.device, "cpu, cuda or auto");
  check_choice(recipe.device, {"auto", "cpu", "cuda"}, root.where("device"), "device");
  check(recipe.device != "cuda", root.where("device"), "device: this build has no CUDA training path; use \"cpu\" or \"auto\"");
  root.take("threads", recipe.threads, "CPU threads; 0 = all; another number changes the last bits of results");
  check(recipe.threads >= 0 && recipe.threads <= 4096, root.where("threads"), fmt::format("threads: got {}, expected 0 to 4096", recipe.threads));

  OptionTable data = root.table("data");
  data.take_count("shard_tokens", recipe.data.shard_tokens, "tokens of a shard at most");
  data.read(recipe.data);
  check(recipe.data.heldout_share > 0 && recipe.data.heldout_share < 0.5, data.where("heldout_share"),
        fmt::format("heldout_share: got {}, expected above 0 and below 0.5", recipe.data.heldout_share));
  check(recipe.data.shard_tokens >= 4096, data.where("shard_tokens"), fmt::format("shard_tokens: got {}, expected at least 4096", recipe.data.shard_tokens));
  for (OptionTable table : data.tables("domain")) {
    DomainOptions domain;
    table.read(domain);
    table.finish();
    check_name(domain.name, table.where("name"), "domain name");
    check(!domain.path.empty(), table.where(), fmt::format("domain '{}' has no path", domain.name));
    check(domain.weight >= 0 && std::isfinite(domain.weight), table.where("weight"), fmt::format("weight: got {}, expected 0 or more", domain.weight));
    for (const DomainOptions& other : recipe.data.domains)
      check(other.name != domain.name, table.where("name"), fmt::format("domain '{}' is given twice", domain.name));
    recipe.data.domains.push_back(domain);
  }
  data.finish();
  check(!recipe.data.domains.empty(), data.where(), "no [[data.domain]]: name at least one corpus file or folder");

  OptionTable tokenizer = root.table("tokenizer");
  tokenizer.take_count("training_bytes", recipe.tokenizer.training_bytes, "bytes of text that the trainer sees");
  tokenizer.read(recipe.tokenizer);
  tokenizer.finish();
  check_choice(recipe.tokenizer.kind, {"sentencepiece"}, tokenizer.where("kind"), "kind");
  check(recipe.tokenizer.vocab_size > 260 && recipe.tokenizer.vocab_size <= (1 << 20), tokenizer.where("vocab_size"),
        fmt::format("vocab_size: got {}, expected 261 (4 control pieces, 256 bytes, one more) to 1048576", recipe.tokenizer.vocab_size));
  check(recipe.tokenizer.character_coverage > 0.9 && recipe.tokenizer.character_coverage <= 1, tokenizer.where("character_coverage"),
        "character_coverage: expected above 0.9, at most 1");
  check(recipe.tokenizer.training_bytes > 0, tokenizer.where("training_bytes"), "training_bytes: expected above 0");

  OptionTable models = root.table("model");
  std::vector<std::string> names = models.table_names();
  std::ranges::stable_partition(names, [](const std::string& name) { return name == "source"; });
  for (const std::string& name : names) {
    const ModelConfig* base = recipe.models.contains("source") ? &recipe.models.at("source") : nullptr;
    recipe.models[name] = read_model(models.table(name), base, recipe.tokenizer.vocab_size);
  }
  models.finish();
  check(!recipe.models.empty(), root.where(), "no [model.<name>] table");
  for (OptionTable table : root.tables("stage")) recipe.stages.push_back(read_stage(table, recipe));
  read_ablation(root, recipe);
  root.finish();
  check(!recipe.stages.empty(), root.where(), "no [[stage]]");
  for (const std::string& name : recipe.compare) check_input(recipe.stages, name, kModelKinds, root.where("compare"), "compare");
  check_shapes(recipe);
  recipe.resolved = source.resolved(false);
  recipe.with_origins = source.resolved(true);
  return recipe;
}

}  // namespace coppice
