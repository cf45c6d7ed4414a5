// Reads one [[stage]]: a function a kind. What train and learn_masks share: read_training.cpp. What the shapes of
// models must be: recipe.cpp.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "pruning/scores.h"
#include "recipes/language/recipe_reading.h"
#include "recipes/language/sources.h"
#include "src/base/errors.h"
#include "src/base/input_file.h"
#include "src/checkpoint/hf_import.h"
#include "src/data/label_cache.h"
#include "src/data/tasks.h"
#include "src/tokens/tokenizer_training.h"

namespace coppice {
namespace {

const std::vector<std::string> kKinds = {"train", "import", "learn_masks", "prune", "label", "evaluate", "export"};

/// Ids must mean the same to the imported model and to the data; known before any work, from config.json and the two
/// tokenizers.
ImportStage read_import(OptionTable& table, const TokenizerOptions& tokenizer, Sources& sources) {
  ImportStage import;
  table.take("path", import.path,
             "Hugging Face folder with config.json, safetensors and the model's own tokenizer.model");
  const std::string where = table.where("path");
  check(!import.path.empty(), where, "path: missing; name a Hugging Face folder");
  const HfShape shape = shape_of(sources, import.path);
  import.config = shape.config;
  import.attention_window = shape.attention_window;
  const std::filesystem::path own = std::filesystem::path(import.path) / "tokenizer.model";
  check(std::filesystem::is_regular_file(own) || sources.recorded("tokenizer", own), where,
        fmt::format("path: {} is missing; only models with a SentencePiece tokenizer can be imported", own.string()));
  check(!tokenizer.path.empty(), where,
        fmt::format("path: an imported model needs its own tokenizer; set tokenizer.path = \"{}\"", own.string()));
  const auto ids_of = [&](const std::filesystem::path& file) {
    return sources.look_text("tokenizer", file, [&] { return Tokenizer::load(file).fingerprint(); });
  };
  const std::string ids = ids_of(own), data_ids = ids_of(tokenizer.path);
  check(ids == data_ids, where,
        fmt::format("path: the model in {} was trained with another tokenizer: {} there, {} in {}", import.path, ids,
                    data_ids, tokenizer.path));
  check(padded_rows(import.config.vocab_size, tokenizer.vocab_size).has_value(), where,
        fmt::format("path: the model in {} has {} rows in its vocabulary table (tokenizer {}), the data {} ids "
                    "(tokenizer {}); every id needs a row",
                    import.path, import.config.vocab_size, ids, tokenizer.vocab_size, data_ids));
  import.config.vocab_size = tokenizer.vocab_size;
  return import;
}

void check_model(const OptionTable& table, const Recipe& recipe, const std::string& name, const char* key) {
  std::vector<std::string> names;
  for (const auto& [known, config] : recipe.models) names.push_back(known);
  check_choice(name, names, table.where(key), key);
}

TrainStage read_train(OptionTable& table, const Recipe& recipe, uint64_t seed) {
  TrainStage train;
  table.take("model", train.model, "[model.<name>] for fresh weights");
  table.take("from", train.from, "earlier stage to go on from");
  table.take("labels", train.labels, "label stage (or several) whose stored labels are the teacher's part of the loss");
  table.take("teacher", train.teachers,
             "earlier model (or several) that is the teacher itself, read while this stage trains; instead of labels");
  table.take("teacher_shares", train.teacher_shares,
             "of several teachers or label stages, relative to each other; empty = equal");
  table.take("top_k", train.top_k, "ids a token that loss = \"top_k\" asks a live teacher for");
  table.read(train.distillation);
  table.take("rope_theta", train.rope_theta, "RoPE base of this stage; 0 = as the model has it");
  train.training = read_training(table, recipe.data.domains, seed);
  check(train.from.empty() != train.model.empty(), table.where(),
        "a train stage needs exactly one of `model` (fresh weights) and `from` (an earlier stage)");
  if (!train.from.empty()) check_input(recipe.stages, train.from, kModelKinds, table.where("from"), "from");
  if (!train.model.empty()) check_model(table, recipe, train.model, "model");
  for (const std::string& name : train.labels)
    check_input(recipe.stages, name, {"label"}, table.where("labels"), "labels");
  for (const std::string& name : train.teachers)
    check_input(recipe.stages, name, kModelKinds, table.where("teacher"), "teacher");
  check_distillation(table, train, recipe);
  check_hidden_loss(table, train, recipe);
  check(train.rope_theta == 0 || (train.rope_theta > 1 && std::isfinite(train.rope_theta)), table.where("rope_theta"),
        fmt::format("rope_theta: got {}, expected above 1", train.rope_theta));
  return train;
}

LearnMasksStage read_learn_masks(OptionTable& table, const Recipe& recipe, uint64_t seed) {
  LearnMasksStage masks;
  table.take("from", masks.from, "the dense source");
  table.take("target", masks.target, "[model.<name>] whose intermediate_size is kept");
  std::string method = masks.masks.mask_method;
  table.take("mask_method", method, "how scores become masks");
  if (method == "hard_concrete")
    masks.masks.score_init = "noise";  // its published start; a recipe may still name a score
  table.read(masks.masks);
  masks.training = read_training(table, recipe.data.domains, seed);
  check_input(recipe.stages, masks.from, kModelKinds, table.where("from"), "from");
  check_model(table, recipe, masks.target, "target");
  check_mask_options(masks.masks, [&](const char* key) { return table.where(key); });
  return masks;
}

PruneStage read_prune(OptionTable& table, const Recipe& recipe) {
  PruneStage prune;
  table.take("from", prune.from, "the model to cut");
  table.take("target", prune.target, "[model.<name>] whose intermediate_size is kept");
  check_input(recipe.stages, prune.from, kModelKinds, table.where("from"), "from");
  const bool after_masks = std::ranges::find_if(recipe.stages, [&](const Stage& s) {
                             return s.name == prune.from && s.kind == "learn_masks";
                           }) != recipe.stages.end();
  prune.scores = after_masks ? "masks" : "";
  table.take("scores", prune.scores, "masks (after learn_masks), " + score_names());
  table.take("calibration_tokens", prune.calibration_tokens, "tokens that scores from activations see");
  check(!prune.scores.empty(), table.where(),
        fmt::format(
            "scores: missing; 'masks' needs `from` to be a learn_masks stage, and '{}' is none: name a score ({})",
            prune.from, score_names()));
  check(prune.scores != "masks" || after_masks, table.where("scores"),
        fmt::format("scores = \"masks\" needs `from` to be a learn_masks stage, '{}' is none", prune.from));
  if (prune.scores != "masks") find_score(prune.scores, table.where("scores"));
  check(prune.calibration_tokens > 0 && prune.calibration_tokens <= 100'000'000, table.where("calibration_tokens"),
        fmt::format("calibration_tokens: got {}, expected 1 to 10^8", prune.calibration_tokens));
  check_model(table, recipe, prune.target, "target");
  return prune;
}

/// Labels from elsewhere: their files for every domain, and of a cache what it says of itself.
void read_label_sources(const OptionTable& table, const Recipe& recipe, LabelStage& label) {
  const char* source = label.import.empty() ? "cache" : "import";
  const LabelStage plain;  // a resolved recipe spells the defaults out
  for (const auto& [key, is_plain] : {std::pair{"window_rule", label.window_rule == plain.window_rule},
                                      {"context", label.context == plain.context},
                                      {"overlap", label.overlap == plain.overlap},
                                      {"batch_tokens", label.batch_tokens == plain.batch_tokens}})
    check(is_plain, table.where(key), fmt::format("{}: labels from `{}` are there already; leave it out", key, source));
  for (const DomainOptions& domain : recipe.data.domains) {
    if (!label.import.empty())
      recipe.sources->look_text("label file of " + domain.name, label.import, [&] {
        return find_label_file(label.import, domain.name, table.where("import")).filename().string();
      });
    if (label.cache.empty()) continue;
    const std::filesystem::path cache = label_cache(label.cache, domain.name);
    const auto made = LabelFingerprint::from_json(
        recipe.sources->look("label cache", cache,
                             [&] {
                               check(std::filesystem::exists(cache / "manifest.json"), table.where("cache"),
                                     fmt::format("cache: {} holds no label cache of domain '{}'{}", label.cache,
                                                 domain.name, searched_from(label.cache)));
                               return read_label_fingerprint(cache).to_json();
                             }),
        cache.string());
    label.window_rule = made.window_rule == "aligned" ? "aligned" : "document";
    label.context = std::max<int64_t>(2, made.context);
    label.overlap = made.overlap;
  }
}

LabelStage read_label(OptionTable& table, const Recipe& recipe) {
  LabelStage label;
  table.take("teacher", label.teacher, "the model that labels");
  table.take("import", label.import,
             "instead of a teacher: a folder with <domain>.jsonl or <domain>.jsonl.zst for every domain, labels made "
             "elsewhere");
  table.take("import_format", label.import_format,
             "coppice (the lists of docs/labels.md), or vllm: prompt_logprobs, or lists of any number of ids, of "
             "documents that are cut short or lack their end");
  table.take("low_mass", label.low_mass,
             "take imported log-probabilities of which most tokens hold less than 0.01 and no tail says so");
  table.take("import_teacher", label.import_teacher,
             "name of who made them, part of the labels' fingerprint; empty = what the files say, or their hash");
  table.take("cache", label.cache,
             "a folder with a label cache for every domain, such as runs/demo/labels/labels: used where it lies, only "
             "read; `teacher`, when given, must have "
             "made it");
  table.take("window_rule", label.window_rule, "document (each document alone) or aligned (the training windows)");
  table.take("coverage", label.coverage,
             "all tokens; used: only those that stages with these labels will draw; or some (labels from import or "
             "cache): tokens without a label "
             "are trained on the text alone");
  table.take("context", label.context, "tokens of a labelling window");
  table.take("overlap", label.overlap, "tokens read but not labelled at a window's start; -1 = a quarter of context");
  table.take("batch_tokens", label.batch_tokens, "tokens of one forward pass; 0 = 8192, or fewer when memory is short");
  table.take("tier", label.tier, "top1 (2 or 3 bytes a token), top1_prob (and its probability) or topk");
  table.take("top_k", label.top_k, "ids a token in tier topk");
  table.take("temperature", label.temperature,
             "of the stored probabilities; a stage with loss = \"top_k\" needs its kd_temperature");
  check_choice(label.tier, {"top1", "top1_prob", "topk"}, table.where("tier"), "tier");
  check(label.top_k >= 1 && label.top_k < recipe.tokenizer.vocab_size, table.where("top_k"),
        fmt::format("top_k: got {}, expected 1 to vocab_size - 1", label.top_k));
  check(label.temperature > 0 && std::isfinite(label.temperature), table.where("temperature"),
        fmt::format("temperature: got {}, expected above 0", label.temperature));
  check(label.teacher.empty() || label.import.empty(), table.where("import"),
        "teacher and import: a label stage has one or the other");
  check(label.cache.empty() || label.import.empty(), table.where("cache"),
        "cache and import: a label stage has one or the other");
  check_choice(label.import_format, {"coppice", "vllm"}, table.where("import_format"), "import_format");
  check(label.import_format == "coppice" || !label.import.empty(), table.where("import_format"),
        "import_format: only labels from `import` have one");
  check(!label.low_mass || !label.import.empty(), table.where("low_mass"),
        "low_mass: only labels from `import` are asked for their mass");
  check(label.import_teacher.empty() || !label.import.empty(), table.where("import_teacher"),
        "import_teacher: only labels from `import` need a name");
  if (label.has_own_labels() || !label.teacher.empty())
    check_input(recipe.stages, label.teacher, kModelKinds, table.where("teacher"), "teacher");
  if (!label.has_own_labels()) read_label_sources(table, recipe, label);
  check_choice(label.window_rule, {"document", "aligned"}, table.where("window_rule"), "window_rule");
  check_choice(label.coverage, {"all", "used", "some"}, table.where("coverage"), "coverage");
  check(label.coverage != "some" || !label.has_own_labels(), table.where("coverage"),
        "coverage: a teacher labels all tokens or the used ones; some is for labels from `import` or `cache`");
  check(label.context >= 2, table.where("context"), fmt::format("context: got {}, expected at least 2", label.context));
  if (label.overlap < 0) label.overlap = label.window_rule == "aligned" ? 0 : label.context / 4;
  check(label.overlap < label.context, table.where("overlap"),
        fmt::format("overlap: got {}, expected below context = {}", label.overlap, label.context));
  check(label.batch_tokens >= 0, table.where("batch_tokens"), "batch_tokens: expected 0 or more");
  return label;
}

EvaluateStage read_evaluate(OptionTable& table, const Recipe& recipe) {
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
  check(evaluate.seq_len >= 2 && evaluate.batch_tokens > 0 && evaluate.tokens >= 0, table.where(),
        "seq_len, batch_tokens and tokens must be positive");
  std::set<std::string> task_names;
  for (const std::string& file : evaluate.tasks)
    check(task_names.insert(task_name(file)).second, table.where("tasks"),
          fmt::format("tasks: two files named '{}'", task_name(file)));
  return evaluate;
}

ExportStage read_export(OptionTable& table, const Recipe& recipe) {
  ExportStage exports;
  table.take("from", exports.from, "the model to export");
  table.take("formats", exports.formats, "hf");
  table.take("dtype", exports.dtype, "f32 or bf16");
  check_input(recipe.stages, exports.from, kModelKinds, table.where("from"), "from");
  check(!exports.formats.empty(), table.where("formats"), "formats: expected at least one: hf");
  for (const std::string& format : exports.formats) check_choice(format, {"hf"}, table.where("formats"), "formats");
  check_choice(exports.dtype, {"f32", "bf16"}, table.where("dtype"), "dtype");
  return exports;
}

}  // namespace

std::filesystem::path find_label_file(const std::filesystem::path& folder, const std::string& domain,
                                      const std::string& where) {
  for (const char* ending : {".jsonl.zst", ".jsonl.gz", ".jsonl"})
    if (const std::filesystem::path file = folder / (domain + ending); std::filesystem::is_regular_file(file))
      return file;
  throw UserError::recipe(
      where,
      fmt::format("import: {} holds no {}.jsonl (or with .gz or .zst behind it) with the labels of that domain{}",
                  folder.string(), domain, searched_from(folder)));
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
    check(other.name != stage.name, table.where("name"),
          fmt::format("name: '{}' is already the stage at {}", stage.name, other.where));
  check_choice(stage.kind, kKinds, table.where("kind"), "kind");
  if (stage.kind == "train" || stage.kind == "learn_masks" || stage.kind == "prune")
    table.take("seed", stage.seed,
               "of this stage alone; 0 = the recipe's. An ablation computes a stage with a seed of its own once for "
               "all seeds");
  if (stage.seed == 0) stage.seed = recipe.seed;

  if (stage.kind == "train") stage.options = read_train(table, recipe, stage.seed);
  if (stage.kind == "import") stage.options = read_import(table, recipe.tokenizer, *recipe.sources);
  if (stage.kind == "learn_masks") stage.options = read_learn_masks(table, recipe, stage.seed);
  if (stage.kind == "prune") stage.options = read_prune(table, recipe);
  if (stage.kind == "label") stage.options = read_label(table, recipe);
  if (stage.kind == "evaluate") stage.options = read_evaluate(table, recipe);
  if (stage.kind == "export") stage.options = read_export(table, recipe);
  table.finish();
  return stage;
}

}  // namespace coppice
