// What a part of the training step costs, against bars close to 1: one process alternates single steps with and without the part.
//   loader   a step that draws its batch, against one that is handed it
//   labels   a step on 0.9 stored teacher label + 0.1 true label, against the plain next-token step
//   masks    a learn_masks step (Soft-Top-K, masked FFN, its backward, score update, health), against the plain step
// ratio = time with / time without, the median of the pairs with its 95 % interval (order statistics), and a_a_ratio: the plain step against itself.
//   step_pairs_bench --threads 2 --pairs 200
#include <cmath>

#include "pruning/mask_health.h"
#include "pruning/mask_methods.h"
#include "pruning/soft_masks.h"
#include "src/base/errors.h"
#include "src/base/hdf5.h"
#include "src/data/label_cache.h"
#include "student/targets.h"
#include "tests/bench/small_training.h"

using namespace coppice;

namespace {

/// The true next token as label everywhere: what it says does not change what it costs.
LabelCache make_labels(const std::filesystem::path& folder, const TokenShards& shards) {
  const LabelFingerprint fingerprint{.teacher_sha256 = std::string(64, '1'),
                                     .tokenizer_sha256 = std::string(64, '0'),
                                     .vocab_size = shards.vocab_size(),
                                     .token_manifest_sha256 = shards.manifest_sha256(),
                                     .context = 256,
                                     .overlap = 64};
  LabelCacheWriter writer(folder, shards, fingerprint);
  for (size_t shard = 0; shard < shards.shards().size(); ++shard) {
    std::vector<int32_t> label(shards.shards()[shard].tokens);
    for (size_t i = 0; i < label.size(); ++i)
      label[i] = static_cast<int32_t>(random_bits(2, Purpose::test, shard, i) % static_cast<uint64_t>(shards.vocab_size()));
    writer.write(shard, label);
  }
  return LabelCache(folder, shards, fingerprint);
}

/// Median of paired ratios with the order statistics that enclose it with 95 % confidence.
bench::Readings interval(const std::vector<double>& ratios, const std::string& name) {
  const auto n = static_cast<double>(ratios.size());
  const double half = 0.98 * std::sqrt(n) / n;  // 1.96 standard deviations of a binomial(n, 1/2), as a share of n
  return {{name, bench::quantile(ratios, 0.5)},
          {name + "_low", bench::quantile(ratios, std::max(0.0, 0.5 - half))},
          {name + "_high", bench::quantile(ratios, std::min(1.0, 0.5 + half))}};
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
  const LabelCache labels = make_labels(training.folder / "labels", training.shards);
  const Batch fixed = training.loader.next(flags["batch"]);

  const auto step = [&](const Batch& batch, const Targets& targets, const FfnMasks& masks) {
    const LossSums sums = train_micro_batch(model, batch, targets, masks, gradient_scale(batch.num_live));
    COPPICE_CHECK(training.optimizer.step(std::isfinite(sums.ce)).applied, "step skipped");
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
  const int64_t channels = flags["ffn"], kept = channels / 3;
  const MaskBudget budget{.num_kept = kept};
  const auto learned = find_mask_method("soft_top_k", "")
                           .make({.options = {},
                                  .num_layers = flags["layers"],
                                  .num_channels = channels,
                                  .budget = budget,
                                  .warmup_steps = 10,
                                  .num_steps = 1000000,
                                  .seed = 1,
                                  .start_LF = {}});
  const at::Tensor& raw_LF = learned->scores();
  const auto masked = [&] {  // half way through a mask stage: nothing is free yet, nothing decided
    const MaskMoment moment{.step = 0, .schedule = mask_schedule({}, 0.5, channels, kept)};
    raw_LF.set_requires_grad(true);
    const StepMask trained = learned->training_mask(moment);
    const at::Tensor mask_LF = trained.mask_LF.detach().set_requires_grad(true);
    const Batch batch = training.loader.next(flags["batch"]);
    step(batch, make_targets(batch, {}, {}), masks_of(mask_LF));
    const at::Tensor grad_LF = learned->score_gradient(trained.mask_LF, mask_LF.grad(), {});
    raw_LF.set_requires_grad(false);
    mask_health(
        {.soft_LF = trained.plain_LF, .raw_LF = raw_LF, .hard_LF = hard_choice(raw_LF, budget), .k = moment.schedule.k, .epsilon = moment.schedule.epsilon});
    learned->step(grad_LF, moment);
  };
  const Batch check = training.loader.next(flags["batch"]);
  const double both = evaluate_batch(model, check, make_targets(check, check.true_label_BT, {.teacher_weight = 0.9, .z_loss = 0})).terms(0.9).loss,
               alone = evaluate_batch(model, check, make_targets(check, {}, {.teacher_weight = 0, .z_loss = 0})).terms(0).loss;
  bench::emit_check(flags, std::abs(both / alone - 1), 1e-6);  // labels equal to the truth are plain cross-entropy

  struct Case {
    const char* name;
    std::function<void()> without, with;
  };
  for (const Case& part : {Case{"loader", handed, plain}, Case{"labels", plain, labelled}, Case{"masks", plain, masked}}) {
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
    bench::Readings readings = interval(ratio, "ratio");
    for (const auto& reading : interval(same, "a_a_ratio")) readings.push_back(reading);
    readings.push_back({"median_s", bench::quantile(seconds_without, 0.5)});
    bench::emit(part.name, flags, readings);
  }
}
