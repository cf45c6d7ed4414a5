#include "recipes/compress/schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "recipes/stages/measure_speed.h"
#include "src/base/errors.h"
#include "src/base/log.h"
#include "src/evaluate/copying.h"
#include "src/model/parameters.h"

namespace coppice {
namespace {

constexpr int64_t kLeastSteps = 16, kLooks = 4;
constexpr double kMasksPerRecovery = 0.75, kAim = 0.97, kCheckpointSeconds = 300, kMostEpochs = 16;
constexpr double kDiskBytes = 2.5e8;      // a second: written with fsync, or read and hashed
constexpr double kCacheBytes = 1e9;       // a second: a file that has just been read, read again
constexpr double kStepSeconds = 0.004;    // the journal's line
constexpr double kStageSeconds = 0.1;     // folders, manifests, the report after it
constexpr double kCheckTokens = 6 * 512;  // held-out passes of a prune stage
constexpr double kStateTensors = 3;       // of a checkpoint: weights and two slots

/// Small steps while there are few tokens: what counts is that there are steps at all.
int64_t batch_tokens_for(int64_t tokens, const BatchShape& shape) {
  const int64_t wanted = tokens <= 250'000 ? 1024 : tokens <= 2'000'000 ? 2048 : tokens <= 20'000'000 ? 8192 : 32768;
  return std::max<int64_t>(1, wanted / shape.micro_batch_tokens) * shape.micro_batch_tokens;
}

int64_t in_units(double value, int64_t unit, int64_t least, int64_t most) {
  const auto rounded = static_cast<int64_t>(std::round(value / static_cast<double>(unit))) * unit;
  return std::clamp(rounded, (least + unit - 1) / unit * unit, std::max(unit, most / unit * unit));
}

/// Steps between `count` events of a stage at least, the last of them at its end.
int64_t steps_between(int64_t steps, int64_t count) { return std::max<int64_t>(1, (steps + count - 1) / count); }

int64_t checkpoints_in(double seconds) {
  return std::max<int64_t>(1, static_cast<int64_t>(std::ceil(seconds / kCheckpointSeconds)));
}

/// Looks at held-out text: the last step has one, and the model that is left one more.
double looks(int64_t steps, int64_t every) { return static_cast<double>((steps + every - 1) / every + 1); }

double checkpoints(int64_t steps, int64_t every) { return static_cast<double>(steps / every); }

}  // namespace

BatchShape batch_shape(const ModelConfig& source, int64_t longest) {
  constexpr int64_t kSeqLen = 256, kTopK = 64;
  constexpr double kHeavy = 2e9;  // FLOPs a token: one sequence keeps a GEMM busy, and memory counts
  const int64_t seq_len = std::min(kSeqLen, longest);
  return {.seq_len = seq_len,
          .micro_batch_tokens = training_flops_per_token(source, seq_len) > kHeavy ? seq_len : 2 * seq_len,
          .top_k = std::min(kTopK, source.vocab_size / 4)};
}

int64_t least_tokens(const BatchShape& shape) { return kLeastSteps * batch_tokens_for(0, shape); }

Schedule schedule_for(int64_t tokens, const BatchShape& shape, const CompressSpeeds& speeds) {
  Schedule schedule{.shape = shape, .batch_tokens = batch_tokens_for(tokens, shape)};
  const auto batch = static_cast<double>(schedule.batch_tokens), asked = static_cast<double>(tokens);
  const auto whole_steps = [&](double count) { return std::max<int64_t>(1, std::llround(count / batch)); };
  const int64_t steps = whole_steps(asked), mask_steps = whole_steps(kMasksPerRecovery * asked);
  schedule.tokens = steps * schedule.batch_tokens;
  schedule.mask_tokens = mask_steps * schedule.batch_tokens;
  const auto masks = static_cast<double>(schedule.mask_tokens);
  schedule.calibration_tokens = in_units(masks / 8, 2048, 2048, 65536);
  schedule.eval_tokens = in_units(masks / 48, shape.seq_len, 1024, 65536);
  schedule.scored_tokens = in_units(asked / 5, shape.seq_len, 2048, 262144);
  schedule.mask_eval_steps = steps_between(mask_steps, kLooks);
  schedule.eval_steps = steps_between(steps, kLooks);
  schedule.mask_checkpoint_steps = steps_between(mask_steps, checkpoints_in(masks * speeds.mask_s));
  schedule.checkpoint_steps = steps_between(steps, checkpoints_in(asked * speeds.train_s));
  return schedule;
}

std::vector<StageSeconds> seconds_of_stages(const Schedule& s, const CompressSpeeds& speeds, const CompressWork& work) {
  const auto disk = [](double bytes) { return bytes / kDiskBytes; };
  const auto tokens = [](int64_t count) { return static_cast<double>(count); };
  const double calibration = tokens(s.calibration_tokens) * speeds.source_s, micro = tokens(s.shape.micro_batch_tokens);
  const double cut = kCheckTokens * speeds.source_s + disk(work.source_bytes + work.student_bytes);
  // calibration twice (the start, the overlap); a look costs three passes: soft, cut, random
  const double masks =
      2 * calibration + (tokens(s.mask_tokens) + 2 * micro) * speeds.mask_s +
      tokens(s.mask_steps()) * (speeds.mask_step_s + kStepSeconds) +
      3 * looks(s.mask_steps(), s.mask_eval_steps) * tokens(s.eval_tokens) * speeds.source_s +
      disk((2 + kStateTensors * checkpoints(s.mask_steps(), s.mask_checkpoint_steps)) * work.source_bytes);
  const double core = (tokens(s.tokens) + 2 * micro) * speeds.train_s +
                      tokens(s.steps()) * (speeds.train_step_s + kStepSeconds) +
                      looks(s.steps(), s.eval_steps) * tokens(s.eval_tokens) * speeds.student_s +
                      disk((2 + kStateTensors * checkpoints(s.steps(), s.checkpoint_steps)) * work.student_bytes);
  // how fast they write: each model is loaded for each turn, and each new token reads all of its weights
  const double written = kSpeedTurns * (work.source_bytes + 3 * work.student_bytes) *
                         (1 / kCacheBytes + static_cast<double>(kSpeedTokens) * speeds.weight_byte_s);
  const double scores =
      written + tokens(s.scored_tokens) * (speeds.source_score_s + speeds.label_s + 3 * speeds.student_score_s) +
      copying_tokens(s.shape.seq_len) * (speeds.source_s + 3 * speeds.student_s) +
      disk(work.source_bytes + 3 * work.student_bytes);
  std::vector<StageSeconds> stages = {
      {"data", work.text_s},
      {"dense", disk(3 * work.source_bytes)},  // hashed, read, written
      {"masks", masks},
      {"pruned", cut},
      {"cut_activation", cut + calibration},
      {"labels", std::min(tokens(s.tokens), work.text_tokens) * speeds.label_s + disk(work.source_bytes)},
      {"core", core},
      {"scores", scores},
      {"release", work.num_formats * disk(3 * work.student_bytes)}};
  for (StageSeconds& stage : stages) stage.seconds += kStageSeconds;
  return stages;
}

double total_seconds(const std::vector<StageSeconds>& stages) {
  double seconds = 0;
  for (const StageSeconds& stage : stages) seconds += stage.seconds;
  return seconds;
}

Schedule schedule_for_hours(double hours, const BatchShape& shape, const CompressSpeeds& speeds,
                            const CompressWork& work) {
  const double most = kAim * 3600 * hours - speeds.measured_in_s;
  const auto seconds = [&](int64_t tokens) {
    return total_seconds(seconds_of_stages(schedule_for(tokens, shape, speeds), speeds, work));
  };
  int64_t below = least_tokens(shape), above = below;
  if (const double least = seconds(below); least > most) {
    const double enough = (least + speeds.measured_in_s) / kAim;
    throw UserError::recipe(
        "--hours",
        fmt::format("got {} ({}), expected at least {:.2f}: the shortest sensible run, {} tokens of recovery "
                    "and three quarters as many of masks, takes {} here, of which {} are not learning",
                    hours, format_duration(3600 * hours), std::ceil(enough / 36 + 0.5) / 100, below,
                    format_duration(enough), format_duration(seconds(1))));
  }
  while (seconds(above) <= most && above < int64_t{1} << 50) above *= 2;
  while (above - below > shape.seq_len) {
    const int64_t middle = below + (above - below) / 2;
    (seconds(middle) <= most ? below : above) = middle;
  }
  return schedule_for(below, shape, speeds);
}

double check_epochs(const Schedule& schedule, double text_tokens) {
  const double epochs = static_cast<double>(schedule.tokens) / text_tokens;
  if (epochs > kMostEpochs)
    throw UserError::recipe(
        "--text", fmt::format("its about {} tokens would be read {:.0f} times in {} tokens of recovery, "
                              "expected at most {:.0f} times: bring more text, or ask for less with --tokens",
                              format_count(text_tokens), epochs, format_count(static_cast<double>(schedule.tokens)),
                              kMostEpochs));
  return epochs;
}

}  // namespace coppice
