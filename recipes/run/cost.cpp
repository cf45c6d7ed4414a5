#include "recipes/run/cost.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>

#include "pruning/scores.h"
#include "recipes/folder/machine.h"
#include "recipes/language/sources.h"
#include "recipes/stages/stages.h"
#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/input_file.h"
#include "src/base/log.h"
#include "src/model/parameters.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

constexpr double kBytesOfFloat = 4;
constexpr double kBytesOfBatchToken = 24;      // id, position and label
constexpr double kProgramBytes = 350e6;        // LibTorch and its buffers
constexpr double kTrainingShareOfGemm = 0.45;  // small fp32 models on two cores (docs/results)
constexpr double kForwardShareOfGemm = 0.35;
constexpr double kBytesPerToken = 2.5;  // of text, before a tokenizer is there to tell

/// Activations kept for the backward pass: residual stream and norms, packed attention, gate, up and hidden.
double activation_bytes_per_token(const ModelConfig& config) {
  const double attention =
      static_cast<double>((config.num_attention_heads + 2 * config.num_key_value_heads) * config.head_dim);
  double floats = 0;
  for (const int64_t width : config.intermediate_size)
    floats += 8.0 * static_cast<double>(config.hidden_size) + 3 * attention + 5.0 * static_cast<double>(width);
  return kBytesOfFloat * floats;
}

double model_bytes(const ModelConfig& config) { return kBytesOfFloat * static_cast<double>(count_parameters(config)); }

void add_training(StageCost& cost, const TrainingOptions& training, const ModelConfig& config) {
  cost.steps = training.steps();
  cost.tokens = static_cast<double>(cost.steps) * static_cast<double>(training.batch_tokens);
  cost.flops = cost.tokens * training_flops_per_token(config, training.seq_len);
  const double micro_tokens = static_cast<double>(training.micro_rows() * training.seq_len);
  cost.memory_bytes =
      4 * model_bytes(config) + micro_tokens * activation_bytes_per_token(config);  // master, gradient, two slots
  cost.disk_bytes = model_bytes(config) * (1 + 3 * (1.0 + training.keep_last));  // model, and checkpoints while it runs
  cost.transient_bytes = training.keep_finished ? 0 : cost.disk_bytes - model_bytes(config);
}

/// Tokens of a training stage's looks at held-out text: about ten a stage and one at its end.
double look_tokens(const TrainingOptions& training, double heldout_tokens) {
  const int64_t every = training.eval_steps > 0 ? training.eval_steps : std::max<int64_t>(1, training.steps() / 10);
  return static_cast<double>(training.steps() / every + 1) *
         std::min(static_cast<double>(training.eval_tokens), heldout_tokens);
}

/// Tokens read for each one that is labelled: windows overlap, and a window is read whole for the part of it that a
/// reader draws.
double label_reads(const LabelStage& label, const TrainingOptions* reader) {
  const auto context = static_cast<double>(label.context), stride = static_cast<double>(label.context - label.overlap);
  if (reader == nullptr || label.window_rule == "aligned") return context / stride;
  return (static_cast<double>(reader->seq_len) + stride) / stride * context / static_cast<double>(reader->seq_len);
}

/// Tokens that a model reads for tasks: about one a byte of their files, because each choice is read behind its
/// context, which its line holds once.
double task_tokens(const std::vector<std::string>& files) {
  double bytes = 0;
  std::error_code missing;
  for (const std::string& file : files)
    if (const auto size = fs::file_size(file, missing); !missing) bytes += static_cast<double>(size);
  return bytes;
}

/// Bytes of the regular files below a folder; 0 when there is none. What cannot be listed is found by whoever reads it.
/// Hidden files do not count: what a run has set aside (.bad-*, .left-*, .old-*) or not yet finished is no part of what
/// its stages leave.
double folder_bytes(const fs::path& folder) {
  double bytes = 0;
  std::error_code error;
  for (fs::recursive_directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    if (entry->path().filename().string().starts_with(".")) {
      entry.disable_recursion_pending();
      continue;
    }
    const auto size = entry->is_regular_file(error) ? entry->file_size(error) : 0;
    if (!error) bytes += static_cast<double>(size);
  }
  return bytes;
}

/// Text of one domain, by the size of its files; packed ones hold about four times their size.
double text_bytes(const std::string& path) {
  std::error_code error;
  if (fs::is_directory(path, error)) return folder_bytes(path);
  const auto size = fs::file_size(path, error);
  std::string ending = fs::path(path).extension().string();
  std::ranges::transform(ending, ending.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  const bool packed = ending == ".zst" || ending == ".gz";
  return error ? 0 : static_cast<double>(size) * (packed ? 4 : 1);
}

double text_bytes(const Recipe& recipe, const DomainOptions& domain) {
  return recipe.sources->look("bytes", domain.path, [&] { return Json(text_bytes(domain.path)); }).get<double>();
}

/// Tokens that each training stage draws from each domain, and how often that reads the domain.
std::string mixture_table(const Recipe& recipe) {
  std::string text = fmt::format("{:<14} {:<14} {:>9} {:>8}\n", "stage", "domain", "tokens", "epochs");
  for (const Stage& stage : recipe.stages) {
    const TrainingOptions* training = training_of(stage);
    if (training == nullptr) continue;
    // in windows of which the stage draws at most a million: max_epochs counts, and no table takes long
    const double tokens = static_cast<double>(training->steps()) * static_cast<double>(training->batch_tokens);
    const double window = std::max(static_cast<double>(training->seq_len), tokens / 1e6);
    std::vector<uint64_t> windows;
    std::vector<double> there;
    for (const MixtureEntry& entry : training->mixture) {
      there.push_back(text_bytes(recipe, *std::ranges::find(recipe.data.domains, entry.domain, &DomainOptions::name)) /
                      kBytesPerToken);
      windows.push_back(std::max<uint64_t>(1, static_cast<uint64_t>(there.back() / window)));
    }
    const bool known = std::ranges::all_of(there, [](double in_domain) { return in_domain > 0; });
    const std::vector<uint64_t> drawn =
        mixture_counts(training->mixture, static_cast<uint64_t>(std::ceil(tokens / window)),
                       known ? windows : std::vector<uint64_t>());
    for (size_t d = 0; d < drawn.size(); ++d) {
      const double from_domain = static_cast<double>(drawn[d]) * window;
      text +=
          fmt::format("{:<14} {:<14} {:>9} {:>8}\n", d == 0 ? stage.name : "", training->mixture[d].domain,
                      format_count(from_domain), there[d] > 0 ? fmt::format("{:.2f}", from_domain / there[d]) : "-");
    }
  }
  return text;
}

/// Stages run one after the other: the largest counts for memory, and its checkpoints go before the next one's come.
void add_up(RecipeCost& total) {
  double transient_bytes = 0;
  for (const StageCost& cost : total.stages) {
    total.memory_bytes = std::max(total.memory_bytes, cost.memory_bytes);
    total.disk_bytes += cost.disk_bytes - cost.transient_bytes;
    transient_bytes = std::max(transient_bytes, cost.transient_bytes);
  }
  total.disk_bytes += transient_bytes;
}

std::string memory_remedy(const StageCost& stage) {
  if (stage.kind == "data") return "tokenizer.training_bytes";
  if (stage.kind == "label") return fmt::format("data.shard_tokens, {}.batch_tokens or the model's size", stage.name);
  if (stage.kind == "train" || stage.kind == "learn_masks")
    return fmt::format("{}.micro_batch_tokens or the model's size", stage.name);
  return "the model's size";
}

/// A forward pass keeps one layer's activations.
double label_bytes_per_token(const ModelConfig& teacher) {
  return activation_bytes_per_token(teacher) / static_cast<double>(teacher.num_hidden_layers);
}

}  // namespace

int64_t choose_label_batch(const ModelConfig& teacher, int64_t context) {
  constexpr int64_t kLabelBatch = 8192;
  const double left = (available_memory() - model_bytes(teacher) - kProgramBytes) / 2,
               tokens = left / label_bytes_per_token(teacher);
  return std::max(context, tokens < kLabelBatch ? static_cast<int64_t>(std::max(0.0, tokens)) : kLabelBatch);
}

double corpus_bytes(const Recipe& recipe) {
  double bytes = 0;
  std::error_code error;
  for (const DomainOptions& domain : recipe.data.domains) {
    if (!fs::exists(domain.path, error) && !recipe.sources->recorded("bytes", domain.path))
      log_warning(fmt::format("domain '{}': {}: no such corpus file or folder{}; counted as empty", domain.name,
                              printable(domain.path), searched_from(domain.path)));
    bytes += text_bytes(recipe, domain);
  }
  return bytes;
}

RecipeCost estimate_cost(const Recipe& recipe, double text_bytes, double gemm_gflops) {
  RecipeCost total;
  StageCost data{.name = "data", .kind = "data", .tokens = text_bytes / kBytesPerToken};
  data.disk_bytes = 2.2 * data.tokens;
  const double trainer_bytes = recipe.tokenizer.path.empty() ? static_cast<double>(recipe.tokenizer.training_bytes) : 0;
  data.memory_bytes = trainer_bytes * 12;
  data.seconds = gemm_gflops > 0 ? text_bytes / 2.5e6 + trainer_bytes / 1e6 : 0;
  total.stages.push_back(data);
  const double heldout_tokens = data.tokens * recipe.data.heldout_share;
  for (const Stage& stage : recipe.stages) {
    StageCost cost{.name = stage.name, .kind = stage.kind};
    double share = kTrainingShareOfGemm;
    double uncounted_flops = 0;  // forward passes that take time and that a stage's own count leaves out
    if (const auto* train = std::get_if<TrainStage>(&stage.options)) {
      const ModelConfig config = recipe.model_after(stage.name);
      cost.parameters = count_parameters(config);
      add_training(cost, train->training, config);
      uncounted_flops =
          look_tokens(train->training, heldout_tokens) * forward_flops_per_token(config, train->training.seq_len);
      for (const std::string& name : train->teachers) {  // read forward in every distilling step
        const ModelConfig teacher = recipe.model_after(name);
        for (int64_t step = 0; step < cost.steps; ++step)
          if (distils_at(train->distillation, step, cost.steps))
            cost.flops += static_cast<double>(train->training.batch_tokens) *
                          forward_flops_per_token(teacher, train->training.seq_len);
        cost.memory_bytes += model_bytes(teacher);
      }
    } else if (std::holds_alternative<ImportStage>(stage.options)) {
      const ModelConfig config = recipe.model_after(stage.name);
      cost.parameters = count_parameters(config);
      cost.memory_bytes = 2 * model_bytes(config);  // the folder's tables and the model without their padded rows
      cost.disk_bytes = model_bytes(config);
    } else if (const auto* masks = std::get_if<LearnMasksStage>(&stage.options)) {
      const ModelConfig config = recipe.model_after(stage.name);
      cost.parameters = count_parameters(config);
      add_training(cost, masks->training, config);
      if (masks->masks.score_init != "noise")
        cost.flops += calibration_flops(config, find_score(masks->masks.score_init, stage.where),
                                        masks->masks.calibration_tokens);
      uncounted_flops =
          (3 * look_tokens(masks->training, heldout_tokens) + static_cast<double>(masks->masks.calibration_tokens)) *
          forward_flops_per_token(
              config, masks->training
                          .seq_len);  // under the soft mask, the learned cut and a random one; overlap with activation
      cost.memory_bytes += kBytesOfBatchToken * static_cast<double>(masks->masks.calibration_tokens);
    } else if (const auto* prune = std::get_if<PruneStage>(&stage.options)) {
      const ModelConfig config = recipe.model_after(stage.name), source = recipe.model_after(prune->from);
      cost.parameters = count_parameters(config);
      if (prune->scores != "masks")
        cost.flops = calibration_flops(source, find_score(prune->scores, stage.where), prune->calibration_tokens);
      cost.memory_bytes = model_bytes(source) + model_bytes(config);
      if (needs_calibration(*prune))
        cost.memory_bytes += kBytesOfBatchToken * static_cast<double>(prune->calibration_tokens);
      cost.disk_bytes = model_bytes(config);
    } else if (const auto* label = std::get_if<LabelStage>(&stage.options)) {
      share = kForwardShareOfGemm;
      cost.tokens = label->coverage == "all" ? data.tokens : 0;
      double read_tokens = cost.tokens * label_reads(*label, nullptr),
             windows = 0;  // that readers draw: a run of the label files' tables each
      if (label->coverage == "used")
        for (const Stage& reader : recipe.stages)
          if (const auto* train = std::get_if<TrainStage>(&reader.options);
              train && std::ranges::find(train->labels, stage.name) != train->labels.end()) {
            const auto drawn = static_cast<double>(train->training.tokens);
            cost.tokens += drawn;
            read_tokens += drawn * label_reads(*label, &train->training);
            windows += drawn / static_cast<double>(train->training.seq_len);
          }
      if (data.tokens > 0) cost.tokens = std::min(cost.tokens, data.tokens);  // drawn twice, labelled once
      int64_t batch_tokens = 0;
      if (label->has_own_labels()) {
        const ModelConfig config = recipe.model_after(label->teacher);
        batch_tokens = label->batch_tokens > 0 ? label->batch_tokens : choose_label_batch(config, label->context);
        cost.flops = cost.tokens * forward_flops_per_token(config, label->context);
        uncounted_flops = (std::min(read_tokens, data.tokens * label_reads(*label, nullptr)) - cost.tokens) *
                          forward_flops_per_token(config, label->context);
        cost.memory_bytes = model_bytes(config) + static_cast<double>(batch_tokens) * label_bytes_per_token(config);
      }
      if (label->cache.empty()) {
        // what is labelled, and of one shard the most; an import holds what its files hold
        const double labels = label->import.empty() ? cost.tokens : data.tokens;
        const auto shard_tokens = static_cast<double>(recipe.data.shard_tokens);
        const double of_shard = std::min(labels / std::max(1.0, data.tokens / shard_tokens), shard_tokens);
        const LabelFingerprint made{.vocab_size = recipe.tokenizer.vocab_size,
                                    .tier = label->tier,
                                    .k = label->tier == "topk" ? label->top_k : 1};
        const auto row_bytes = static_cast<double>(label_row_bytes(made)), ids = static_cast<double>(made.k);
        cost.disk_bytes = labels * row_bytes + windows * kLabelRunBytes;
        // a shard's labels as they come, 6 bytes an id at most, and as they are written, and a batch's choices; an
        // import whose documents come in another order holds more
        cost.memory_bytes += of_shard * (6 * ids + row_bytes) + static_cast<double>(batch_tokens) * 12 * ids;
      }
    } else if (const auto* evaluate = std::get_if<EvaluateStage>(&stage.options)) {
      share = kForwardShareOfGemm;
      const double windows =
          evaluate->tokens > 0 ? std::min(static_cast<double>(evaluate->tokens), heldout_tokens) : heldout_tokens;
      const double tokens = windows + task_tokens(evaluate->tasks);
      if (std::ranges::find(evaluate->of, evaluate->teacher) == evaluate->of.end())
        uncounted_flops = windows * forward_flops_per_token(recipe.model_after(evaluate->teacher), evaluate->seq_len);
      for (const std::string& name : evaluate->of) {
        const ModelConfig config = recipe.model_after(name);
        cost.tokens += tokens;
        cost.flops += tokens * forward_flops_per_token(config, evaluate->seq_len);
        cost.memory_bytes = std::max(cost.memory_bytes, model_bytes(config));
      }
    } else if (const auto* exports = std::get_if<ExportStage>(&stage.options)) {
      const ModelConfig config = recipe.model_after(exports->from);
      cost.parameters = count_parameters(config);
      cost.memory_bytes = 2 * model_bytes(config);
      cost.disk_bytes = model_bytes(config) * (exports->dtype == "f32" ? 1 : 0.5);
    }
    cost.memory_bytes += kProgramBytes;
    if (gemm_gflops > 0)
      cost.seconds = (cost.flops / share + uncounted_flops / kForwardShareOfGemm) / (gemm_gflops * 1e9);
    total.stages.push_back(cost);
  }
  add_up(total);
  return total;
}

RecipeCost remaining_cost(const RecipeCost& cost, const fs::path& run_root, const std::vector<std::string>& done) {
  RecipeCost rest;
  for (StageCost stage : cost.stages) {
    if (std::ranges::find(done, stage.name) != done.end()) continue;
    stage.disk_bytes = std::max(0.0, stage.disk_bytes - folder_bytes(run_root / stage.name));
    stage.transient_bytes = std::min(stage.transient_bytes, stage.disk_bytes);
    rest.stages.push_back(stage);
  }
  add_up(rest);
  return rest;
}

void check_fits(const RecipeCost& cost, const fs::path& run_root) {
  if (const double memory = available_memory(); cost.memory_bytes > memory) {
    const auto largest = std::ranges::max_element(cost.stages, {}, &StageCost::memory_bytes);
    throw DeviceError::out_of_memory(fmt::format("stage '{}' needs about {} of memory, {} are available; lower {}",
                                                 largest->name, format_bytes(largest->memory_bytes),
                                                 format_bytes(memory), memory_remedy(*largest)));
  }
  if (const auto free = static_cast<double>(free_bytes(run_root)); cost.disk_bytes > free)
    throw IoError(run_root.string(), fmt::format("the run needs about {} of disk, {} are free; lower keep_last or "
                                                 "tokens, or choose another folder with --out",
                                                 format_bytes(cost.disk_bytes), format_bytes(free)));
}

CorpusTokens estimate_tokens(const Recipe& recipe) {
  CorpusTokens corpus;
  for (const DomainOptions& domain : recipe.data.domains) {
    const double tokens = text_bytes(recipe, domain) / kBytesPerToken;
    corpus.train[domain.name] = tokens * (1 - recipe.data.heldout_share);
    corpus.heldout += tokens * recipe.data.heldout_share;
  }
  return corpus;
}

std::string cost_table(const Recipe& recipe, const RecipeCost& cost) {
  std::string text = fmt::format("{}: {} stages\n\n{:<14} {:<12} {:>11} {:>9} {:>7} {:>10} {:>10} {:>10} {:>8}\n",
                                 recipe.name, recipe.stages.size(), "stage", "kind", "parameters", "tokens", "steps",
                                 "FLOPs", "memory", "disk", "time");
  double flops = 0, seconds = 0;
  for (const StageCost& stage : cost.stages) {
    const auto shown = [](bool known, std::string value) { return known ? value : std::string("-"); };
    text += fmt::format("{:<14} {:<12} {:>11} {:>9} {:>7} {:>10} {:>10} {:>10} {:>8}\n", stage.name, stage.kind,
                        shown(stage.parameters > 0, format_count(static_cast<double>(stage.parameters))),
                        shown(stage.tokens > 0, format_count(stage.tokens)),
                        shown(stage.steps > 0, fmt::format("{}", stage.steps)),
                        shown(stage.flops > 0, fmt::format("{:.2e}", stage.flops)), format_bytes(stage.memory_bytes),
                        format_bytes(stage.disk_bytes), shown(stage.seconds > 0, format_duration(stage.seconds)));
    flops += stage.flops;
    seconds += stage.seconds;
  }
  text += fmt::format("\ntotal: {:.2e} FLOPs, {} of memory at most, {} of disk{}\n", flops,
                      format_bytes(cost.memory_bytes), format_bytes(cost.disk_bytes),
                      seconds > 0 ? fmt::format(", about {}", format_duration(seconds)) : "");
  return text + "\n" + mixture_table(recipe);
}

}  // namespace coppice
