#include "recipes/stages/measure_speed.h"

#include <fmt/format.h>
#include <malloc.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "recipes/folder/machine.h"
#include "recipes/stages/context.h"
#include "recipes/stages/stage_cost.h"
#include "src/base/control_groups.h"
#include "src/base/errors.h"
#include "src/base/log.h"
#include "src/base/signals.h"
#include "src/checkpoint/checkpoint.h"
#include "src/model/generate.h"
#include "src/tensors/cuda_devices.h"
#include "src/tensors/shape.h"

namespace coppice {
namespace {

constexpr int64_t kFirstId = 100, kNoEnd = -1;  // of the prompt; no id ends the text

double median(std::vector<double> values) {
  std::ranges::sort(values);
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

Json spread_json(const std::vector<double>& values) {
  const auto [low, high] = std::ranges::minmax(values);
  return {{"median", median(values)}, {"low", low}, {"high", high}};
}

std::string spread_text(const Json& spread) {
  return fmt::format("{:.1f} tokens/s ({:.1f} to {:.1f})", spread["median"].get<double>(), spread["low"].get<double>(),
                     spread["high"].get<double>());
}

struct Turns {
  std::vector<double> prefill, decode, peak_bytes;  // tokens/s, tokens/s, bytes
  double parameter_bytes = 0;
};

/// Loads, warms up, measures, and gives the memory back.
void take_turn(const std::filesystem::path& model_folder, const Placement& on, int64_t tokens, Turns& turns) {
  const LoadedModel loaded = load_model(model_folder, on);
  malloc_trim(0);  // what loading and the last model left would hide what decoding needs
  (void)take_peak_memory();
  const double before = 1024 * value_in("/proc/self/status", "VmRSS:");
  const bool on_cpu = on.device.is_cpu();
  if (!on_cpu) start_card_peak(on.device);  // at the model
  (void)time_generation(loaded.model, tokens, 2);
  const TimedGeneration timed = time_generation(loaded.model, tokens, tokens);
  turns.prefill.push_back(static_cast<double>(tokens) / timed.prefill_s);
  turns.decode.push_back(static_cast<double>(tokens - 1) / timed.decode_s);
  turns.parameter_bytes = model_bytes(loaded.model.config);
  turns.peak_bytes.push_back(on_cpu ? turns.parameter_bytes + std::max(0.0, take_peak_memory() - before)
                                    : card_memory(on.device).peak_allocated);
}

}  // namespace

TimedGeneration time_generation(const Model& model, int64_t prompt_tokens, int64_t new_tokens) {
  COPPICE_CHECK(new_tokens >= 2, fmt::format("{} new tokens: the first one ends the prompt's time", new_tokens));
  std::vector<int64_t> prompt(static_cast<size_t>(prompt_tokens));
  for (size_t i = 0; i < prompt.size(); ++i) prompt[i] = (kFirstId + static_cast<int64_t>(i)) % model.config.vocab_size;
  std::vector<double> moments = {monotonic_s()};
  TimedGeneration timed;
  timed.added = generate(model, prompt, kNoEnd, {.max_new_tokens = new_tokens}, [&](int64_t) {
    moments.push_back(monotonic_s());
    return true;  // goes on
  });
  timed.prefill_s = moments.at(1) - moments.front();
  timed.decode_s = moments.back() - moments.at(1);
  return timed;
}

Json measure_speed(StageContext& context, const std::vector<std::string>& models, int64_t tokens) {
  context.run.add_peak(context.stage.name, take_peak_memory());  // turns begin a mark of their own
  std::map<std::string, Turns> turns;
  for (int turn = 0; turn < kSpeedTurns; ++turn)
    for (const std::string& name : models) {
      if (stop_requested()) throw Stopped("stopped while measuring speed; run again to measure it anew");
      take_turn(context.model_folder(name), place(context.stage), tokens, turns[name]);
    }
  Json speeds = Json::object();
  for (const auto& [name, of] : turns) {
    speeds[name] = {{"prompt_tokens", tokens},
                    {"new_tokens", tokens},
                    {"turns", kSpeedTurns},
                    {"threads", num_threads()},
                    {"prefill_tokens_per_s", spread_json(of.prefill)},
                    {"decode_tokens_per_s", spread_json(of.decode)},
                    {"parameter_bytes", of.parameter_bytes},
                    {"peak_bytes", median(of.peak_bytes)}};
    log_info(fmt::format("{:>12}: prompt {}, decode {}, {} {}", name, spread_text(speeds[name]["prefill_tokens_per_s"]),
                         spread_text(speeds[name]["decode_tokens_per_s"]), format_bytes(median(of.peak_bytes)),
                         place(context.stage).device.is_cpu() ? "resident" : "of the card"));
  }
  return speeds;
}

}  // namespace coppice
