#include "recipes/run/device_plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "src/base/errors.h"
#include "src/base/log.h"
#include "src/model/parameters.h"

namespace coppice {
namespace {

constexpr double kMemoryMargin = 1.03;  // what a plan of memory may be off by
constexpr double kAsFast = 1.01;        // seconds that are not worth more memory

struct Candidate {
  DeviceSettings settings;
  DeviceMemory memory;
  double seconds = 0;
};

double tokens_of_step(const ModelWork& work) { return static_cast<double>(work.rows * work.seq_len); }

/// Kinds of memory of two works that lie side by side; their passes follow each other.
DeviceMemory beside(const DeviceMemory& a, const DeviceMemory& b) {
  return {.state = a.state + b.state,
          .activations = a.activations + b.activations,
          .buffers = std::max(a.buffers, b.buffers),
          .logits = std::max(a.logits, b.logits),
          .workspace = std::max(a.workspace, b.workspace)};
}

/// Of the works after the first, or of all.
DeviceMemory memory_of_readers(const StageCost& cost, size_t first) {
  DeviceMemory memory;
  for (size_t i = first; i < cost.work.size(); ++i) {
    const DeviceMemory one = reading_memory(cost.work[i]);
    if (!cost.one_model_at_once)
      memory = beside(memory, one);
    else if (one.total() > memory.total())
      memory = one;
  }
  return memory;
}

/// Sequences of a micro-batch: those that a step divides into, and the recipe's own.
std::vector<int64_t> all_micro_rows(const ModelWork& work) {
  std::vector<int64_t> all;
  for (int64_t micro_rows = 1; micro_rows <= work.rows; ++micro_rows)
    if (work.rows % micro_rows == 0) all.push_back(micro_rows);
  return all;
}
std::vector<int64_t> own_micro_rows(const ModelWork& work) {
  return {work.micro_rows == 0 ? work.rows : std::min(work.micro_rows, work.rows)};
}

/// With each such micro-batch, and with each way to compute again that the recipe leaves open.
std::vector<Candidate> candidates(const ModelWork& work, const DeviceMemory& readers,
                                  const std::vector<int64_t>& micro_batches, bool split_master,
                                  const DeviceRow& device) {
  std::vector<Candidate> all;
  for (const int64_t micro_rows : micro_batches)
    for (int r = 0; r < static_cast<int>(Recompute::count); ++r) {
      const DeviceSettings settings{
          .micro_rows = micro_rows, .recompute = static_cast<Recompute>(r), .split_master = split_master};
      if (settings.recompute == work.recompute.value_or(settings.recompute))
        all.push_back({settings, beside(training_memory(work, settings), readers),
                       step_time(work, settings, device, AttentionMode::fast).seconds()});
    }
  return all;
}

bool fits(const DeviceMemory& memory, double device_bytes) { return memory.total() * kMemoryMargin <= device_bytes; }

double bytes_of(const Candidate& candidate) { return candidate.memory.total(); }

/// nullopt when nothing fits.
std::optional<Candidate> choose(std::vector<Candidate> all, const DeviceRow& device) {
  std::erase_if(all, [&](const Candidate& candidate) { return !fits(candidate.memory, device.bytes); });
  if (all.empty()) return std::nullopt;
  const double fastest = std::ranges::min(all, {}, &Candidate::seconds).seconds;
  std::erase_if(all, [&](const Candidate& candidate) { return candidate.seconds > kAsFast * fastest; });
  return std::ranges::min(all, {}, bytes_of);
}

/// As plan_device's rule has it.
Candidate choose(const ModelWork& work, const DeviceMemory& readers, const std::vector<int64_t>& micro_batches,
                 const DeviceRow& device) {
  const std::optional<bool> split_master = work.split_master;
  const auto best = [&](bool split) { return choose(candidates(work, readers, micro_batches, split, device), device); };
  const std::optional<Candidate> whole = split_master.value_or(false) ? std::nullopt : best(false),
                                 split = split_master.value_or(true) ? best(true) : std::nullopt;
  if (!whole && !split)
    return std::ranges::min(candidates(work, readers, micro_batches, split_master.value_or(true), device), {},
                            bytes_of);
  return whole && (!split || whole->seconds <= kAsFast * split->seconds) ? *whole : *split;
}

void plan_training(const ModelWork& work, const DeviceRow& device, DeviceStage& stage) {
  const DeviceMemory readers = memory_of_readers(stage.cost, 1);
  const Candidate best = choose(work, readers, all_micro_rows(work), device),
                  own = choose(work, readers, own_micro_rows(work), device);
  const bool own_fits = fits(own.memory, device.bytes);
  const Candidate& chosen = own_fits && own.seconds <= kAsFast * best.seconds ? own : best;
  stage.training = chosen.settings;
  stage.own = {.settings = own.settings, .fits = own_fits, .times_as_long = own.seconds / chosen.seconds};
  stage.memory = chosen.memory;
  stage.snapshot_bytes = snapshot_bytes(work);
  const auto steps = static_cast<double>(work.steps);
  stage.seconds = steps * chosen.seconds;
  stage.repeatable_seconds = steps * step_time(work, chosen.settings, device, AttentionMode::repeatable).seconds();
  stage.tokens_per_s = tokens_of_step(work) / chosen.seconds;
  stage.mfu = stage.tokens_per_s * training_flops_per_token(work.config, work.seq_len) / device.dense_flops;
}

DeviceStage plan_stage(const StageCost& cost, const DeviceRow& device) {
  DeviceStage stage{.cost = cost};
  if (const ModelWork& first = cost.work.front(); first.rows > 0)
    plan_training(first, device, stage);
  else
    stage.memory = memory_of_readers(cost, 0);
  stage.memory.buffers += cost.device_bytes;
  stage.fits = fits(stage.memory, device.bytes);
  for (const ModelWork& work : cost.work) {
    stage.seconds += work.read_tokens * reading_seconds(work, device, AttentionMode::fast);
    stage.repeatable_seconds += work.read_tokens * reading_seconds(work, device, AttentionMode::repeatable);
  }
  return stage;
}

/// Arms and seeds of an ablation repeat much of each other's work.
bool is_same(const StageCost& a, const StageCost& b) {
  return a.name == b.name && a.kind == b.kind && a.tokens == b.tokens && a.work == b.work &&
         a.device_bytes == b.device_bytes;
}

std::string days_text(double seconds) {
  constexpr double kDay = 86'400;
  return seconds < 2 * kDay ? format_duration(seconds) : fmt::format("{:.1f} d", seconds / kDay);
}

std::string name_of(const DeviceStage& stage) {
  return stage.times == 1 ? stage.cost.name : fmt::format("{} x{}", stage.cost.name, stage.times);
}

std::string run_table(const DevicePlan& plan) {
  std::string text =
      fmt::format("{:<18} {:<12} {:>11} {:>9} {:>12} {:>10} {:>7} {:>9} {:>6} {:>10}\n", "stage", "kind", "parameters",
                  "tokens", "micro-batch", "recompute", "master", "tokens/s", "MFU", "time");
  for (const DeviceStage& stage : plan.stages) {
    const auto shown = [](bool known, std::string value) { return known ? value : std::string("-"); };
    const bool trains = stage.training.has_value();
    const DeviceSettings settings = stage.training.value_or(DeviceSettings{});
    text += fmt::format(
        "{:<18} {:<12} {:>11} {:>9} {:>12} {:>10} {:>7} {:>9} {:>6} {:>10}{}\n", name_of(stage), stage.cost.kind,
        shown(stage.cost.parameters > 0, format_count(static_cast<double>(stage.cost.parameters))),
        shown(stage.cost.tokens > 0, format_count(stage.cost.tokens)),
        shown(trains, fmt::format("{}", settings.micro_rows * stage.cost.work.front().seq_len)),
        shown(trains, recompute_name(settings.recompute)), shown(trains, settings.split_master ? "split" : "fp32"),
        shown(trains, format_count(stage.tokens_per_s)), shown(trains, fmt::format("{:.0f}%", 100 * stage.mfu)),
        shown(stage.seconds > 0, days_text(stage.seconds)), stage.fits ? "" : "  does not fit");
  }
  return text;
}

std::string memory_table(const DevicePlan& plan) {
  std::string text = fmt::format("{:<18} {:>10} {:>12} {:>10} {:>10} {:>10} {:>10} {:>10}\n", "memory", "state",
                                 "activations", "buffers", "logits", "workspace", "total", "of host");
  for (const DeviceStage& stage : plan.stages) {
    const DeviceMemory& memory = stage.memory;
    text += fmt::format("{:<18} {:>10} {:>12} {:>10} {:>10} {:>10} {:>10} {:>10}\n", name_of(stage),
                        format_bytes(memory.state), format_bytes(memory.activations), format_bytes(memory.buffers),
                        format_bytes(memory.logits), format_bytes(memory.workspace), format_bytes(memory.total()),
                        stage.snapshot_bytes > 0 ? format_bytes(stage.snapshot_bytes) : "-");
  }
  return text +
         "of host: the copy that checkpoints are written from while training goes on; without it training waits\n";
}

/// What becomes of the recipe's micro-batches where others are planned for.
std::string own_lines(const DevicePlan& plan) {
  std::string text;
  for (const DeviceStage& stage : plan.stages) {
    if (!stage.training || stage.training->micro_rows == stage.own.settings.micro_rows) continue;
    const int64_t seq_len = stage.cost.work.front().seq_len;
    text += fmt::format("{}: the recipe's micro-batch of {} tokens ", name_of(stage),
                        stage.own.settings.micro_rows * seq_len);
    text += stage.own.fits ? fmt::format("fits with recompute {}, and takes {:.2f} times as long",
                                         recompute_name(stage.own.settings.recompute), stage.own.times_as_long)
                           : std::string("is too large");
    text += stage.fits ? fmt::format("; planned with micro_batch_tokens = {}\n", stage.training->micro_rows * seq_len)
                       : std::string("\n");
  }
  return text.empty() ? "micro-batches: as the recipe has them\n" : text;
}

/// What would let a stage fit for which nothing was found.
std::string remedy(const DeviceStage& stage, const DeviceRow& device) {
  if (stage.memory.state * kMemoryMargin > device.bytes)
    return fmt::format("its parameters{} alone take {}; take a smaller model or a device with more memory",
                       stage.training ? ", gradient and optimizer" : "", format_bytes(stage.memory.state));
  return fmt::format("lower {}.{}", stage.cost.name, stage.cost.kind == "label" ? "context" : "seq_len");
}

}  // namespace

DevicePlan plan_device(const std::vector<StageCost>& stages, const DeviceRow& device) {
  DevicePlan plan{.device = &device};
  for (const StageCost& cost : stages) {
    if (cost.work.empty()) continue;
    const auto same = std::ranges::find_if(plan.stages, [&](const auto& other) { return is_same(other.cost, cost); });
    if (same != plan.stages.end())
      ++same->times;
    else
      plan.stages.push_back(plan_stage(cost, device));
  }
  return plan;
}

std::string device_table(const std::string& recipe_name, const DevicePlan& plan) {
  double seconds = 0, repeatable_seconds = 0;
  for (const DeviceStage& stage : plan.stages) {
    seconds += static_cast<double>(stage.times) * stage.seconds;
    repeatable_seconds += static_cast<double>(stage.times) * stage.repeatable_seconds;
  }
  return fmt::format(
      "{} on one {} ({}): predictions by formula, none of them measured\n\n{}\n{}\n{}\ntotal: about {} with the "
      "fastest "
      "attention, {} with attention that repeats its bits\ndevice: {}\n",
      recipe_name, plan.device->title, format_bytes(plan.device->bytes), run_table(plan), memory_table(plan),
      own_lines(plan), days_text(seconds), days_text(repeatable_seconds), plan.device->source);
}

TrainingChoice choose_training(const StageCost& cost, double free_bytes) {
  const ModelWork& work = cost.work.front();
  DeviceRow device = *find_device_row("h100");  // its rates order what fits, which any device's would
  device.bytes = free_bytes;
  const DeviceMemory readers = memory_of_readers(cost, 1);
  const Candidate chosen = choose(work, readers, own_micro_rows(work), device);
  DeviceSettings largest = chosen.settings;
  largest.recompute = work.recompute.value_or(Recompute::none);
  largest.split_master = work.split_master.value_or(false);
  const double most = beside(training_memory(work, largest), readers).total(), taken = chosen.memory.total();
  std::string why =
      fmt::format("micro-batches of {} tokens take about {} of the {} that are free",
                  chosen.settings.micro_rows * work.seq_len, format_bytes(taken), format_bytes(free_bytes));
  if (most > taken) why += fmt::format(", up to {} otherwise", format_bytes(most));
  const bool fit = fits(chosen.memory, free_bytes);
  if (!fit) why += fmt::format(": it may not fit, lower {}.micro_batch_tokens", cost.name);
  return {.settings = chosen.settings, .fits = fit, .why = why};
}

void check_fits(const DevicePlan& plan) {
  const auto largest = std::ranges::max_element(
      plan.stages, {}, [](const DeviceStage& stage) { return stage.fits ? 0 : stage.memory.total(); });
  if (largest == plan.stages.end() || largest->fits) return;
  const StageCost& cost = largest->cost;
  const std::string settings = !largest->training
                                   ? ""
                                   : fmt::format(", with {} tokens a micro-batch, recompute {} and a split master",
                                                 largest->training->micro_rows * cost.work.front().seq_len,
                                                 recompute_name(largest->training->recompute));
  throw DeviceError::out_of_memory(fmt::format("stage '{}' needs about {} of the {} on one {}{}: {}", cost.name,
                                               format_bytes(largest->memory.total()), format_bytes(plan.device->bytes),
                                               plan.device->title, settings, remedy(*largest, *plan.device)));
}

}  // namespace coppice
