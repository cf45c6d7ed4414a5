// The label stage's inner loop - windows read and prepared while the last batch computes, forward pass, choices -
// beside the bare matrix products of the same forward pass. share_of_gemm is that of the ceiling of this run,
// ratio_to_products how near the loop comes to its own products alone. store_*: with the label file, read back and
// hashed; store_used of every fourth window alone: its tokens_per_s beside store_all's is what scattered labels cost
// more.
//   label_bench --layers 4 --width 512 --heads 8 --kv-heads 2 --head-size 64 --ffn 1536 --vocab 16384 --context 256
//   --batch-tokens 8192 --tokens 32768 --top-k 64 --draws 16
#include <ATen/core/grad_mode.h>

#include <filesystem>

#include "src/base/hdf5.h"
#include "src/data/label_cache_writer.h"
#include "src/tensors/ops.h"
#include "teacher/label.h"
#include "tests/bench/small_training.h"

using namespace coppice;
using namespace coppice::bench;

namespace {

/// y = x W^T for every weight of the model and the output table, on batches of `batch_tokens`: what no labelling can do
/// without.
void run_products(const ModelConfig& config, int64_t tokens, int64_t batch_tokens, int64_t layers) {
  static std::vector<std::pair<at::Tensor, at::Tensor>> products;
  if (products.empty()) {
    const int64_t D = config.hidden_size, HK = config.num_attention_heads * config.head_dim,
                  GK = config.num_key_value_heads * config.head_dim, F = config.intermediate_size[0];
    for (const auto& [out, in] : {std::pair{HK + 2 * GK, D}, {D, HK}, {2 * F, D}, {D, F}, {config.vocab_size, D}})
      products.emplace_back(at::randn({out, in}), at::randn({batch_tokens, in}));
  }
  constexpr int64_t kChunk = 320;  // of logits
  for (int64_t done = 0; done < tokens; done += batch_tokens) {
    for (int64_t layer = 0; layer < layers; ++layer)
      for (size_t i = 0; i < 4; ++i) products[i].second.mm(products[i].first.t());
    const auto& [head, hidden] = products[4];
    for (int64_t first = 0; first < batch_tokens; first += kChunk)
      hidden.narrow(0, first, std::min(kChunk, batch_tokens - first)).mm(head.t());
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::pair<std::string, int64_t>> defaults = kTrainingFlags;
  defaults.insert(defaults.end(),
                  {{"context", 256}, {"batch-tokens", 8192}, {"tokens", 32768}, {"top-k", 64}, {"draws", 16}});
  const Flags flags(argc, argv, defaults);
  start_hdf5();
  const Ceilings roof = measure_ceilings(flags);
  const std::filesystem::path folder =
      std::filesystem::temp_directory_path() / ("coppice-bench-" + std::to_string(getpid()));
  {
    const ModelConfig config = SmallTraining::shape(flags);
    Model teacher = make_model(config);
    initialise_parameters(config, *teacher.arena, 1);
    const TokenShards shards = make_shards(folder, config.vocab_size, flags["tokens"]);
    const LabelRule rule{
        .window_rule = "aligned", .context = flags["context"], .overlap = 0, .batch_tokens = flags["batch-tokens"]};
    const uint64_t tokens = shards.shards()[0].tokens;
    const LabelFingerprint top_1_tier{.vocab_size = config.vocab_size},
        top_k_tier{.vocab_size = config.vocab_size, .tier = "topk", .k = flags["top-k"]},
        sample_tier{.vocab_size = config.vocab_size, .tier = "sample", .k = flags["draws"]},
        hybrid_tier{.vocab_size = config.vocab_size, .tier = "hybrid", .k = flags["draws"], .draws = flags["draws"]};
    LabelFingerprint coded_tier = top_k_tier;
    coded_tier.code = "q8";
    const auto label = [&](const LabelFingerprint& tier) {
      return label_shard_tier(teacher, shards, 0, rule, tier, {});
    };
    TokenRuns used;
    for (uint64_t begin = 0; begin < tokens; begin += 4 * static_cast<uint64_t>(rule.context))
      used.push_back({begin, std::min(tokens, begin + static_cast<uint64_t>(rule.context))});
    const auto store = [&](const TokenRuns& wanted, const LabelFingerprint& tier) {
      std::filesystem::remove_all(folder / "labels");
      LabelCacheWriter(folder / "labels", shards, tier)
          .write(0, label_shard_tier(teacher, shards, 0, rule, tier, {}, wanted));
    };

    // the first window's labels are the argmax of its logits
    const ShardLabels labels = label(top_1_tier);
    at::Tensor token_BT = at::empty({1, flags["context"]}, at::kLong);
    shards.read(0, 0, static_cast<uint64_t>(flags["context"]), token_BT.mutable_data_ptr<int64_t>());
    const at::NoGradGuard no_grad;
    const at::Tensor best = decoder_logits(teacher, {.token_BT = token_BT,
                                                     .position_BT = at::arange(flags["context"]).unsqueeze(0),
                                                     .document_BT = {}})
                                .argmax(1);
    double wrong = 0;
    for (int64_t i = 0; i < flags["context"]; ++i)
      wrong += labels.id[static_cast<size_t>(i)] != best[i].item<int64_t>();
    emit_check(flags, wrong, static_cast<double>(labels.near_ties));

    struct Case {
      const char* name;
      std::function<void()> action;
      uint64_t tokens;
    };
    const std::vector<Case> cases = {
        {"products",
         [&] { run_products(config, static_cast<int64_t>(tokens), flags["batch-tokens"], flags["layers"]); }, tokens},
        {"label_top_1", [&] { label(top_1_tier); }, tokens},
        {"label_top_k", [&] { label(top_k_tier); }, tokens},
        {"label_sample", [&] { label(sample_tier); }, tokens},
        {"label_hybrid", [&] { label(hybrid_tier); }, tokens},
        {"store_all",
         [&] {
           store({{0, tokens}}, top_k_tier);
         },
         tokens},
        {"store_coded",
         [&] {
           store({{0, tokens}}, coded_tier);
         },
         tokens},
        {"store_used", [&] { store(used, top_k_tier); }, count_tokens(used)}};
    std::vector<std::function<void()>> actions;
    for (const Case& measured : cases) actions.push_back(measured.action);
    const auto readings = measure(flags, actions);
    for (size_t i = 0; i < cases.size(); ++i) {
      Readings line = readings[i];
      const double seconds = line[0].second, labelled = static_cast<double>(cases[i].tokens),
                   share = labelled / static_cast<double>(tokens);
      const double gflops = forward_flops_per_token(config, flags["context"]) * labelled / seconds / 1e9;
      line.insert(line.end(), {{"tokens_per_s", labelled / seconds},
                               {"gflops", gflops},
                               {"share_of_gemm", gflops / roof.gemm_gflops},
                               {"ratio_to_products", share * readings[0][0].second / seconds}});
      emit(cases[i].name, flags, line);
    }
  }
  std::filesystem::remove_all(folder);
}
