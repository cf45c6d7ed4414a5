// How fast models write: prompt and greedy continuation at batch 1, in turns over the models, so that a drift of the
// machine meets all of them alike. The prompt is the one that scripts/measure-llamacpp gives llama.cpp.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "src/base/json.h"
#include "src/model/decoder.h"

namespace coppice {

struct StageContext;

struct TimedGeneration {
  double prefill_s = 0, decode_s = 0;  // until the first new token, and from there to the last
  std::vector<int64_t> added;
};
/// Reads a prompt of `prompt_tokens` ids and adds `new_tokens` (at least 2) greedily, whatever they are: an end of text
/// is one more token.
TimedGeneration time_generation(const Model& model, int64_t prompt_tokens, int64_t new_tokens);

/// Per stage name of `models` {prompt_tokens, new_tokens, turns, threads, prefill_tokens_per_s and decode_tokens_per_s
/// {median, low, high} over the turns, parameter_bytes, peak_bytes: parameter_bytes and the most that decoding added to
/// what was resident, the median turn}. Holds one model at a time. Stopped when a stop is asked for.
Json measure_speed(StageContext& context, const std::vector<std::string>& models, int64_t tokens);

/// Turns of measure_speed: ranges of five that do not overlap come by chance in less than one of a hundred pairs.
inline constexpr int kSpeedTurns = 5;

}  // namespace coppice
