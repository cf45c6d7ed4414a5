// What a part of the training step costs, against bars close to 1: one process alternates single steps with and without
// the part.
//   loader   a step that draws its batch, against one that is handed it
//   labels   a step on 0.9 stored teacher label + 0.1 true label, against the plain next-token step
//   sample   the same on 16 stored draws a token, nearly all of them different ids: more than a teacher's are
//   masks_P  a learn_masks step at share P of its stage (k still ramps, epsilon anneals, only the hard set counts),
//   against the plain step
// ratio = time with / time without, the median of the pairs with its 95 % interval (order statistics), and a_a_ratio:
// the plain step against itself.
//   step_pairs_bench --threads 2 --pairs 200
#include <cmath>
#include <memory>

#include "recipes/bench/mask_step.h"
#include "src/base/errors.h"
#include "src/base/hdf5.h"
#include "src/data/label_cache.h"
#include "src/data/label_cache_writer.h"
#include "src/data/teacher_signal.h"
#include "student/targets.h"
#include "tests/bench/small_training.h"

using namespace coppice;

namespace {

/// Random ids everywhere, `k` a token: what they say does not change what they cost.
LabelCache make_labels(const std::filesystem::path& folder, const TokenShards& shards, const std::string& tier,
                       int64_t k) {
  const LabelFingerprint fingerprint{.teacher_sha256 = std::string(64, '1'),
                                     .tokenizer_sha256 = std::string(64, '0'),
                                     .vocab_size = shards.vocab_size(),
                                     .token_manifest_sha256 = shards.manifest_sha256(),
                                     .tier = tier,
                                     .k = k,
                                     .context = 256,
                                     .overlap = 64};
  LabelCacheWriter writer(folder, shards, fingerprint);
  for (size_t shard = 0; shard < shards.shards().size(); ++shard) {
    ShardLabels labels(shards.shards()[shard].tokens, fingerprint);
    for (size_t i = 0; i < labels.id.size(); ++i)
      labels.id[i] =
          static_cast<int32_t>(random_bits(2, Purpose::test, shard, i) % static_cast<uint64_t>(shards.vocab_size()));
    writer.write(shard, labels);
  }
  return LabelCache(folder, shards, fingerprint);
}

}  // namespace

int main(int argc, char** argv) {
  auto defaults = bench::kTrainingFlags;
  defaults.insert(defaults.begin(), {"pairs", 200});
  const bench::Flags flags(argc, argv, defaults);
  start_hdf5();
  bench::measure_ceilings(flags);
  bench::SmallTraining training(flags);
  const Model& model = training.model;
  const LabelCache labels = make_labels(training.folder / "labels", training.shards, "top1", 1),
                   draws = make_labels(training.folder / "draws", training.shards, "sample", 16);
  const Batch fixed = training.loader.next(flags["batch"]);

  const auto step = [&](const Batch& batch, const Targets& targets, const DecoderMasks& masks) {
    const StepSums sums = train_micro_batch(model, batch, targets, masks, gradient_scale(batch.num_live));
    StepVote vote;
    vote.count_finite(sums.values());
    COPPICE_CHECK(training.optimizer.step(*alone(), vote).applied, "step skipped");
  };
  const auto plain = [&] {
    const Batch batch = training.loader.next(flags["batch"]);
    step(batch, make_targets(batch, {}, {}), {});
  };
  const auto handed = [&] { step(fixed, make_targets(fixed, {}, {}), {}); };
  const auto labelled = [&] {
    const Batch batch = training.loader.next(flags["batch"]);
    step(batch, make_targets(batch, lookup_labels({&labels}, batch), {}), {});
  };
  const auto sampled = [&] {
    const Batch batch = training.loader.next(flags["batch"]);
    const TeacherSignal signal = stored_signal({&draws}, batch, {.loss = "sample", .hidden_layers = {}}, false);
    step(batch, distillation_targets(batch, signal, {.loss = "sample"}), {});
  };
  std::vector<std::unique_ptr<bench::MaskStep>> mask_steps;
  const auto masked = [&](double p) -> std::function<void()> {
    mask_steps.push_back(
        std::make_unique<bench::MaskStep>(at::randn({flags["layers"], flags["ffn"]}), flags["ffn"] / 3, p));
    return [&, step = mask_steps.back().get()] {
      step->run(training.model, training.optimizer, training.loader.next(flags["batch"]));
    };
  };
  const Batch check = training.loader.next(flags["batch"]);
  const double
      both =
          evaluate_batch(model, check, make_targets(check, check.true_label_BT, {.teacher_weight = 0.9, .z_loss = 0}))
              .terms()
              .loss,
      alone = evaluate_batch(model, check, make_targets(check, {}, {.teacher_weight = 0, .z_loss = 0})).terms().loss;
  bench::emit_check(flags, std::abs(both / alone - 1), 1e-6);  // labels equal to the truth are plain cross-entropy

  struct Case {
    const char* name;
    std::function<void()> without, with;
  };
  for (const Case& part : {Case{"loader", handed, plain}, Case{"labels", plain, labelled},
                           Case{"sample", plain, sampled}, Case{"masks_0.1", plain, masked(0.1)},
                           Case{"masks_0.5", plain, masked(0.5)}, Case{"masks_0.95", plain, masked(0.95)}}) {
    for (int i = 0; i < 3; ++i) part.without(), part.with();
    std::vector<double> ratio, same, seconds_without;
    for (int64_t pair = 0; pair < flags["pairs"]; ++pair) {
      const bool first = pair % 2 == 0;  // who goes first changes from pair to pair
      double with = first ? bench::seconds(part.with) : 0;
      const double without = bench::seconds(part.without);
      if (!first) with = bench::seconds(part.with);
      ratio.push_back(with / without);
      same.push_back(bench::seconds(part.without) / without);
      seconds_without.push_back(without);
    }
    bench::Readings readings = bench::interval(ratio, "ratio");
    for (const auto& reading : bench::interval(same, "a_a_ratio")) readings.push_back(reading);
    readings.push_back({"median_s", bench::quantile(seconds_without, 0.5)});
    bench::emit(part.name, flags, readings);
  }
}
