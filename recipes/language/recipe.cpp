#include "recipes/language/recipe.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>

#include "recipes/language/parameter_budget.h"
#include "recipes/language/recipe_reading.h"
#include "recipes/language/sources.h"
#include "recipes/language/training_options.h"
#include "src/base/errors.h"
#include "src/corpus/run/corpus_rights.h"
#include "src/corpus/run/corpus_settings.h"

namespace coppice {
namespace {

/// The source cut to `parameters`; nothing where the table does not ask for it.
std::optional<ModelConfig> read_budget(OptionTable& table, const ModelConfig* source) {
  std::string text;
  table.take("parameters", text,
             "the sizes below, out of model.source's: \"0.8x\" of its parameters, or a number, 108M");
  check(!text.empty() || !table.has("shares"), table.where("shares"),
        "shares: say which axes give what `parameters` asks for, and it is not there; add parameters = \"0.8x\"");
  if (text.empty()) return std::nullopt;
  check(source != nullptr, table.where("parameters"),
        "parameters: is a part of what [model.source] has; give it to a table that inherits from that, without preset");
  const bool spread = table.has("shares");
  OptionTable parts = table.table("shares");
  std::vector<AxisShare> shares;
  double sum = 0;
  for (const CutAxis axis : kCutOrder) {
    const char* name = row_of(axis).name;
    double share = !spread && axis == CutAxis::ffn ? 1 : 0;
    parts.take(name, share, "of the parameters that go");
    check(share >= 0 && share <= 1, parts.where(name), fmt::format("shares.{}: got {}, expected 0 to 1", name, share));
    if (share > 0) shares.push_back({axis, share});
    sum += share;
  }
  parts.finish();
  check(std::abs(sum - 1) < 1e-9, table.where("shares"), fmt::format("shares: add up to {}, expected 1", sum));
  const std::string where = table.where("parameters");
  return fit_parameters(*source, parse_parameter_budget(text, where + ": parameters"), shares, where);
}

/// Sizes that are given beside `parameters` are those that it gives.
void check_sizes(const OptionTable& table, const ModelConfig& given, const ModelConfig& fitted) {
  for (const CutAxis axis : kCutOrder) {
    const char* key = row_of(axis).size_key;
    const std::vector<int64_t> units = units_of(given, axis), expected = units_of(fitted, axis);
    check(units == expected, table.where(key),
          fmt::format("{}: got {}, and parameters = \"{}\" makes it {}; leave one of the two out", key,
                      fmt::join(std::set<int64_t>(units.begin(), units.end()), "/"), table.text_of("parameters"),
                      expected.front()));
  }
}

ModelConfig read_model(OptionTable table, const ModelConfig* base, int64_t vocab_size, Sources& sources) {
  ModelConfig config = base ? *base : ModelConfig{.head_dim = 0};
  std::string preset_name;
  table.take("preset", preset_name,
             "start from a named shape, or from the model in a Hugging Face folder or a GGUF file");
  if (!preset_name.empty())
    config = has_shape(sources, preset_name) ? shape_of(sources, preset_name).config
                                             : preset(preset_name, table.where("preset"));
  const std::string inherited = !preset_name.empty() ? "preset " + preset_name : base ? "model.source" : "default";
  const std::optional<ModelConfig> fitted = read_budget(table, preset_name.empty() ? base : nullptr);
  if (fitted) config = *fitted;
  const std::string sizes = fitted ? "parameters" : inherited;
  table.call_defaults(sizes);
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
  if (!keeps_heads) table.call_defaults(sizes);
  const auto layers = static_cast<size_t>(std::clamp<int64_t>(config.num_hidden_layers, 0, 4096));
  std::vector<int64_t> widths =
      config.intermediate_size;  // one number where all layers are equal, so that other layer counts inherit it
  if (std::ranges::adjacent_find(widths, std::not_equal_to<>()) == widths.end()) widths.resize(1, 0);
  table.take_for_each("intermediate_size", widths,
                      "FFN channels: one number for every layer, or an array with one for each");
  config.intermediate_size = widths.size() == 1 ? std::vector<int64_t>(layers, widths[0]) : widths;
  table.call_defaults(inherited);
  table.take("rope_theta", config.rope_theta, "RoPE base");
  table.take("rms_norm_eps", config.rms_norm_eps, "epsilon of every RMSNorm");
  table.take("tie_word_embeddings", config.tie_word_embeddings, "one matrix for input and output");
  table.take("qk_norm", config.qk_norm, "RMSNorm on queries and keys before RoPE");
  table.take("max_position_embeddings", config.max_position_embeddings, "longest sequence, written to config.json");
  table.finish();
  check_config(config, table.where(), false);
  if (fitted) check_sizes(table, config, *fitted);
  return config;
}

void read_machine(OptionTable& root, Recipe& recipe) {
  root.take("seed", recipe.seed, "of every random stream");
  recipe.placement = read_placement(root);
  root.take("threads", recipe.threads,
            "CPU threads; 0 = OMP_NUM_THREADS, or what cores and CPU quota give; another number changes the last bits "
            "of results");
  check(recipe.threads >= 0 && recipe.threads <= 4096, root.where("threads"),
        fmt::format("threads: got {}, expected 0 to 4096", recipe.threads));
  root.take("grace_s", recipe.grace_s, "seconds from a stop signal until the program gives up saving; 0 = no limit");
  check(recipe.grace_s >= 0 && recipe.grace_s <= 86400, root.where("grace_s"),
        fmt::format("grace_s: got {}, expected 0 to 86400", recipe.grace_s));
}

/// Where the documents of some sources lie: one's own folder in the corpus, or one of links to several.
std::string source_folder(const DataOptions& data, const DomainOptions& domain) {
  const std::filesystem::path corpus = data.corpus_folder;
  return (domain.sources.size() == 1 ? corpus / "documents" / domain.sources.front() : corpus / "domains" / domain.name)
      .string();
}

void check_sources(const DataOptions& data, const DomainOptions& domain, const OptionTable& table) {
  check(domain.path.empty(), table.where("sources"),
        fmt::format("sources: domain '{}' has a path, too; expected one of them", domain.name));
  check(data.corpus != nullptr, table.where("sources"), "sources: the recipe has no [[data.source]]");
  std::vector<std::string> names;
  for (const SourceOptions& source : data.corpus->sources) names.push_back(source.name);
  std::set<std::string> given;
  for (const std::string& name : domain.sources) {
    check_choice(name, names, table.where("sources"), "sources");
    check(given.insert(name).second, table.where("sources"), fmt::format("sources: '{}' is given twice", name));
  }
}

/// Of the recipe's own sources, or of a corpus that the path lies in; a run remembers those.
std::vector<SourceRights> rights_of(const DataOptions& data, const DomainOptions& domain, Sources& sources) {
  std::vector<SourceRights> rights;
  for (const std::string& name : domain.sources) {
    const auto source = std::ranges::find(data.corpus->sources, name, &SourceOptions::name);
    rights.push_back({source->name, source->license, source->stages, source->where});
  }
  if (!rights.empty()) return rights;
  if (sources.asks_world()) rights = corpus_rights(domain.path);
  if (rights.empty() && !sources.recorded("rights", domain.path)) return rights;
  const std::string where = rights.empty() ? domain.path : rights.front().where;
  return read_rights(sources.look("rights", domain.path, [&] { return rights_json(rights); }), where);
}

DomainOptions read_domain(OptionTable table, const DataOptions& data, Sources& sources) {
  DomainOptions domain;
  table.read(domain);
  table.finish();
  check_name(domain.name, table.where("name"), "domain name");
  if (!domain.sources.empty()) {
    check_sources(data, domain, table);
    domain.path = source_folder(data, domain);
  }
  check(!domain.path.empty(), table.where(), fmt::format("domain '{}' has no path", domain.name));
  domain.rights = rights_of(data, domain, sources);
  check(!domain.text_key.empty(), table.where("text_key"), "text_key: is empty; expected the name of a JSON field");
  check(domain.weight >= 0 && std::isfinite(domain.weight), table.where("weight"),
        fmt::format("weight: got {}, expected 0 or more", domain.weight));
  check(domain.max_epochs >= 0 && std::isfinite(domain.max_epochs), table.where("max_epochs"),
        fmt::format("max_epochs: got {}, expected 0 (no limit) or more", domain.max_epochs));
  for (const DomainOptions& other : data.domains)
    check(other.name != domain.name, table.where("name"), fmt::format("domain '{}' is given twice", domain.name));
  return domain;
}

/// Of a recorded recipe the sources alone: its steps may name word lists and classifiers that are gone.
std::shared_ptr<const CorpusSettings> read_corpus_of(OptionTable& table, bool asks_world) {
  if (asks_world) return std::make_shared<const CorpusSettings>(read_corpus(table));
  CorpusSettings recorded;
  table.read(recorded);
  for (OptionTable source : table.tables("source")) source.read(recorded.sources.emplace_back());
  table.tables("step");
  return std::make_shared<const CorpusSettings>(std::move(recorded));
}

DataOptions read_data(OptionTable table, const std::string& name, Sources& sources) {
  DataOptions data{.corpus_folder = (std::filesystem::path("corpora") / name).string()};
  table.take_count("shard_tokens", data.shard_tokens, "tokens of a shard at most");
  table.read(data);
  check(data.heldout_share > 0 && data.heldout_share < 0.5, table.where("heldout_share"),
        fmt::format("heldout_share: got {}, expected above 0 and below 0.5", data.heldout_share));
  check(data.tuning_share >= 0 && data.tuning_share < 0.5, table.where("tuning_share"),
        fmt::format("tuning_share: got {}, expected 0 (none) or more, below 0.5", data.tuning_share));
  check(data.shard_tokens >= 4096, table.where("shard_tokens"),
        fmt::format("shard_tokens: got {}, expected at least 4096", data.shard_tokens));
  check(
      data.max_bad >= -1, table.where("max_bad"),
      fmt::format("max_bad: got {}, expected 0 or more, or -1 for the larger of 100 and 0.1% of a file", data.max_bad));
  check(!data.corpus_folder.empty(), table.where("corpus_folder"), "corpus_folder: is empty; expected a folder");
  if (table.has("source") || table.has("step")) data.corpus = read_corpus_of(table, sources.asks_world());
  for (const OptionTable& domain : table.tables("domain")) data.domains.push_back(read_domain(domain, data, sources));
  table.finish();
  check(!data.domains.empty(), table.where(), "no [[data.domain]]: name at least one corpus file or folder");
  return data;
}

TokenizerOptions read_tokenizer(OptionTable table, Sources& sources) {
  TokenizerOptions tokenizer;
  table.take_count("training_bytes", tokenizer.training_bytes, "bytes of text that the trainer sees");
  const std::string given = table.text_of("path");
  if (const int64_t pieces = given.empty() ? 0 : tokenizer_vocab_size(sources, given); pieces > 0) {
    tokenizer.vocab_size = pieces;
    table.call_defaults("tokenizer " + given);
    table.take("vocab_size", tokenizer.vocab_size, "pieces");
    table.call_defaults("default");
  }
  table.read(tokenizer);
  table.finish();
  check_choice(tokenizer.kind, {"sentencepiece"}, table.where("kind"), "kind");
  check((tokenizer.vocab_size > 260 || (tokenizer.vocab_size > 0 && !tokenizer.path.empty())) &&
            tokenizer.vocab_size <= (1 << 20),
        table.where("vocab_size"),
        fmt::format("vocab_size: got {}, expected 261 (4 control pieces, 256 bytes, one more) to 1048576",
                    tokenizer.vocab_size));
  check(tokenizer.character_coverage >= 0.98 && tokenizer.character_coverage <= 1, table.where("character_coverage"),
        fmt::format("character_coverage: got {}, expected 0.98 to 1", tokenizer.character_coverage));
  check(tokenizer.training_bytes > 0, table.where("training_bytes"), "training_bytes: expected above 0");
  return tokenizer;
}

/// [model.source] first: the others inherit from it.
void read_models(OptionTable table, Recipe& recipe) {
  std::vector<std::string> names = table.table_names();
  std::ranges::stable_partition(names, [](const std::string& name) { return name == "source"; });
  for (const std::string& name : names) {
    const ModelConfig* base = recipe.models.contains("source") ? &recipe.models.at("source") : nullptr;
    recipe.models[name] = read_model(table.table(name), base, recipe.tokenizer.vocab_size, *recipe.sources);
  }
  table.finish();
}

/// One [[stage]], checked against the stages and models that `recipe` holds so far.
Stage read_stage(OptionTable table, const Recipe& recipe) {
  Stage stage{.where = table.where(), .seed = 0};
  const std::vector<std::string> kinds = names_of_kinds();
  table.take("name", stage.name, "the stage's folder and its name in messages");
  table.take("kind", stage.kind,
             fmt::format("{} or {}", fmt::join(kinds.begin(), kinds.end() - 1, ", "), kinds.back()));
  check(table.has("name"), stage.where, "[[stage]] without a name");
  check_name(stage.name, table.where("name"), "name");
  check(std::ranges::find(kTopLevelKeys, stage.name) == kTopLevelKeys.end(), table.where("name"),
        fmt::format("name: '{}' is the name of a top-level key; choose another", stage.name));
  check(std::ranges::find(kRunFiles, stage.name) == kRunFiles.end(), table.where("name"),
        fmt::format("name: '{}' is the name of something else in the run folder; choose another", stage.name));
  for (const Stage& other : recipe.stages)
    check(other.name != stage.name, table.where("name"),
          fmt::format("name: '{}' is already the stage at {}", stage.name, other.where));
  check_choice(stage.kind, kinds, table.where("kind"), "kind");
  const StageKind& kind = kind_of(stage);
  if (kind.seeded)
    table.take("seed", stage.seed,
               "of this stage alone; 0 = the recipe's. An ablation computes a stage with a seed of its own once for "
               "all seeds");
  if (stage.seed == 0) stage.seed = recipe.seed;
  if (kind.computes) stage.placement = read_placement(table, recipe.placement);
  stage.options = kind.read(table, recipe, stage.seed);
  table.finish();
  return stage;
}

}  // namespace

const Stage& Recipe::stage(const std::string& stage_name) const {
  const auto found = std::ranges::find(stages, stage_name, &Stage::name);
  COPPICE_CHECK(found != stages.end(), "no stage named " + stage_name);
  return *found;
}

ModelConfig Recipe::model_after(const std::string& stage_name) const {
  const Stage& found = stage(stage_name);
  const StageKind& kind = kind_of(found);
  COPPICE_CHECK(kind.leaves_model != nullptr, "stage " + stage_name + " leaves no model");
  return kind.leaves_model(*this, found);
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
  read_machine(root, recipe);
  recipe.data = read_data(root.table("data"), recipe.name, *recipe.sources);
  recipe.tokenizer = read_tokenizer(root.table("tokenizer"), *recipe.sources);
  read_models(root.table("model"), recipe);
  check(!recipe.models.empty(), root.where(), "no [model.<name>] table");
  for (const OptionTable& table : root.tables("stage")) recipe.stages.push_back(read_stage(table, recipe));
  read_ablation(root, recipe);
  root.finish();
  check(!recipe.stages.empty(), root.where(), "no [[stage]]");
  for (const std::string& name : recipe.compare)
    check_input(recipe.stages, name, model_kinds(), root.where("compare"), "compare");
  for (const Stage& stage : recipe.stages)
    if (const auto check_models = kind_of(stage).check_models) check_models(recipe, stage);
  for (const Stage& stage : recipe.stages)
    if (const TrainingOptions* training = training_of(stage)) check_open(recipe, stage, training->mixture, "mixture");
  recipe.resolved = source.resolved(false);
  recipe.with_origins = source.resolved(true);
  return recipe;
}

}  // namespace coppice
