#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "pruning/scores.h"
#include "recipes/recipe_reading.h"
#include "recipes/sources.h"
#include "src/base/errors.h"
#include "src/base/input_file.h"
#include "src/checkpoint/hf_export.h"
#include "src/data/label_cache.h"
#include "src/data/tasks.h"

namespace coppice {
namespace {

constexpr double kMinBeta = 1e-3;                      // of jsd: float32 keeps both shares of the mean apart from 0
constexpr int64_t kMaxTokens = 1'000'000'000'000'000;  // sums of a few stay inside 64 bits
const std::vector<std::string> kKinds = {"train", "import", "learn_masks", "prune", "label", "evaluate", "export"};

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
  check(training.tokens > 0 && training.tokens <= kMaxTokens, at("tokens"), fmt::format("tokens: got {}, expected 1 to {}", training.tokens, kMaxTokens));
  check(training.seq_len >= 2, at("seq_len"), fmt::format("seq_len: got {}, expected at least 2", training.seq_len));
  check(training.batch_tokens > 0 && training.batch_tokens <= kMaxTokens && training.batch_tokens % training.seq_len == 0, at("batch_tokens"),
        fmt::format("batch_tokens: got {}, expected a positive multiple of seq_len = {}", training.batch_tokens, training.seq_len));
  check(training.steps() < 100'000'000, at("batch_tokens"),
        fmt::format("batch_tokens: got {}, so {} steps, expected below 10^8 (checkpoints have step numbers of eight digits)", training.batch_tokens,
                    training.steps()));
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
  check(training.z_loss >= 0 && std::isfinite(training.z_loss), at("z_loss"), fmt::format("z_loss: got {}, expected 0 or more", training.z_loss));
  const OptimizerOptions& optimizing = training.optimizer;
  check(optimizing.weight_decay >= 0 && optimizing.weight_decay < 1, at("weight_decay"),
        fmt::format("weight_decay: got {}, expected at least 0 and below 1", optimizing.weight_decay));
  check(optimizing.final_lr_ratio >= 0 && optimizing.final_lr_ratio <= 1, at("final_lr_ratio"),
        fmt::format("final_lr_ratio: got {}, expected 0 to 1", optimizing.final_lr_ratio));
  for (const auto& [key, value] : {std::pair{"max_grad_norm", optimizing.max_grad_norm}, {"drop_grad_norm", optimizing.drop_grad_norm}})
    check(value > 0, at(key), fmt::format("{}: got {}, expected above 0", key, value));
  check(optimizing.warmup_steps >= -1, at("warmup_steps"), fmt::format("warmup_steps: got {}, expected 0 or more, or -1", optimizing.warmup_steps));
  check(training.max_skipped_steps >= 0, at("max_skipped_steps"), fmt::format("max_skipped_steps: got {}, expected 0 or more", training.max_skipped_steps));
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
    check(entry.weight >= 0 && std::isfinite(entry.weight), row.where("weight"), fmt::format("weight: got {}, expected 0 or more", entry.weight));
    check(entry.max_epochs >= 0 && std::isfinite(entry.max_epochs), row.where("max_epochs"),
          fmt::format("max_epochs: got {}, expected 0 (no limit) or more", entry.max_epochs));
    check(std::ranges::find(given, entry.domain) == given.end(), row.where("domain"), fmt::format("domain: '{}' is given twice", entry.domain));
    given.push_back(entry.domain);
    if (entry.weight > 0) training.mixture.push_back(entry);
  }
  if (training.mixture.empty())
    for (const DomainOptions& domain : domains)
      if (domain.weight > 0) training.mixture.push_back({domain.name, domain.weight, domain.max_epochs});
  check(!training.mixture.empty(), table.where(), "the mixture has no domain with a weight above 0");
  return training;
}

/// What a loss needs must be there: `kl` a live teacher, `top_k` stored probabilities taken at the loss's temperature.
void check_distillation(const OptionTable& table, TrainStage& train, const Recipe& recipe) {
  const KdOptions& kd = train.distillation;
  const auto at = [&](const char* key) { return table.where(key); };
  check_choice(kd.loss, {"labels", "top_k", "kl", "reverse_kl", "jsd"}, at("loss"), "loss");
  check(train.labels.empty() || train.teachers.empty(), at("teacher"), "labels and teacher: a stage has one or the other");
  check(kd.teacher_weight >= 0 && kd.teacher_weight <= 1, at("teacher_weight"), fmt::format("teacher_weight: got {}, expected 0 to 1", kd.teacher_weight));
  check(kd.teacher_weight_end == -1 || (kd.teacher_weight_end >= 0 && kd.teacher_weight_end <= 1), at("teacher_weight_end"),
        fmt::format("teacher_weight_end: got {}, expected 0 to 1, or -1", kd.teacher_weight_end));
  check(kd.temperature > 0 && std::isfinite(kd.temperature), at("kd_temperature"), fmt::format("kd_temperature: got {}, expected above 0", kd.temperature));
  check(kd.beta >= kMinBeta && kd.beta <= 1 - kMinBeta, at("jsd_beta"),
        fmt::format("jsd_beta: got {}, expected {} to {}: nearer to 0 or 1 it is kl or reverse_kl", kd.beta, kMinBeta, 1 - kMinBeta));
  const auto [from, to] = distil_span(kd, train.training.steps());
  check(kd.distil_from >= 0 && from < to && to <= 1, at("distil_from"),
        fmt::format("distil_from and distil_to: got {} and {}, expected 0 <= distil_from < distil_to, as shares up to 1 or, above 1, as some of the {} steps",
                    kd.distil_from, kd.distil_to, train.training.steps()));
  check(train.top_k >= 1 && train.top_k < recipe.tokenizer.vocab_size, at("top_k"), fmt::format("top_k: got {}, expected 1 to vocab_size - 1", train.top_k));
  check(kd.loss != "labels" || kd.temperature == 1, at("kd_temperature"),
        "kd_temperature: loss = \"labels\" knows the teacher's choice only; use top_k, kl, reverse_kl or jsd");
  check(kd.loss == "labels" || train.has_teacher(), at("loss"), fmt::format("loss: '{}' needs `labels` or `teacher`", kd.loss));
  check_choice(kd.hidden_loss, {"none", "cosine", "mse"}, at("hidden_loss"), "hidden_loss");
  check(kd.hidden_loss == "none" || !train.teachers.empty(), at("hidden_loss"),
        "hidden_loss: hidden states are not stored; give `teacher` instead of `labels`");
  check(kd.hidden_weight >= 0 && std::isfinite(kd.hidden_weight), at("hidden_weight"),
        fmt::format("hidden_weight: got {}, expected 0 or more", kd.hidden_weight));

  for (const std::vector<std::string>* names : {&train.labels, &train.teachers})
    for (size_t i = 1; i < names->size(); ++i)
      check(std::find(names->begin(), names->begin() + static_cast<std::ptrdiff_t>(i), (*names)[i]) == names->begin() + static_cast<std::ptrdiff_t>(i),
            at(names == &train.labels ? "labels" : "teacher"), fmt::format("'{}' is given twice", (*names)[i]));
  const size_t num_teachers = train.labels.size() + train.teachers.size();
  if (train.teacher_shares.empty()) train.teacher_shares.assign(num_teachers, 1.0);
  check(train.teacher_shares.size() == num_teachers, at("teacher_shares"),
        fmt::format("teacher_shares: got {} numbers for {} teachers", train.teacher_shares.size(), num_teachers));
  double sum = 0;
  for (const double share : train.teacher_shares) {
    check(share > 0 && std::isfinite(share), at("teacher_shares"), fmt::format("teacher_shares: got {}, expected numbers above 0", share));
    sum += share;
  }
  for (double& share : train.teacher_shares) share /= sum;

  for (const std::string& name : train.labels) {
    const Stage& stage = recipe.stage(name);
    const auto& label = std::get<LabelStage>(stage.options);
    check(!train.training.document_mask || label.window_rule != "aligned", at("document_mask"),
          fmt::format("document_mask: the teacher of stage '{}' reads across documents (window_rule = \"aligned\"), this stage does not; give it "
                      "window_rule = \"document\"",
                      name));
    if (kd.loss == "labels") continue;
    check(kd.loss == "top_k", at("loss"),
          fmt::format("loss: '{}' needs the teacher's whole distribution: give `teacher` instead of `labels`, or use top_k", kd.loss));
    check(label.tier != "top1", at("loss"), fmt::format("loss: top_k needs probabilities, and stage '{}' stores tier top1; give it tier = \"topk\"", name));
    check(label.temperature == kd.temperature, at("kd_temperature"),
          fmt::format("kd_temperature: got {}, and stage '{}' stores probabilities at {}", kd.temperature, name, label.temperature));
  }
}

/// Ids must mean the same to the imported model and to the data; known before any work, from config.json and the two tokenizers.
ImportStage read_import(OptionTable& table, const TokenizerOptions& tokenizer, Sources& sources) {
  ImportStage import;
  table.take("path", import.path, "Hugging Face folder with config.json, safetensors and the model's own tokenizer.model");
  const std::string where = table.where("path");
  check(!import.path.empty(), where, "path: missing; name a Hugging Face folder");
  const HfShape shape = shape_of(sources, import.path);
  import.config = shape.config;
  import.attention_window = shape.attention_window;
  const std::filesystem::path own = std::filesystem::path(import.path) / "tokenizer.model";
  check(std::filesystem::is_regular_file(own) || sources.recorded("tokenizer", own), where,
        fmt::format("path: {} is missing; only models with a SentencePiece tokenizer can be imported", own.string()));
  check(!tokenizer.path.empty(), where, fmt::format("path: an imported model needs its own tokenizer; set tokenizer.path = \"{}\"", own.string()));
  const auto ids_of = [&](const std::filesystem::path& file) {
    return sources.look_text("tokenizer", file, [&] { return Tokenizer::load(file).fingerprint(); });
  };
  const std::string ids = ids_of(own), data_ids = ids_of(tokenizer.path);
  check(ids == data_ids, where,
        fmt::format("path: the model in {} was trained with another tokenizer: {} there, {} in {}", import.path, ids, data_ids, tokenizer.path));
  check(padded_rows(import.config.vocab_size, tokenizer.vocab_size).has_value(), where,
        fmt::format("path: the model in {} has {} rows in its vocabulary table (tokenizer {}), the data {} ids (tokenizer {}); every id needs a row",
                    import.path, import.config.vocab_size, ids, tokenizer.vocab_size, data_ids));
  import.config.vocab_size = tokenizer.vocab_size;
  return import;
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
    check(teacher.hidden_size == student.hidden_size && teacher.num_hidden_layers == student.num_hidden_layers, table.where("hidden_loss"),
          fmt::format("hidden_loss: '{}' has {} layers of hidden_size {}, this stage's model {} of {}; they must be equal", name, teacher.num_hidden_layers,
                      teacher.hidden_size, student.num_hidden_layers, student.hidden_size));
  }
}

}  // namespace

std::filesystem::path find_label_file(const std::filesystem::path& folder, const std::string& domain, const std::string& where) {
  for (const char* ending : {".jsonl.zst", ".jsonl"})
    if (const std::filesystem::path file = folder / (domain + ending); std::filesystem::is_regular_file(file)) return file;
  throw UserError::recipe(where, fmt::format("import: {} holds no {}.jsonl or {}.jsonl.zst with the labels of that domain{}", folder.string(), domain, domain,
                                             searched_from(folder)));
}

Stage read_stage(OptionTable table, const Recipe& recipe) {
  Stage stage{.where = table.where(), .seed = 0};
  table.take("name", stage.name, "the stage's folder and its name in messages");
  table.take("kind", stage.kind, "train, import, learn_masks, prune, label, evaluate or export");
  check(table.has("name"), stage.where, "[[stage]] without a name");
  check_name(stage.name, table.where("name"), "name");
  check(std::ranges::find(kTopLevelKeys, stage.name) == kTopLevelKeys.end(), table.where("name"),
        fmt::format("name: '{}' is the name of a top-level key; choose another", stage.name));
  check(std::ranges::find(kRunFiles, stage.name) == kRunFiles.end(), table.where("name"),
        fmt::format("name: '{}' is the name of something else in the run folder; choose another", stage.name));
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
    table.take("labels", train.labels, "label stage (or several) whose stored labels are the teacher's part of the loss");
    table.take("teacher", train.teachers, "earlier model (or several) that is the teacher itself, read while this stage trains; instead of labels");
    table.take("teacher_shares", train.teacher_shares, "of several teachers or label stages, relative to each other; empty = equal");
    table.take("top_k", train.top_k, "ids a token that loss = \"top_k\" asks a live teacher for");
    table.read(train.distillation);
    table.take("rope_theta", train.rope_theta, "RoPE base of this stage; 0 = as the model has it");
    train.training = read_training(table, recipe.data.domains, stage.seed);
    check(train.from.empty() != train.model.empty(), stage.where, "a train stage needs exactly one of `model` (fresh weights) and `from` (an earlier stage)");
    if (!train.from.empty()) check_input(recipe.stages, train.from, kModelKinds, table.where("from"), "from");
    if (!train.model.empty()) check_model(train.model, "model");
    for (const std::string& name : train.labels) check_input(recipe.stages, name, {"label"}, table.where("labels"), "labels");
    for (const std::string& name : train.teachers) check_input(recipe.stages, name, kModelKinds, table.where("teacher"), "teacher");
    check_distillation(table, train, recipe);
    check_hidden_loss(table, train, recipe);
    check(train.rope_theta == 0 || (train.rope_theta > 1 && std::isfinite(train.rope_theta)), table.where("rope_theta"),
          fmt::format("rope_theta: got {}, expected above 1", train.rope_theta));
    stage.options = train;
  } else if (stage.kind == "import") {
    stage.options = read_import(table, recipe.tokenizer, *recipe.sources);
  } else if (stage.kind == "learn_masks") {
    LearnMasksStage masks;
    table.take("from", masks.from, "the dense source");
    table.take("target", masks.target, "[model.<name>] whose intermediate_size is kept");
    std::string method = masks.masks.mask_method;
    table.take("mask_method", method, "how scores become masks");
    if (method == "hard_concrete") masks.masks.score_init = "noise";  // its published start; a recipe may still name a score
    table.read(masks.masks);
    masks.training = read_training(table, recipe.data.domains, stage.seed);
    check_input(recipe.stages, masks.from, kModelKinds, table.where("from"), "from");
    check_model(masks.target, "target");
    check_mask_options(masks.masks, [&](const char* key) { return table.where(key); });
    stage.options = masks;
  } else if (stage.kind == "prune") {
    PruneStage prune;
    table.take("from", prune.from, "the model to cut");
    table.take("target", prune.target, "[model.<name>] whose intermediate_size is kept");
    check_input(recipe.stages, prune.from, kModelKinds, table.where("from"), "from");
    const bool after_masks =
        std::ranges::find_if(recipe.stages, [&](const Stage& s) { return s.name == prune.from && s.kind == "learn_masks"; }) != recipe.stages.end();
    prune.scores = after_masks ? "masks" : "";
    table.take("scores", prune.scores, "masks (after learn_masks), " + score_names());
    table.take("calibration_tokens", prune.calibration_tokens, "tokens that scores from activations see");
    check(!prune.scores.empty(), stage.where,
          fmt::format("scores: missing; 'masks' needs `from` to be a learn_masks stage, and '{}' is none: name a score ({})", prune.from, score_names()));
    check(prune.scores != "masks" || after_masks, table.where("scores"),
          fmt::format("scores = \"masks\" needs `from` to be a learn_masks stage, '{}' is none", prune.from));
    if (prune.scores != "masks") find_score(prune.scores, table.where("scores"));
    check(prune.calibration_tokens > 0 && prune.calibration_tokens <= 100'000'000, table.where("calibration_tokens"),
          fmt::format("calibration_tokens: got {}, expected 1 to 10^8", prune.calibration_tokens));
    check_model(prune.target, "target");
    stage.options = prune;
  } else if (stage.kind == "label") {
    LabelStage label;
    table.take("teacher", label.teacher, "the model that labels");
    table.take("import", label.import, "instead of a teacher: a folder with <domain>.jsonl or <domain>.jsonl.zst for every domain, labels made elsewhere");
    table.take(
        "import_format", label.import_format,
        "coppice (the lists of docs/labels.md), or vllm: prompt_logprobs, or lists of any number of ids, of documents that are cut short or lack their end");
    table.take("low_mass", label.low_mass, "take imported log-probabilities of which most tokens hold less than 0.01 and no tail says so");
    table.take("import_teacher", label.import_teacher, "name of who made them, part of the labels' fingerprint; empty = what the files say, or their hash");
    table.take("cache", label.cache,
               "a folder with a label cache for every domain, such as runs/demo/labels/labels: used where it lies, only read; `teacher`, when given, must have "
               "made it");
    table.take("window_rule", label.window_rule, "document (each document alone) or aligned (the training windows)");
    table.take("coverage", label.coverage,
               "all tokens; used: only those that stages with these labels will draw; or some (labels from import or cache): tokens without a label "
               "are trained on the text alone");
    table.take("context", label.context, "tokens of a labelling window");
    table.take("overlap", label.overlap, "tokens read but not labelled at a window's start; -1 = a quarter of context");
    table.take("batch_tokens", label.batch_tokens, "tokens of one forward pass; 0 = 8192, or fewer when memory is short");
    table.take("tier", label.tier, "top1 (2 or 3 bytes a token), top1_prob (and its probability) or topk");
    table.take("top_k", label.top_k, "ids a token in tier topk");
    table.take("temperature", label.temperature, "of the stored probabilities; a stage with loss = \"top_k\" needs its kd_temperature");
    check_choice(label.tier, {"top1", "top1_prob", "topk"}, table.where("tier"), "tier");
    check(label.top_k >= 1 && label.top_k < recipe.tokenizer.vocab_size, table.where("top_k"),
          fmt::format("top_k: got {}, expected 1 to vocab_size - 1", label.top_k));
    check(label.temperature > 0 && std::isfinite(label.temperature), table.where("temperature"),
          fmt::format("temperature: got {}, expected above 0", label.temperature));
    check(label.teacher.empty() || label.import.empty(), table.where("import"), "teacher and import: a label stage has one or the other");
    check(label.cache.empty() || label.import.empty(), table.where("cache"), "cache and import: a label stage has one or the other");
    check_choice(label.import_format, {"coppice", "vllm"}, table.where("import_format"), "import_format");
    check(label.import_format == "coppice" || !label.import.empty(), table.where("import_format"), "import_format: only labels from `import` have one");
    check(!label.low_mass || !label.import.empty(), table.where("low_mass"), "low_mass: only labels from `import` are asked for their mass");
    check(label.import_teacher.empty() || !label.import.empty(), table.where("import_teacher"), "import_teacher: only labels from `import` need a name");
    if (label.has_own_labels() || !label.teacher.empty()) check_input(recipe.stages, label.teacher, kModelKinds, table.where("teacher"), "teacher");
    if (!label.has_own_labels()) {
      const char* source = label.import.empty() ? "cache" : "import";
      const LabelStage plain;  // a resolved recipe spells the defaults out
      for (const auto& [key, is_plain] : {std::pair{"window_rule", label.window_rule == plain.window_rule},
                                          {"context", label.context == plain.context},
                                          {"overlap", label.overlap == plain.overlap},
                                          {"batch_tokens", label.batch_tokens == plain.batch_tokens}})
        check(is_plain, table.where(key), fmt::format("{}: labels from `{}` are there already; leave it out", key, source));
      for (const DomainOptions& domain : recipe.data.domains) {
        if (!label.import.empty())
          recipe.sources->look_text("label file of " + domain.name, label.import,
                                    [&] { return find_label_file(label.import, domain.name, table.where("import")).filename().string(); });
        if (label.cache.empty()) continue;
        const std::filesystem::path cache = label_cache(label.cache, domain.name);
        const auto made =
            LabelFingerprint::from_json(recipe.sources->look("label cache", cache,
                                                             [&] {
                                                               check(std::filesystem::exists(cache / "manifest.json"), table.where("cache"),
                                                                     fmt::format("cache: {} holds no label cache of domain '{}'{}", label.cache, domain.name, searched_from(label.cache)));
                                                               return read_label_fingerprint(cache).to_json();
                                                             }),
                                        cache.string());
        label.window_rule = made.window_rule == "aligned" ? "aligned" : "document";
        label.context = std::max<int64_t>(2, made.context);
        label.overlap = made.overlap;
      }
    }
    check_choice(label.window_rule, {"document", "aligned"}, table.where("window_rule"), "window_rule");
    check_choice(label.coverage, {"all", "used", "some"}, table.where("coverage"), "coverage");
    check(label.coverage != "some" || !label.has_own_labels(), table.where("coverage"),
          "coverage: a teacher labels all tokens or the used ones; some is for labels from `import` or `cache`");
    check(label.context >= 2, table.where("context"), fmt::format("context: got {}, expected at least 2", label.context));
    if (label.overlap < 0) label.overlap = label.window_rule == "aligned" ? 0 : label.context / 4;
    check(label.overlap < label.context, table.where("overlap"), fmt::format("overlap: got {}, expected below context = {}", label.overlap, label.context));
    check(label.batch_tokens >= 0, table.where("batch_tokens"), "batch_tokens: expected 0 or more");
    stage.options = label;
  } else if (stage.kind == "evaluate") {
    EvaluateStage evaluate;
    table.take("of", evaluate.of, "stages whose models are scored");
    table.take("teacher", evaluate.teacher, "whose top-1 agreement is measured; default the first of `of`");
    table.take("seq_len", evaluate.seq_len, "tokens of a window; equal for every model");
    table.take_count("tokens", evaluate.tokens, "held-out tokens at most; 0 = all");
    table.take("batch_tokens", evaluate.batch_tokens, "tokens of one forward pass (memory)");
    table.take("tasks", evaluate.tasks, "files of multiple-choice items (.jsonl), scored beside the held-out text");
    check(!evaluate.of.empty(), table.where("of"), "of: expected at least one stage name");
    for (const std::string& name : evaluate.of) check_input(recipe.stages, name, kModelKinds, table.where("of"), "of");
    if (evaluate.teacher.empty()) evaluate.teacher = evaluate.of[0];
    check_input(recipe.stages, evaluate.teacher, kModelKinds, table.where("teacher"), "teacher");
    check(evaluate.seq_len >= 2 && evaluate.batch_tokens > 0 && evaluate.tokens >= 0, stage.where, "seq_len, batch_tokens and tokens must be positive");
    std::set<std::string> task_names;
    for (const std::string& file : evaluate.tasks)
      check(task_names.insert(task_name(file)).second, table.where("tasks"), fmt::format("tasks: two files named '{}'", task_name(file)));
    stage.options = evaluate;
  } else {
    ExportStage exports;
    table.take("from", exports.from, "the model to export");
    table.take("formats", exports.formats, "hf");
    table.take("dtype", exports.dtype, "f32 or bf16");
    check_input(recipe.stages, exports.from, kModelKinds, table.where("from"), "from");
    check(!exports.formats.empty(), table.where("formats"), "formats: expected at least one: hf");
    for (const std::string& format : exports.formats) check_choice(format, {"hf"}, table.where("formats"), "formats");
    check_choice(exports.dtype, {"f32", "bf16"}, table.where("dtype"), "dtype");
    stage.options = exports;
  }
  table.finish();
  return stage;
}

}  // namespace coppice
