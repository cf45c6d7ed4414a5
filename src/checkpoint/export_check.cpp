#include "src/checkpoint/export_check.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace coppice {
namespace {

constexpr int64_t kMaxPromptTokens = 64;
constexpr const char* kPrompts[] = {
    "The quick brown fox jumps over the lazy dog, and then", "for (int i = 0; i < 10; ++i) {\n  sum += values[i];\n",
    "In 1687 the price was 12345.67, that is", "Ελληνικά, 中文 and \U0001F600 in one line:"};

DecoderInput input_of(const std::vector<int64_t>& ids) {
  const auto length = static_cast<int64_t>(ids.size());
  return {.token_BT = at::tensor(ids, at::kLong).view({1, length}),
          .position_BT = at::arange(length, at::kLong).view({1, length}),
          .document_BT = {}};
}

}  // namespace

std::span<const char* const> check_prompts() { return kPrompts; }

double max_logit_difference(const Model& ours, const Model& theirs, const Tokenizer& tokenizer) {
  double largest = 0;
  for (const char* prompt : kPrompts) {
    const std::vector<int32_t> encoded = tokenizer.encode(prompt);
    std::vector<int64_t> ids(encoded.begin(), encoded.end());
    ids.resize(std::min(
        {ids.size(), static_cast<size_t>(kMaxPromptTokens), static_cast<size_t>(ours.config.max_position_embeddings)}));
    const DecoderInput input = input_of(ids);
    const double difference = (decoder_logits(ours, input) - decoder_logits(theirs, input)).abs().max().item<double>();
    largest = std::isfinite(difference) ? std::max(largest, difference) : INFINITY;
  }
  return largest;
}

}  // namespace coppice
