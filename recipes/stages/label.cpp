#include "recipes/stages/label.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "recipes/folder/machine.h"
#include "recipes/language/identity.h"
#include "recipes/language/recipe_reading.h"
#include "recipes/language/sources.h"
#include "recipes/stages/context.h"
#include "recipes/stages/import.h"
#include "recipes/stages/prepare_data.h"
#include "recipes/stages/stage_cost.h"
#include "recipes/stages/stages.h"
#include "recipes/stages/train.h"
#include "src/base/files.h"
#include "src/base/input_file.h"
#include "src/data/draw_numbers.h"
#include "src/data/label_cache.h"
#include "src/data/label_import.h"
#include "src/data/label_jsonl.h"
#include "src/model/parameters.h"
#include "src/tensors/device.h"
#include "src/text/corpus_sha256.h"
#include "src/tokens/token_runs.h"

namespace coppice {
namespace {

/// Labels from elsewhere: their files for every domain, and of a cache what it says of itself.
void read_label_sources(const OptionTable& table, const Recipe& recipe, LabelStage& label) {
  const char* source = label.import.empty() ? "cache" : "import";
  const LabelStage plain;  // a resolved recipe spells the defaults out
  for (const auto& [key, is_plain] : {std::pair{"window_rule", label.window_rule == plain.window_rule},
                                      {"context", label.context == plain.context},
                                      {"overlap", label.overlap == plain.overlap},
                                      {"draw_seed", label.draw_seed == plain.draw_seed},
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

void check_tier(const OptionTable& table, const Recipe& recipe, const LabelStage& label) {
  check_choice(label.tier, {"top1", "top1_prob", "topk", "sample", "hybrid"}, table.where("tier"), "tier");
  check(label.top_k >= 1 && label.top_k < recipe.tokenizer.vocab_size, table.where("top_k"),
        fmt::format("top_k: got {}, expected 1 to vocab_size - 1", label.top_k));
  check_choice(label.code, {"f16", "q8"}, table.where("code"), "code");
  check(label.draws >= 1 && label.draws <= kMaxDraws, table.where("draws"),
        fmt::format("draws: got {}, expected 1 to {}", label.draws, kMaxDraws));
  check(label.temperature >= kLeastTemperature && label.temperature <= kMostTemperature, table.where("temperature"),
        fmt::format("temperature: got {}, expected {} to {}", label.temperature, kLeastTemperature, kMostTemperature));
  check_proposal(label.proposal_temperature, table.where("proposal_temperature"));
}

/// Labels have one source, and some options speak of labels from `import` alone.
void check_source(const OptionTable& table, const LabelStage& label) {
  check(label.teacher.empty() || label.import.empty(), table.where("import"),
        "teacher and import: a label stage has one or the other");
  check(label.cache.empty() || label.import.empty(), table.where("cache"),
        "cache and import: a label stage has one or the other");
  check_choice(label.import_format, {"coppice", "vllm"}, table.where("import_format"), "import_format");
  check(label.import_format == "coppice" || !label.import.empty(), table.where("import_format"),
        "import_format: only labels from `import` have one");
  check(label.import_format == "coppice" || !label.is_drawn(), table.where("import_format"),
        fmt::format("import_format: '{}' holds the most probable ids, and tier {} needs draws; give them as lists "
                    "(docs/labels.md)",
                    label.import_format, label.tier));
  check(!label.low_mass || !label.import.empty(), table.where("low_mass"),
        "low_mass: only labels from `import` are asked for their mass");
  check(label.import_teacher.empty() || !label.import.empty(), table.where("import_teacher"),
        "import_teacher: only labels from `import` need a name");
}

std::any read(OptionTable& table, const Recipe& recipe, uint64_t) {
  LabelStage label;
  table.read(label);
  check_tier(table, recipe, label);
  check_source(table, label);
  if (label.has_own_labels() || !label.teacher.empty())
    check_input(recipe.stages, label.teacher, model_kinds(), table.where("teacher"), "teacher");
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

std::vector<std::string> inputs(const Stage& stage) { return {stage.get<LabelStage>().teacher}; }

void check_models(const Recipe& recipe, const Stage& stage) {
  const auto& label = stage.get<LabelStage>();
  check_attention_window(recipe, stage, label.teacher, "context", label.context);
}

std::vector<OutsideSource> needs(const Recipe& recipe, const Stage& stage) {
  const auto& label = stage.get<LabelStage>();
  std::vector<OutsideSource> needs;
  if (!label.import.empty()) needs.push_back({label.import, "its labels come from there"});
  if (!label.cache.empty())
    for (const DomainOptions& domain : recipe.data.domains)
      needs.push_back({label_cache(label.cache, domain.name), "its labels lie there"});
  return needs;
}

Json identity(const Recipe& recipe, const Stage& stage) {
  const auto& label = stage.get<LabelStage>();
  const LabelStage plain;
  Json json = deciding(label);
  if (!label.has_top_k()) json.erase("top_k");
  LabelFingerprint made;
  label.describe(made);
  if (made.code == plain.code) json.erase("code");
  if (!made.has_weights()) json.erase("proposal_temperature");
  if (!label.is_drawn()) json.erase("draws");
  if (!label.is_drawn() || !label.has_own_labels()) json.erase("draw_seed");
  if (label.import_format == plain.import_format) json.erase("import_format");
  if (label.import_teacher.empty()) json.erase("import_teacher");
  if (!label.import.empty())
    json["import"] = recipe.sources->look_text("labels", label.import, [&] { return corpus_sha256(label.import); });
  if (!label.cache.empty())  // a manifest holds the hashes of its files
    for (const DomainOptions& domain : recipe.data.domains) {
      const std::filesystem::path cache = label_cache(label.cache, domain.name);
      json["cache"][domain.name] = recipe.sources->look_text("label cache's manifest", cache,
                                                             [&] { return sha256_file(cache / "manifest.json"); });
    }
  if (label.coverage == "used")  // what its readers draw, and when they distil, decides which documents are labelled
    for (const Stage* reader : readers_of(recipe, stage.name)) {
      const auto& train = reader->get<TrainStage>();
      json["readers"].push_back(drawing_json(train.training));
      if (const auto steps = train.distilling_steps();
          label.has_own_labels() && steps != std::pair<int64_t, int64_t>(0, train.training.steps()))
        json["readers"].back()["distilling_steps"] = steps;
    }
  return json;
}

/// Readers that draw the same windows share their labels.
std::map<Json, std::vector<const TrainStage*>> readers_by_drawing(const Recipe& recipe,
                                                                  const std::string& label_stage) {
  std::map<Json, std::vector<const TrainStage*>> readers;
  for (const Stage* reader : readers_of(recipe, label_stage)) {
    const auto& train = reader->get<TrainStage>();
    readers[drawing_json(train.training)].push_back(&train);
  }
  return readers;
}

/// Of the steps of readers that draw the same: those in which one of them distils.
double distilling_share(const std::vector<const TrainStage*>& readers) {
  TokenRuns runs;
  for (const TrainStage* reader : readers) {
    const auto [first, last] = reader->distilling_steps();
    runs.push_back({static_cast<uint64_t>(first), static_cast<uint64_t>(last)});
  }
  return static_cast<double>(count_tokens(merge_runs(std::move(runs)))) /
         static_cast<double>(readers.front()->training.steps());
}

/// Tokens read for each one that is labelled: windows overlap, and a window is read whole for the part of it that a
/// reader draws.
double label_reads(const LabelStage& label, const TrainingOptions* reader) {
  const auto context = static_cast<double>(label.context), stride = static_cast<double>(label.context - label.overlap);
  if (reader == nullptr || label.window_rule == "aligned") return context / stride;
  return (static_cast<double>(reader->seq_len) + stride) / stride * context / static_cast<double>(reader->seq_len);
}

/// A forward pass keeps one layer's activations.
double label_bytes_per_token(const ModelConfig& teacher) {
  return activation_bytes_per_token(teacher) / static_cast<double>(teacher.num_hidden_layers);
}

/// Adds what the teacher's passes cost; returns the tokens of one.
int64_t add_teacher(StageCost& cost, const CostBasis& basis, const LabelStage& label, bool on_cpu, double read_tokens) {
  const ModelConfig config = basis.recipe.model_after(label.teacher);
  const int64_t batch_tokens = label.is_drawn()         ? label.context
                               : label.batch_tokens > 0 ? label.batch_tokens
                                                        : choose_label_batch(config, label.context, on_cpu);
  cost.flops = cost.tokens * forward_flops_per_token(config, label.context);
  if (basis.is_whole) read_tokens = std::min(read_tokens, basis.tokens * label_reads(label, nullptr));
  cost.uncounted_flops = (read_tokens - cost.tokens) * forward_flops_per_token(config, label.context);
  cost.memory_bytes = model_bytes(config) + static_cast<double>(batch_tokens) * label_bytes_per_token(config);
  cost.work = {reading_work(config, label.context, read_tokens)};
  return batch_tokens;
}

/// Adds what the labels take; `windows`: that readers draw, a run of the label files' tables each.
void add_stored_labels(StageCost& cost, const CostBasis& basis, const LabelStage& label, double windows,
                       int64_t batch_tokens) {
  // what is labelled, and of one shard the most; an import holds what its files hold
  const double labels = label.import.empty() || !basis.is_whole ? cost.tokens : basis.tokens;
  const auto shard_tokens = static_cast<double>(basis.recipe.data.shard_tokens);
  const double of_shard = basis.is_whole ? std::min(labels / std::max(1.0, basis.tokens / shard_tokens), shard_tokens)
                                         : std::min(labels, shard_tokens);
  LabelFingerprint made{.vocab_size = basis.recipe.tokenizer.vocab_size};
  label.describe(made);
  const auto row_bytes = static_cast<double>(most_label_row_bytes(made)),
             ids = static_cast<double>(made.k + made.draws);
  cost.disk_bytes = labels * row_bytes + windows * kLabelRunBytes;
  // a shard's labels as they come, 6 bytes an id at most, and as they are written, and a batch's choices; an
  // import whose documents come in another order holds more
  cost.host_bytes = of_shard * (6 * ids + row_bytes) + static_cast<double>(batch_tokens) * 12 * ids;
  cost.memory_bytes += cost.host_bytes;
}

void cost(const CostBasis& basis, const Stage& stage, StageCost& cost) {
  const auto& label = stage.get<LabelStage>();
  cost.share_of_gemm = kForwardShareOfGemm;
  cost.memory_remedy = fmt::format("data.shard_tokens, {}.batch_tokens or the model's size", stage.name);
  const bool takes_all = label.coverage == "all";
  cost.tokens = takes_all && basis.is_whole ? basis.tokens : 0;
  double read_tokens = cost.tokens * label_reads(label, nullptr), windows = 0;
  const bool only_used = label.coverage == "used";
  if (only_used || !basis.is_whole)  // what is not there holds what is drawn of it, as far as anybody knows
    for (const auto& [drawing, readers] : readers_by_drawing(basis.recipe, stage.name)) {
      const TrainingOptions& training = readers.front()->training;
      const double share = only_used && label.has_own_labels() ? distilling_share(readers) : 1,
                   drawn = share * static_cast<double>(training.tokens);
      cost.tokens += drawn;
      read_tokens += drawn * label_reads(label, only_used ? &training : nullptr);
      windows += only_used ? drawn / static_cast<double>(training.seq_len) : 0;
    }
  if (basis.is_whole)
    cost.tokens = std::min(cost.tokens, basis.tokens);  // drawn twice, labelled once
  else if (takes_all && basis.tokens > cost.tokens) {
    cost.tokens = basis.tokens;
    read_tokens = basis.tokens * label_reads(label, nullptr);
  }
  // of "auto" the build's answer: a plan may be an ablation's, which must not ask the driver
  const bool on_cpu = stage.placement.device == "cpu" || !built_with_cuda();
  const int64_t batch_tokens = label.has_own_labels() ? add_teacher(cost, basis, label, on_cpu, read_tokens) : 0;
  if (label.cache.empty()) add_stored_labels(cost, basis, label, windows, batch_tokens);
}

/// Labels from elsewhere say what they are: what the recipe must agree with. The rest needs the token shards.
void check_early(const BeforeWork& before, const Stage& stage) {
  const auto& options = stage.get<LabelStage>();
  for (const DomainOptions& domain : before.recipe.data.domains) {
    std::optional<LabelFingerprint> found;
    std::filesystem::path path;
    if (!options.import.empty())
      found = read_label_header(path = find_label_file(options.import, domain.name, stage.where));
    if (!options.cache.empty()) found = read_label_fingerprint(path = label_cache(options.cache, domain.name));
    if (!found) continue;
    LabelFingerprint expected = *found;
    if (!options.import_teacher.empty()) expected.teacher_sha256 = options.import_teacher;
    expected.vocab_size = before.recipe.tokenizer.vocab_size;
    if (before.tokenizer != nullptr) expected.tokenizer_sha256 = before.tokenizer->fingerprint();
    options.describe(expected);
    check_label_fingerprint(found->to_json(), expected, path.string());
  }
}

}  // namespace

const StageKind kLabel = {.kind = "label",
                          .computes = true,
                          .on_ranks = true,
                          .options = option_lines<LabelStage>,
                          .read = read,
                          .inputs = inputs,
                          .check_models = check_models,
                          .needs = needs,
                          .identity = identity,
                          .cost = cost,
                          .check = check_early,
                          .run = run_label};

void LabelStage::describe(LabelFingerprint& fingerprint) const {
  const LabelFingerprint plain;
  fingerprint.tier = tier;
  fingerprint.k = has_top_k() ? top_k : tier == "sample" ? draws : 1;
  fingerprint.draws = tier == "hybrid" ? draws : 0;
  fingerprint.code = tier == "topk" ? code : plain.code;
  fingerprint.temperature = temperature;
  fingerprint.proposal_temperature = tier == "sample" ? proposal_temperature : plain.proposal_temperature;
}

void check_proposal(double proposal_temperature, const std::string& where) {
  check(proposal_temperature >= 1 && proposal_temperature <= kMostProposalTemperature, where,
        fmt::format("proposal_temperature: got {}, expected 1 to {}", proposal_temperature, kMostProposalTemperature));
}

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

std::vector<const Stage*> readers_of(const Recipe& recipe, const std::string& label_stage) {
  std::vector<const Stage*> readers;
  for (const Stage& stage : recipe.stages)
    if (const auto* train = stage.find<TrainStage>();
        train != nullptr && std::ranges::find(train->labels, label_stage) != train->labels.end())
      readers.push_back(&stage);
  return readers;
}

int64_t choose_label_batch(const ModelConfig& teacher, int64_t context, bool on_cpu) {
  constexpr int64_t kLabelBatch = 8192;
  if (!on_cpu) return std::max(context, kLabelBatch);  // as plans of a device have it
  const double left = (available_memory() - model_bytes(teacher) - kProgramBytes) / 2,
               tokens = left / label_bytes_per_token(teacher);
  return std::max(context, tokens < kLabelBatch ? static_cast<int64_t>(std::max(0.0, tokens)) : kLabelBatch);
}

}  // namespace coppice
