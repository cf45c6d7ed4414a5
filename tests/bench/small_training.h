// A model of flag-given shape, its optimizer, and random tokens as shards on disk: what the benchmarks of whole
// training steps share.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <string>

#include "src/base/random.h"
#include "src/data/loader.h"
#include "src/model/parameters.h"
#include "src/optim/optimizer.h"
#include "src/tokens/token_shard_writer.h"
#include "tests/bench/bench.h"

namespace coppice::bench {

inline const std::vector<std::pair<std::string, int64_t>> kTrainingFlags = {
    {"layers", 3}, {"width", 96},  {"heads", 3}, {"kv-heads", 1}, {"head-size", 32},
    {"ffn", 768},  {"vocab", 512}, {"seq", 256}, {"batch", 8}};

/// Random tokens as shards on disk, as a run would read them.
inline TokenShards make_shards(const std::filesystem::path& folder, int64_t vocab_size, int64_t num_tokens) {
  TokenShardWriter writer(folder, "random", vocab_size, 2, std::string(64, '0'), uint64_t{1} << 20);
  constexpr int64_t kDocument = 1000;
  for (int64_t done = 0, document = 0; done < num_tokens; done += kDocument, ++document) {
    std::vector<int32_t> ids(kDocument - 1);
    for (size_t i = 0; i < ids.size(); ++i)
      ids[i] = static_cast<int32_t>(random_bits(1, Purpose::test, static_cast<uint64_t>(document), i) %
                                    static_cast<uint64_t>(vocab_size));
    writer.add(static_cast<uint64_t>(document), ids, ids.size());
  }
  writer.finish();
  return TokenShards(folder);
}

/// Fresh weights with a gradient, AdaStar, and 40 steps of random tokens in a folder that goes away with it.
struct SmallTraining {
  explicit SmallTraining(const Flags& flags)
      : folder(std::filesystem::temp_directory_path() / ("coppice-bench-" + std::to_string(getpid()))),
        batch_tokens(flags["batch"] * flags["seq"]),
        model(make_model(shape(flags))),
        shards(make_shards(folder, model.config.vocab_size, 40 * batch_tokens + 10 * flags["seq"])),
        loader({&shards}, {{.domain = "random"}}, {.seq_len = flags["seq"], .document_mask = false, .seed = 1}),
        optimizer((initialise_parameters(model.config, *model.arena, 1), model.arena->enable_gradient(),
                   OptimizerOptions{.lr = 1e-4}),
                  *model.arena, 10, 1000000) {}
  ~SmallTraining() { std::filesystem::remove_all(folder); }
  SmallTraining(const SmallTraining&) = delete;

  static ModelConfig shape(const Flags& flags) {
    ModelConfig config = preset("test", "bench");
    config.num_hidden_layers = flags["layers"], config.hidden_size = flags["width"], config.vocab_size = flags["vocab"];
    config.num_attention_heads = flags["heads"], config.num_key_value_heads = flags["kv-heads"],
    config.head_dim = flags["head-size"];
    config.intermediate_size.assign(static_cast<size_t>(flags["layers"]), flags["ffn"]);
    config.max_position_embeddings = flags["seq"];
    return config;
  }

  std::filesystem::path folder;
  int64_t batch_tokens;
  Model model;
  TokenShards shards;
  Loader loader;
  Optimizer optimizer;
};

}  // namespace coppice::bench
