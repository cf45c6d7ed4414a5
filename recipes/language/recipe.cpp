#include "recipes/language/recipe.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "pruning/mask_budget.h"
#include "recipes/language/recipe_reading.h"
#include "recipes/language/sources.h"
#include "recipes/stages/stages.h"
#include "src/base/errors.h"
#include "src/tensors/device.h"

namespace coppice {
namespace {

ModelConfig read_model(OptionTable table, const ModelConfig* base, int64_t vocab_size, Sources& sources) {
  ModelConfig config = base ? *base : ModelConfig{.head_dim = 0};
  std::string preset_name;
  table.take("preset", preset_name, "start from a named shape, or from the config.json of a Hugging Face folder");
  if (!preset_name.empty())
    config = has_shape(sources, preset_name) ? shape_of(sources, preset_name).config
                                             : preset(preset_name, table.where("preset"));
  if (base || !preset_name.empty()) table.call_defaults(preset_name.empty() ? "model.source" : "preset " + preset_name);
  config.vocab_size = vocab_size;
  table.take("hidden_size", config.hidden_size, "model width D");
  table.take("num_hidden_layers", config.num_hidden_layers, "layers");
  const int64_t heads_before = config.num_attention_heads;
  table.take("num_attention_heads", config.num_attention_heads, "query heads");
  table.take("num_key_value_heads", config.num_key_value_heads, "key and value heads; divides num_attention_heads");
  const bool keeps_heads = config.head_dim > 0 && heads_before == config.num_attention_heads;
  if (!keeps_heads && config.num_attention_heads > 0) config.head_dim = config.hidden_size / config.num_attention_heads;
  if (!keeps_heads) table.call_defaults("hidden_size / num_attention_heads");
  table.take("head_dim", config.head_dim, "size of a head; default hidden_size / num_attention_heads");
  if (!keeps_heads)
    table.call_defaults(!preset_name.empty() ? "preset " + preset_name : base ? "model.source" : "default");
  const auto layers = static_cast<size_t>(std::clamp<int64_t>(config.num_hidden_layers, 0, 4096));
  std::vector<int64_t> widths =
      config.intermediate_size;  // one number where all layers are equal, so that other layer counts inherit it
  if (std::ranges::adjacent_find(widths, std::not_equal_to<>()) == widths.end()) widths.resize(1, 0);
  table.take_for_each("intermediate_size", widths,
                      "FFN channels: one number for every layer, or an array with one for each");
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

/// Only FFN channels are cut, and never to more than there are.
void check_target(const Recipe& recipe, const Stage& stage, const std::string& from, const std::string& target) {
  const ModelConfig source = recipe.model_after(from);
  ModelConfig wanted = recipe.models.at(target);
  for (size_t layer = 0; layer < source.intermediate_size.size() && layer < wanted.intermediate_size.size(); ++layer)
    check(wanted.intermediate_size[layer] <= source.intermediate_size[layer], stage.where,
          fmt::format("{}: model.{}.intermediate_size: got {}, expected at most {} (what stage '{}' has)", stage.name,
                      target, wanted.intermediate_size[layer], source.intermediate_size[layer], from));
  wanted.intermediate_size = source.intermediate_size;
  wanted.rope_theta = source.rope_theta;
  wanted.max_position_embeddings = source.max_position_embeddings;
  check(wanted == source, stage.where,
        fmt::format("{}: model.{} differs from stage '{}' in more than intermediate_size; only FFN channels are cut",
                    stage.name, target, from));
}

/// Learned masks are one table: source and target have one width for all layers, which the budget can keep.
void check_masks(const Recipe& recipe, const Stage& stage, const LearnMasksStage& masks) {
  constexpr const char* kRemedy =
      "learned masks need one width for all layers; a prune stage cuts such a model by a score (scores = "
      "\"activation\")";
  const ModelConfig source = recipe.model_after(masks.from);
  const ModelConfig& target = recipe.models.at(masks.target);
  for (const auto& [what, widths] : {std::pair{"stage '" + masks.from + "'", source.intermediate_size},
                                     {"model." + masks.target, target.intermediate_size}})
    check(std::ranges::adjacent_find(widths, std::not_equal_to<>()) == widths.end(), stage.where,
          fmt::format("{}: {} has intermediate_size [{}]; {}", stage.name, what, fmt::join(widths, ", "), kRemedy));
  const int64_t channels = source.intermediate_size.front();
  if (const Stage* cut = recipe.global_cut(masks.from))
    check(false, stage.where,
          fmt::format("{}: stage '{}' keeps {} layers x {} = {} channels under one budget (budget = \"global\"), so "
                      "its layers differ in width; {}",
                      stage.name, cut->name, source.num_hidden_layers, channels, source.num_hidden_layers * channels,
                      kRemedy));
  check_budget({.num_kept = target.intermediate_size.front(),
                .global = masks.masks.budget == "global",
                .round_to = masks.masks.round_to},
               source.num_hidden_layers, channels, stage.where);
}

/// What stages ask of the models they read.
void check_shapes(const Recipe& recipe) {
  for (const Stage& stage : recipe.stages) {
    if (const auto* masks = std::get_if<LearnMasksStage>(&stage.options)) {
      check_target(recipe, stage, masks->from, masks->target);
      check_masks(recipe, stage, *masks);
    }
    const auto* prune = std::get_if<PruneStage>(&stage.options);
    if (prune != nullptr) check_target(recipe, stage, prune->from, prune->target);
    if (stage.kind == "learn_masks" || (prune != nullptr && needs_calibration(*prune)))
      check(!calibration_mixture(recipe).empty(), stage.where,
            fmt::format("{}: calibration text is drawn by the weights of [[data.domain]], and all of them are 0",
                        stage.name));
  }
}

/// A model that slides a window over longer texts is imported for the texts that it sees whole: no stage may give it
/// others.
void check_attention_windows(const Recipe& recipe) {
  for (const Stage& stage : recipe.stages) {
    const auto check_length = [&](const std::string& model, const char* key, int64_t length) {
      const Stage* import = model.empty() ? nullptr : recipe.imported_from(model);
      const int64_t window = import == nullptr ? 0 : std::get<ImportStage>(import->options).attention_window;
      check(window == 0 || length <= window, stage.where,
            fmt::format("{}: {}: got {}, but the model of stage '{}' sees no more than {} tokens (sliding_window in "
                        "its config.json); expected at most that",
                        stage.name, key, length, import == nullptr ? "" : import->name, window));
    };
    if (const auto* train = std::get_if<TrainStage>(&stage.options)) {
      check_length(train->from, "seq_len", train->training.seq_len);
      for (const std::string& teacher : train->teachers) check_length(teacher, "seq_len", train->training.seq_len);
    }
    if (const auto* masks = std::get_if<LearnMasksStage>(&stage.options))
      check_length(masks->from, "seq_len", masks->training.seq_len);
    if (const auto* label = std::get_if<LabelStage>(&stage.options))
      check_length(label->teacher, "context", label->context);
    if (const auto* evaluate = std::get_if<EvaluateStage>(&stage.options))
      for (const std::string& name : stage.inputs()) check_length(name, "seq_len", evaluate->seq_len);
  }
}

}  // namespace

int64_t TrainingOptions::steps() const { return std::max<int64_t>(1, (tokens + batch_tokens / 2) / batch_tokens); }

std::string start_of(const Stage& stage) {
  if (const auto* train = std::get_if<TrainStage>(&stage.options)) return train->from;
  if (const auto* masks = std::get_if<LearnMasksStage>(&stage.options)) return masks->from;
  if (const auto* prune = std::get_if<PruneStage>(&stage.options)) return prune->from;
  return {};
}

std::vector<std::string> Stage::inputs() const {
  struct {
    std::vector<std::string> operator()(const TrainStage& s) const {
      std::vector<std::string> names = {s.from};
      names.insert(names.end(), s.labels.begin(), s.labels.end());
      for (const std::string& teacher : s.teachers)
        if (teacher != s.from) names.push_back(teacher);
      return names;
    }
    std::vector<std::string> operator()(const ImportStage&) const { return {}; }
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
  if (const auto* import = std::get_if<ImportStage>(&found.options)) return import->config;
  const auto* train = std::get_if<TrainStage>(&found.options);
  const std::string from = start_of(found);
  COPPICE_CHECK(train != nullptr || !from.empty(), "stage " + stage_name + " leaves no model");
  ModelConfig config = from.empty() ? models.at(train->model) : model_after(from);
  if (train != nullptr) {
    if (train->rope_theta > 0) config.rope_theta = train->rope_theta;
    config.max_position_embeddings = std::max(config.max_position_embeddings, train->training.seq_len);
  }
  if (const auto* prune = std::get_if<PruneStage>(&found.options))
    config.intermediate_size = models.at(prune->target).intermediate_size;
  return config;
}

const Stage* Recipe::global_cut(std::string name) const {
  for (; !name.empty(); name = start_of(stage(name))) {
    const auto* prune = std::get_if<PruneStage>(&stage(name).options);
    if (prune == nullptr || prune->scores != "masks") continue;
    const auto* masks = std::get_if<LearnMasksStage>(&stage(prune->from).options);
    if (masks != nullptr && masks->masks.budget == "global") return &stage(name);
  }
  return nullptr;
}

const Stage* Recipe::imported_from(std::string stage_name) const {
  for (; !stage_name.empty(); stage_name = start_of(stage(stage_name)))
    if (const Stage& found = stage(stage_name); found.kind == "import") return &found;
  return nullptr;
}

const TrainingOptions* training_of(const Stage& stage) {
  if (const auto* train = std::get_if<TrainStage>(&stage.options)) return &train->training;
  if (const auto* masks = std::get_if<LearnMasksStage>(&stage.options)) return &masks->training;
  return nullptr;
}

Recipe load_recorded_recipe(const std::filesystem::path& run_root) {
  return load_recipe((run_root / "recipe.toml").string(), {}, {},
                     std::make_shared<Sources>(run_root, Sources::First::record));
}

Recipe load_recipe(const std::string& file, const std::vector<Override>& overrides,
                   const std::vector<std::string>& unset, std::shared_ptr<Sources> sources, const ArmOptions* arm) {
  RecipeSource source = RecipeSource::load(file, overrides, unset);
  if (arm != nullptr) source.make_arm(kAblationKeys, arm->set, arm->drop, arm->where);
  OptionTable root = source.root();
  Recipe recipe;
  recipe.name = std::filesystem::path(file).stem().string();
  root.take("name", recipe.name, "the run folder's name");
  check_name(recipe.name, root.where("name"), "name");
  recipe.sources = sources != nullptr ? std::move(sources) : std::make_shared<Sources>();
  recipe.sources->open(std::filesystem::path("runs") / recipe.name);
  root.take("seed", recipe.seed, "of every random stream");
  root.take("device", recipe.device, "cpu, cuda or auto");
  const std::optional<at::Device> device = find_device(recipe.device == "auto" ? "cpu" : recipe.device);
  if (!device) check_choice(recipe.device, {"auto", "cpu", "cuda"}, root.where("device"), "device");
  const std::string_view unavailable = why_unavailable(*device);
  check(unavailable.empty(), root.where("device"), fmt::format("device: {}; use \"cpu\" or \"auto\"", unavailable));
  root.take("threads", recipe.threads,
            "CPU threads; 0 = OMP_NUM_THREADS, or what cores and CPU quota give; another number changes the last bits "
            "of results");
  check(recipe.threads >= 0 && recipe.threads <= 4096, root.where("threads"),
        fmt::format("threads: got {}, expected 0 to 4096", recipe.threads));

  root.take("grace_s", recipe.grace_s, "seconds from a stop signal until the program gives up saving; 0 = no limit");
  check(recipe.grace_s >= 0 && recipe.grace_s <= 86400, root.where("grace_s"),
        fmt::format("grace_s: got {}, expected 0 to 86400", recipe.grace_s));

  OptionTable data = root.table("data");
  data.take_count("shard_tokens", recipe.data.shard_tokens, "tokens of a shard at most");
  data.read(recipe.data);
  check(recipe.data.heldout_share > 0 && recipe.data.heldout_share < 0.5, data.where("heldout_share"),
        fmt::format("heldout_share: got {}, expected above 0 and below 0.5", recipe.data.heldout_share));
  check(recipe.data.shard_tokens >= 4096, data.where("shard_tokens"),
        fmt::format("shard_tokens: got {}, expected at least 4096", recipe.data.shard_tokens));
  check(recipe.data.max_bad >= -1, data.where("max_bad"),
        fmt::format("max_bad: got {}, expected 0 or more, or -1 for the larger of 100 and 0.1% of a file",
                    recipe.data.max_bad));
  for (OptionTable table : data.tables("domain")) {
    DomainOptions domain;
    table.read(domain);
    table.finish();
    check_name(domain.name, table.where("name"), "domain name");
    check(!domain.path.empty(), table.where(), fmt::format("domain '{}' has no path", domain.name));
    check(!domain.text_key.empty(), table.where("text_key"), "text_key: is empty; expected the name of a JSON field");
    check(domain.weight >= 0 && std::isfinite(domain.weight), table.where("weight"),
          fmt::format("weight: got {}, expected 0 or more", domain.weight));
    check(domain.max_epochs >= 0 && std::isfinite(domain.max_epochs), table.where("max_epochs"),
          fmt::format("max_epochs: got {}, expected 0 (no limit) or more", domain.max_epochs));
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
  check((recipe.tokenizer.vocab_size > 260 || (recipe.tokenizer.vocab_size > 0 && !recipe.tokenizer.path.empty())) &&
            recipe.tokenizer.vocab_size <= (1 << 20),
        tokenizer.where("vocab_size"),
        fmt::format("vocab_size: got {}, expected 261 (4 control pieces, 256 bytes, one more) to 1048576",
                    recipe.tokenizer.vocab_size));
  check(recipe.tokenizer.character_coverage >= 0.98 && recipe.tokenizer.character_coverage <= 1,
        tokenizer.where("character_coverage"),
        fmt::format("character_coverage: got {}, expected 0.98 to 1", recipe.tokenizer.character_coverage));
  check(recipe.tokenizer.training_bytes > 0, tokenizer.where("training_bytes"), "training_bytes: expected above 0");

  OptionTable models = root.table("model");
  std::vector<std::string> names = models.table_names();
  std::ranges::stable_partition(names, [](const std::string& name) { return name == "source"; });
  for (const std::string& name : names) {
    const ModelConfig* base = recipe.models.contains("source") ? &recipe.models.at("source") : nullptr;
    recipe.models[name] = read_model(models.table(name), base, recipe.tokenizer.vocab_size, *recipe.sources);
  }
  models.finish();
  check(!recipe.models.empty(), root.where(), "no [model.<name>] table");
  for (OptionTable table : root.tables("stage")) recipe.stages.push_back(read_stage(table, recipe));
  read_ablation(root, recipe);
  root.finish();
  check(!recipe.stages.empty(), root.where(), "no [[stage]]");
  for (const std::string& name : recipe.compare)
    check_input(recipe.stages, name, kModelKinds, root.where("compare"), "compare");
  check_shapes(recipe);
  check_attention_windows(recipe);
  recipe.resolved = source.resolved(false);
  recipe.with_origins = source.resolved(true);
  return recipe;
}

}  // namespace coppice
