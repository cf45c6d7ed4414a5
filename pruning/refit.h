// Refit of a cut: the matrices through which what was cut used to reach the residual stream are solved anew by least
// squares, so that the cut model's stream behind them is what the uncut model gives (layer-wise reconstruction as in
// OSSCAR, arXiv 2403.12983, and Tyr-the-Pruner, 2503.09657, the choice given).
//   V = argmin sum_n |V x_n - y_n|^2 + lambda |V - W|^2 = W + E (G + lambda I)^-1
//   G = sum_n x_n x_n^T,   E = sum_n (y_n - W x_n) x_n^T,   lambda = damping * mean of G's diagonal
// over live tokens n of the calibration text. x_n [M] is what enters the matrix W [D, M], as the cut left it; y_n [D]
// what the source gives in its place (under soft masks where `target_masks` are given) for the residual stream that
// the cut model gives in front of it, refitted already below: each matrix repairs its own cut and takes what comes from
// below as it comes. A model being a row of halves (decoder_halves.h), y_n is what the source's halves add whose place
// the half has taken:
//   ffn     down_proj of every layer; the source's FFN of that layer
//   heads   o_proj of every layer; the source's attention of that layer
//   layers  down_proj of each layer below a gap; the source's FFN of that layer and the layers of the gap behind it
//           (ReplaceMe, arXiv 2505.02819); o_proj of the lowest layer where the gap is below it
//   hidden  both of every layer. No half of the source can run on the narrower stream, so the source's own stream is
//           carried along: y_n is what the cut model's, in front of the half, lacks of the source's behind it
// Damping pulls to W and not to 0: a half without a cut stays as it is (but in the case of `hidden`), an input that is
// always 0 keeps its column, no error grows.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "pruning/plan.h"
#include "src/data/windows.h"
#include "src/model/decoder.h"

namespace coppice {

/// What the output of a half of the cut model misses of its target over the calibration text,
/// sqrt(sum |y - V x|^2 / sum |y|^2), with W and with V; 0 where the target is 0.
struct HalfRefit {
  int64_t half = 0;  // src/model/decoder_halves.h
  double before = 0, after = 0;
};

/// The halves of the cut model whose matrix a refit solves, ascending; none where `plan` takes no layer and cuts
/// layers.
std::vector<int64_t> refitted_halves(const ModelConfig& source, const PrunePlan& plan);

/// Solves those matrices of `cut`, which is `source` after `plan`, from the lowest on. The text is read once: the
/// residual streams of all batches stay in memory, and every half sees them all before the next one does.
/// `target_masks` are of `source`, empty = the dense model. `after_half` is told of each half of `cut` once its streams
/// are past it, and of its residual where it was solved (else nullptr); what it throws ends the refit.
/// UserError::recipe where hidden states or outputs are not finite, or damping is too little for them; InternalError
/// without a live token.
std::vector<HalfRefit> refit(const Model& source, const DecoderMasks& target_masks, const PrunePlan& plan,
                             std::span<const Batch> batches, double damping, Model& cut,
                             const std::function<void(int64_t half, const HalfRefit* solved)>& after_half = {});

// -- the formulas alone, for hand-computed cases --
/// Sums over live tokens, in double: G squares the spread of the hidden states, and float would lose its small half.
struct RefitMoments {
  at::Tensor gram_MM;             // G
  at::Tensor cross_DM;            // E
  double missed = 0, target = 0;  // sum |y - W x|^2, sum |y|^2
  int64_t num_tokens = 0;

  /// Adds the tokens of one batch whose live_N (bool, any shape of N elements) is true; output = W x.
  void add(const at::Tensor& hidden_NM, const at::Tensor& output_ND, const at::Tensor& target_ND,
           const at::Tensor& live_N);
  bool is_finite() const;
};
struct RefittedWeight {
  at::Tensor weight_DM;          // V, float32
  double before = 0, after = 0;  // as in HalfRefit
};
/// V from W [D, M]; W itself where no input is ever other than 0. Nothing where G + lambda I is not positive definite
/// in double.
std::optional<RefittedWeight> solve_refit(const at::Tensor& weight_DM, const RefitMoments& moments, double damping);

}  // namespace coppice
