// Text from a model, token by token.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "src/base/option_mark.h"
#include "src/model/decoder.h"

namespace coppice {

struct GenerateOptions {
  int64_t max_new_tokens = 64;
  double sampling_temperature = 0.0;  // 0 = greedy, ties to the lowest id
  double top_p = 1.0;
  uint64_t seed = 1;

  template <class Field>
  void visit_fields(Field& field) {
    field("max_new_tokens", max_new_tokens, Mark::decides, "tokens to add at most; stops at EOS");
    field("sampling_temperature", sampling_temperature, Mark::decides,
          "0 = greedy; above 0 samples from softmax(logits / temperature)");
    field("top_p", top_p, Mark::decides,
          "samples from the fewest tokens that hold this share of the probability (nucleus sampling)");
    field("seed", seed, Mark::decides, "of the sampling stream");
  }
};

/// Continues `prompt` (empty: starts a document, after EOS); calls `on_token` for each new token and stops at `eos_id`,
/// or where it answers false. Returns the new tokens, EOS included. UserError::recipe for a token outside the
/// vocabulary.
std::vector<int64_t> generate(const Model& model, const std::vector<int64_t>& prompt, int64_t eos_id,
                              const GenerateOptions& options, const std::function<bool(int64_t)>& on_token = {});

}  // namespace coppice
