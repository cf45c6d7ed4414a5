#include "teacher/live_signal.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "src/tensors/draws.h"

namespace coppice {

namespace {

TopK some_ids(const at::Tensor& hidden_NE, const at::Tensor& head_VE, const SignalRequest& request, TopFacts& facts) {
  if (request.loss == "sample")
    return shares_of_draws(draw_weighted_ids(hidden_NE, head_VE, request.temperature, request.proposal_temperature,
                                             request.draw_number_NR, &facts));
  if (request.loss == "hybrid")
    return shares_of_head_and_draws(
        top_k_and_draws(hidden_NE, head_VE, request.top_k, request.temperature, request.draw_number_NR, &facts));
  return top_k(hidden_NE, head_VE, request.top_k, request.temperature, &facts);
}

/// Tokens of which some logit is not finite get no label, and are faults.
void mark_not_finite(const TopFacts& facts, TeacherSignal& signal) {
  const at::Tensor bad_N = facts.not_finite_N();
  if (signal.label_BT.defined()) signal.label_BT.view({-1}).masked_fill_(bad_N, kIgnoredLabel);
  if (signal.top.id_NK.defined()) signal.top.id_NK.masked_fill_(bad_N.unsqueeze(1), kIgnoredLabel);
  signal.faults = bad_N.sum();
}

}  // namespace

TeacherSignal live_signal(const Model& model, const Batch& batch, const SignalRequest& request) {
  const at::NoGradGuard no_grad;
  TeacherSignal signal;
  DecoderTaps taps;
  std::vector<at::Tensor> output_ND;
  if (!request.hidden_layers.empty())
    taps.layer_output = [&](int, const at::Tensor& layer_ND) { output_ND.push_back(layer_ND); };
  const at::Tensor hidden_NE = decoder_hidden(model, batch.input(), {}, taps);
  const at::Tensor head_VE = output_head(model);
  if (request.loss == "labels" || reads_some_ids(request.loss)) {
    TopFacts facts;
    if (request.loss == "labels")
      signal.label_BT = top_1(hidden_NE, head_VE, &facts).reshape(batch.token_BT.sizes());
    else
      signal.top = some_ids(hidden_NE, head_VE, request, facts);
    signal.labels_below = head_VE.size(0);
    mark_not_finite(facts, signal);
  } else {
    signal.hidden_NE = hidden_NE;
    signal.head_VE = head_VE;
  }
  for (const int64_t layer : request.hidden_layers)
    signal.layer_ND.push_back(output_ND.at(static_cast<size_t>(layer - 1)));
  return signal;
}

}  // namespace coppice
