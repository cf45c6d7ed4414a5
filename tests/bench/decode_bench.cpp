// Decoding at batch 1 with random weights: reading a prompt (first logits) and then token after token, greedily. What a
// token cannot do without is reading all weights once: share_of_read is beside the sum of a buffer of the same size, by
// the same threads. SmolLM2-135M's shape:
//   decode_bench --layers 30 --width 576 --heads 9 --kv-heads 3 --head-size 64 --ffn 1536 --vocab 49152
//   --prompt-tokens 64 --new-tokens 64
#include <ATen/core/grad_mode.h>

#include "src/model/decode_session.h"
#include "src/model/parameters.h"
#include "tests/bench/bench.h"

using namespace coppice;
using namespace coppice::bench;

namespace {

ModelConfig shape(const Flags& flags) {
  ModelConfig config = preset("test", "bench");
  config.num_hidden_layers = flags["layers"], config.hidden_size = flags["width"], config.vocab_size = flags["vocab"];
  config.num_attention_heads = flags["heads"], config.num_key_value_heads = flags["kv-heads"],
  config.head_dim = flags["head-size"];
  config.intermediate_size.assign(static_cast<size_t>(flags["layers"]), flags["ffn"]);
  config.qk_norm = flags["qk-norm"] != 0;
  config.max_position_embeddings = flags["prompt-tokens"] + flags["new-tokens"];
  return config;
}

int64_t best_of(std::span<const float> logits_V) { return std::ranges::max_element(logits_V) - logits_V.begin(); }

}  // namespace

int main(int argc, char** argv) {
  const Flags flags(argc, argv,
                    {{"layers", 4},
                     {"width", 576},
                     {"heads", 9},
                     {"kv-heads", 3},
                     {"head-size", 64},
                     {"ffn", 1536},
                     {"vocab", 49152},
                     {"qk-norm", 0},
                     {"prompt-tokens", 64},
                     {"new-tokens", 32}});
  measure_ceilings(flags);
  const ModelConfig config = shape(flags);
  Model model = make_model(config);
  initialise_parameters(config, *model.arena, 1);
  const at::NoGradGuard no_grad;
  std::vector<int64_t> prompt(static_cast<size_t>(flags["prompt-tokens"]));
  for (size_t i = 0; i < prompt.size(); ++i) prompt[i] = static_cast<int64_t>(i + 100) % config.vocab_size;
  DecodeSession session(model, config.max_position_embeddings);

  // the logits behind the prompt are the decoder's
  const at::Tensor expected_NV = decoder_logits(model, {.token_BT = at::tensor(prompt).unsqueeze(0),
                                                        .position_BT = at::arange(std::ssize(prompt)).unsqueeze(0),
                                                        .document_BT = {}});
  session.read(std::span(prompt).first(prompt.size() / 2));
  std::span<const float> logits_V;
  for (size_t t = prompt.size() / 2; t < prompt.size(); ++t) logits_V = session.read(std::span(prompt).subspan(t, 1));
  const at::Tensor got_V = at::tensor(std::vector<float>(logits_V.begin(), logits_V.end()));
  emit_check(flags, ((got_V - expected_NV[-1]).abs().max() / expected_NV[-1].abs().max()).item<double>(), 1e-5);

  int64_t next = 0;
  const auto prefill = [&] {
    session.clear();
    next = best_of(session.read(prompt));
  };
  const auto decode = [&] {
    for (int64_t t = 0; t < flags["new-tokens"]; ++t) next = best_of(session.read({&next, 1}));
  };
  const at::Tensor weights = at::ones({count_parameters(config)});
  const auto read = [&] { weights.sum(); };
  const std::vector<Readings> readings = measure(flags, {prefill, decode, read});
  const double bytes = 4.0 * static_cast<double>(count_parameters(config)), read_s = readings[2][0].second;
  const char* names[] = {"prefill", "decode"};
  const int64_t tokens[] = {flags["prompt-tokens"], flags["new-tokens"]};
  for (size_t i = 0; i < 2; ++i) {
    Readings line = readings[i];
    const double per_s = static_cast<double>(tokens[i]) / line[0].second;
    line.insert(line.end(), {{"tokens_per_s", per_s},
                             {"gflops", forward_flops_per_token(config, flags["prompt-tokens"]) * per_s / 1e9}});
    if (i == 1) line.insert(line.end(), {{"weights_gbs", bytes * per_s / 1e9}, {"share_of_read", per_s * read_s}});
    emit(names[i], flags, line);
  }
  emit("read", flags, {{"median_s", read_s}, {"gbs", bytes / read_s / 1e9}});
}
