// One whole training step of coppice: window from the token shards, targets, forward, loss with its gradient, backward, clip, AdaStar, zeroed gradient.
// The peer is torch_train_step.py at the same shape; scripts/bench-train-step alternates the two. First loss must be near log(vocab): random tokens, fresh
// weights.
#include <ATen/core/grad_mode.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>

#include "src/base/errors.h"
#include "src/base/hdf5.h"
#include "src/base/random.h"
#include "src/data/loader.h"
#include "src/model/parameters.h"
#include "src/optim/optimizer.h"
#include "student/targets.h"
#include "tests/bench/bench.h"
#include "tests/model/reference_decoder.h"

using namespace coppice;

namespace {

/// Random tokens as shards on disk, as a run would read them.
TokenShards make_shards(const std::filesystem::path& folder, int64_t vocab_size, int64_t num_tokens) {
  TokenShardWriter writer(folder, "random", vocab_size, 2, std::string(64, '0'), uint64_t{1} << 20);
  constexpr int64_t kDocument = 1000;
  for (int64_t done = 0, document = 0; done < num_tokens; done += kDocument, ++document) {
    std::vector<int32_t> ids(kDocument - 1);
    for (size_t i = 0; i < ids.size(); ++i)
      ids[i] = static_cast<int32_t>(random_bits(1, Purpose::test, static_cast<uint64_t>(document), i) % static_cast<uint64_t>(vocab_size));
    writer.add(static_cast<uint64_t>(document), ids, ids.size());
  }
  writer.finish();
  return TokenShards(folder);
}

/// Mean next-token loss of the plain decoder in double.
double plain_loss(const Model& model, const Batch& batch) {
  const at::NoGradGuard no_grad;
  const at::Tensor logits = testing::reference_logits(model.config, testing::reference_weights(model),
                                                      {.token_BT = batch.token_BT, .position_BT = batch.position_BT, .document_BT = {}});
  return at::cross_entropy_loss(logits, batch.true_label_BT.reshape({-1}), {}, at::Reduction::Mean, kIgnoredLabel).item<double>();
}

}  // namespace

int main(int argc, char** argv) {
  const bench::Flags flags(
      argc, argv, {{"layers", 3}, {"width", 96}, {"heads", 3}, {"kv-heads", 1}, {"head-size", 32}, {"ffn", 768}, {"vocab", 512}, {"seq", 256}, {"batch", 8}});
  start_hdf5();
  const bench::Ceilings roof = bench::measure_ceilings(flags);

  ModelConfig config = preset("test", "bench");
  config.num_hidden_layers = flags["layers"], config.hidden_size = flags["width"], config.vocab_size = flags["vocab"];
  config.num_attention_heads = flags["heads"], config.num_key_value_heads = flags["kv-heads"], config.head_dim = flags["head-size"];
  config.intermediate_size.assign(static_cast<size_t>(flags["layers"]), flags["ffn"]);
  config.max_position_embeddings = flags["seq"];
  const Model model = make_model(config);
  initialise_parameters(config, *model.arena, 1);
  model.arena->enable_gradient();
  Optimizer optimizer(OptimizerOptions{.lr = 1e-4}, *model.arena, 10, 100000);

  const auto folder = std::filesystem::temp_directory_path() / ("coppice-train-step-bench-" + std::to_string(getpid()));
  const int64_t batch_tokens = flags["batch"] * flags["seq"];
  const TokenShards shards = make_shards(folder, config.vocab_size, 40 * batch_tokens + 10 * flags["seq"]);
  Loader loader({&shards}, {{.domain = "random"}}, {.seq_len = flags["seq"], .document_mask = false, .seed = 1});

  const auto step = [&] {
    const Batch batch = loader.next(flags["batch"]);
    const Targets targets = make_targets(batch, {}, {});
    const LossSums sums = train_micro_batch(model, batch, targets, {}, gradient_scale(batch.num_live));
    COPPICE_CHECK(optimizer.step(std::isfinite(sums.ce)).applied, "step skipped");
    return sums.terms(0).loss;
  };
  const Batch first = loader.next(flags["batch"]);
  const double expected = plain_loss(model, first), got = evaluate_batch(model, first, make_targets(first, {}, {.z_loss = 0})).terms(0).loss;
  bench::emit_check(flags, std::abs(got / expected - 1), 1e-5);
  for (int i = 0; i < 2; ++i) step();  // allocations

  bench::Readings readings = bench::measure(flags, {[&] { step(); }}).front();
  const double rate = static_cast<double>(batch_tokens) / readings.front().second, flops = training_flops_per_token(config, flags["seq"]);
  readings.insert(readings.end(), {{"tokens_per_s", rate},
                                   {"parameters", static_cast<double>(count_parameters(config))},
                                   {"gflops", rate * flops / 1e9},
                                   {"share_of_gemm", rate * flops / 1e9 / roof.gemm_gflops}});
  bench::emit("train_step", flags, readings);
  std::filesystem::remove_all(folder);
}
