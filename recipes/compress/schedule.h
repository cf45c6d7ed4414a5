// How many tokens a compression learns from, and how long that takes: from measured speeds to the numbers that are
// frozen in its recipe. Pure arithmetic; nothing here looks at a clock.
//   masks : recovery = 3 : 4 tokens; every token of the recovery is labelled
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "recipes/compress/speeds.h"

namespace coppice {

inline constexpr int64_t kSpeedTokens = 32;  // of a prompt, and as many new ones: how fast the models write

struct Schedule {
  BatchShape shape;
  int64_t batch_tokens = 0;
  int64_t mask_tokens = 0, tokens = 0;  // of the masks; of the recovery
  int64_t calibration_tokens = 0;       // of the score that masks start from, and of the one-shot cut
  int64_t eval_tokens = 0, scored_tokens = 0;
  // Steps from one look at held-out text, or one checkpoint, to the next.
  int64_t mask_eval_steps = 0, eval_steps = 0, mask_checkpoint_steps = 0, checkpoint_steps = 0;

  int64_t mask_steps() const { return mask_tokens / batch_tokens; }
  int64_t steps() const { return tokens / batch_tokens; }
};

/// What a run takes besides tokens.
struct CompressWork {
  double source_bytes = 0, student_bytes = 0;  // float32
  double text_s = 0;                           // reading, hashing and tokenizing the text
  double text_tokens = 0;
  double num_formats = 1;
};

struct StageSeconds {
  std::string stage;  // of the recipe; "data" for the first one
  double seconds = 0;
};

/// The micro-batches that a model is trained in: sequences of 256 tokens, or as long as it can see, one or two at once.
BatchShape batch_shape(const ModelConfig& source, int64_t longest);
/// The whole schedule of `tokens` tokens of recovery, rounded to steps; checkpoints about five minutes apart.
Schedule schedule_for(int64_t tokens, const BatchShape& shape, const CompressSpeeds& speeds);
/// Tokens of the shortest recovery that is still one: 16 steps.
int64_t least_tokens(const BatchShape& shape);
/// Seconds of each stage of the recipe, in its order.
std::vector<StageSeconds> seconds_of_stages(const Schedule& schedule, const CompressSpeeds& speeds,
                                            const CompressWork& work);
double total_seconds(const std::vector<StageSeconds>& stages);
/// The longest schedule that takes no more than 0.97 of `hours`, measuring included. UserError::recipe("--hours") with
/// the least that would do where not even the shortest does.
Schedule schedule_for_hours(double hours, const BatchShape& shape, const CompressSpeeds& speeds,
                            const CompressWork& work);
/// Refuses (UserError::recipe) text that would be read more than 16 times. Returns how often the recovery reads it.
double check_epochs(const Schedule& schedule, double text_tokens);

}  // namespace coppice
