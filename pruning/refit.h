// Refit of a cut: down_proj of every layer is solved anew by least squares, so that the cut layer gives what the uncut
// one gives for the same input (layer-wise reconstruction as in OSSCAR, arXiv 2403.12983, and Tyr-the-Pruner,
// 2503.09657, the channels given).
//   V = argmin sum_n |V x_n - y_n|^2 + lambda |V - W|^2 = W + E (G + lambda I)^-1
//   G = sum_n x_n x_n^T,   E = sum_n (y_n - W x_n) x_n^T,   lambda = damping * mean of G's diagonal
// over live tokens n of the calibration text.
// x_n [M] is the cut layer's gated hidden state, W [D, M] its down_proj as the cut left it, y_n [D] the uncut layer's
// output (under its soft mask where `target_masks` are given) for the residual stream that the layers below give, cut
// and refitted already: each layer repairs its own cut and takes what comes from below as it comes. Damping pulls to W
// and not to 0: a layer without a cut stays as it is, a channel that never fires keeps its column, no error grows.
// With y_n = U h_n and C = sum_n h_n h_n^T over all channels, K the kept ones, this is
// V = (U C[:, K] + lambda W) (C[K, K] + lambda I)^-1; only what it needs of C is ever held.
// D hidden size, M kept channels of the layer.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "src/data/windows.h"
#include "src/model/decoder.h"

namespace coppice {

/// What a layer's output misses of its target over the calibration text, sqrt(sum |y - V x|^2 / sum |y|^2), with W and
/// with V; 0 where the target is 0.
struct LayerRefit {
  double before = 0, after = 0;
};

/// Solves down_proj of every layer of `cut` anew, from the lowest layer on. The text is read once: the residual streams
/// of all batches stay in memory, and every layer sees them all before the next one does. `target_masks` are those of
/// `source`'s layers, empty = the dense layers. `after_layer` is told of each layer once it is solved; what it throws
/// ends the refit. UserError::recipe where hidden states or outputs are not finite, or damping is too little for them;
/// InternalError without a live token.
std::vector<LayerRefit> refit(const Model& source, const DecoderMasks& target_masks, std::span<const Batch> batches,
                              double damping, Model& cut,
                              const std::function<void(const LayerRefit& residual)>& after_layer = {});

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
struct RefittedLayer {
  at::Tensor down_DM;  // V, float32
  LayerRefit residual;
};
/// V from W [D, M]; W itself where no channel fires. Nothing where G + lambda I is not positive definite in double.
std::optional<RefittedLayer> solve_refit(const at::Tensor& down_DM, const RefitMoments& moments, double damping);

}  // namespace coppice
