// What compaction saves: a learn_masks step at the end of its stage, at full width and after the dead channels have
// left the model, alternating in one process; and the plain step at full width beside both. Of F channels a third is
// kept. ratio = full width / compacted (tokens a second gained), the median of the pairs with its 95 % interval;
// a_a_ratio: the full-width step against itself; flop_ratio: what the formulas promise.
//   compaction_bench --threads 2 --pairs 200
//   compaction_bench --threads 2 --pairs 200 --layers 6 --width 512 --heads 8 --kv-heads 2 --head-size 64 --ffn 2048
//   --batch 2
#include "recipes/bench/mask_step.h"
#include "src/model/parameters.h"
#include "tests/bench/small_training.h"

using namespace coppice;
using namespace coppice::bench;

int main(int argc, char** argv) {
  auto defaults = kTrainingFlags;
  defaults.insert(defaults.begin(), {"pairs", 200});
  const Flags flags(argc, argv, defaults);
  at::manual_seed(0);
  measure_ceilings(flags);
  SmallTraining training(flags);
  const int64_t layers = flags["layers"], channels = flags["ffn"],
                kept = channels / 3 / 16 * 16;  // whole vectors, as compaction keeps them
  const ModelConfig wide = training.model.config;

  Model narrow = make_model(wide);
  initialise_parameters(wide, *narrow.arena, 1);
  narrow.arena->enable_gradient();
  Optimizer narrow_optimizer(OptimizerOptions{.lr = 1e-4}, *narrow.arena, 10, 1000000);
  constexpr double kShare = 0.95;  // decided: channels outside the hard set are at 0
  const at::Tensor noise_LF = at::randn({layers, channels}),
                   start_LF = 0.1 * noise_LF + hard_top_k(noise_LF, kept);  // the kept ones well above the others
  MaskStep full(start_LF, kept, kShare), compacted(start_LF, kept, kShare, 1);
  const auto batch = [&] { return training.loader.next(flags["batch"]); };
  for (int i = 0; i < 3; ++i) {
    compacted.run(narrow, narrow_optimizer, batch());
    compacted.compact(narrow, narrow_optimizer);
  }
  double width = 0;
  for (const int64_t w : narrow.config.intermediate_size) width += static_cast<double>(w) / static_cast<double>(layers);
  emit_check(flags, std::abs(width / static_cast<double>(kept) - 1), 1e-6);

  const auto plain_step = [&] {
    const Batch drawn = batch();
    const StepSums sums =
        train_micro_batch(training.model, drawn, make_targets(drawn, {}, {}), {}, gradient_scale(drawn.num_live));
    StepVote vote;
    vote.count_finite(sums.values());
    COPPICE_CHECK(training.optimizer.step(*alone(), vote).applied, "step skipped");
  };
  const auto full_step = [&] { full.run(training.model, training.optimizer, batch()); };
  const auto compacted_step = [&] { compacted.run(narrow, narrow_optimizer, batch()); };
  for (int i = 0; i < 3; ++i) plain_step(), full_step(), compacted_step();
  std::vector<double> ratio, same, plain_ratio, full_s, compacted_s;
  for (int64_t pair = 0; pair < flags["pairs"]; ++pair) {
    const bool first = pair % 2 == 0;  // who goes first changes from pair to pair
    double narrow_s = first ? seconds(compacted_step) : 0;
    const double wide_s = seconds(full_step);
    if (!first) narrow_s = seconds(compacted_step);
    ratio.push_back(wide_s / narrow_s);
    same.push_back(seconds(full_step) / wide_s);
    plain_ratio.push_back(seconds(plain_step) / narrow_s);
    full_s.push_back(wide_s), compacted_s.push_back(narrow_s);
  }
  const auto tokens = static_cast<double>(training.batch_tokens);
  Readings readings = interval(ratio, "ratio");
  for (const auto& part : {interval(same, "a_a_ratio"), interval(plain_ratio, "plain_ratio")})
    readings.insert(readings.end(), part.begin(), part.end());
  readings.insert(readings.end(), {{"flop_ratio", training_flops_per_token(wide, flags["seq"]) /
                                                      training_flops_per_token(narrow.config, flags["seq"])},
                                   {"kept", static_cast<double>(kept)},
                                   {"full_tokens_per_s", tokens / quantile(full_s, 0.5)},
                                   {"compacted_tokens_per_s", tokens / quantile(compacted_s, 0.5)}});
  emit("compaction", flags, readings);
}
