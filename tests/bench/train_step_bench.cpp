// One whole training step of coppice: window from the token shards, targets, forward, loss with its gradient, backward,
// clip, AdaStar, zeroed gradient. The peer is torch_train_step.py at the same shape; scripts/bench-train-step
// alternates the two. First loss must be near log(vocab): random tokens, fresh weights.
#include <ATen/core/grad_mode.h>

#include <cmath>

#include "src/base/errors.h"
#include "src/base/hdf5.h"
#include "student/targets.h"
#include "tests/bench/small_training.h"
#include "tests/model/reference_decoder.h"

using namespace coppice;

namespace {

/// Mean next-token loss of the plain decoder in double.
double plain_loss(const Model& model, const Batch& batch) {
  const at::NoGradGuard no_grad;
  const at::Tensor logits =
      testing::reference_logits(model.config, testing::reference_weights(model),
                                {.token_BT = batch.token_BT, .position_BT = batch.position_BT, .document_BT = {}});
  return at::cross_entropy_loss(logits, batch.true_label_BT.reshape({-1}), {}, at::Reduction::Mean, kIgnoredLabel)
      .item<double>();
}

}  // namespace

int main(int argc, char** argv) {
  const bench::Flags flags(argc, argv, bench::kTrainingFlags);
  start_hdf5();
  const bench::Ceilings roof = bench::measure_ceilings(flags);
  bench::SmallTraining training(flags);
  const Model& model = training.model;

  const auto step = [&] {
    const Batch batch = training.loader.next(flags["batch"]);
    const Targets targets = make_targets(batch, {}, {});
    const StepSums sums = train_micro_batch(model, batch, targets, {}, gradient_scale(batch.num_live));
    StepVote vote;
    vote.count_finite(sums.values());
    COPPICE_CHECK(training.optimizer.step(*alone(), vote).applied, "step skipped");
    return sums.read().terms().loss;
  };
  const Batch first = training.loader.next(flags["batch"]);
  const double expected = plain_loss(model, first),
               got = evaluate_batch(model, first, make_targets(first, {}, {.z_loss = 0})).terms().loss;
  bench::emit_check(flags, std::abs(got / expected - 1), 1e-5);
  for (int i = 0; i < 2; ++i) step();  // allocations

  bench::Readings readings = bench::measure(flags, {[&] { step(); }}).front();
  const double rate = static_cast<double>(training.batch_tokens) / readings.front().second,
               flops = training_flops_per_token(model.config, flags["seq"]);
  readings.insert(readings.end(), {{"tokens_per_s", rate},
                                   {"parameters", static_cast<double>(count_parameters(model.config))},
                                   {"gflops", rate * flops / 1e9},
                                   {"share_of_gemm", rate * flops / 1e9 / roof.gemm_gflops}});
  bench::emit("train_step", flags, readings);
}
