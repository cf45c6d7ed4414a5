// What `data classify --model` should say of a text, by the model's hidden states and ATen alone.
#pragma once

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "recipes/commands/open_model.h"
#include "src/model/decoder.h"

namespace coppice::test {

/// Log-probability in bits of the text's first 1,024 tokens behind token `begin`, over their bytes.
inline double score_by_hand(const OpenedModel& opened, int64_t begin, const std::string& text) {
  const Model& model = opened.loaded.model;
  std::vector<int32_t> ids = opened.tokenizer.encode(text);
  ids.resize(std::min(ids.size(), static_cast<size_t>(std::min<int64_t>(1024, model.config.max_position_embeddings))));
  std::vector<int64_t> input = {begin};
  input.insert(input.end(), ids.begin(), ids.end() - 1);
  const at::NoGradGuard no_grad;
  const auto length = static_cast<int64_t>(input.size());
  const at::Tensor hidden = decoder_hidden(model, {.token_BT = at::tensor(input, at::kLong).unsqueeze(0),
                                                   .position_BT = at::arange(length, at::kLong).unsqueeze(0),
                                                   .document_BT = {},
                                                   .ids_below = model.config.vocab_size,
                                                   .largest_position = length - 1});
  const at::Tensor logp =
      at::log_softmax(at::matmul(hidden.to(at::kDouble), output_head(model).to(at::kDouble).t()), 1);
  double sum = 0;
  for (size_t t = 0; t < ids.size(); ++t) sum += logp[static_cast<int64_t>(t)][ids[t]].item<double>();
  return sum / std::log(2.0) / static_cast<double>(opened.tokenizer.decode(ids).size());
}

}  // namespace coppice::test
