// One-shot importance scores of what a cut may take (pruning/cut_axis.h): a file each (score_<name>.cpp), a row each in
// the table of scores.cpp. Higher = keep; the top K of each row stay.
// FFN channels: x = silu(gate) * up as it enters W = down_proj [D, F], j a channel, n a live token. Attention heads: x
// as it enters W = o_proj [D, H K]; the score of a group is the L2 norm of its columns' scores, as FLAP and Minitron's
// code sum up a head. Layers and dimensions of the residual stream: all that writes to it; scores of columns have no
// say in them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "pruning/cut_axis.h"
#include "src/data/windows.h"
#include "src/model/decoder.h"

namespace coppice {

struct ScoreInput {
  const Model* model = nullptr;
  std::span<const Batch> batches;  // calibration, only for rows with passes
  uint64_t seed = 1;
  bool pad = false;  // layers of different widths: the rows of narrower ones end in -inf; false: they are refused
  CutAxis axis = CutAxis::ffn;
  std::function<void(size_t done)> after_batch = {};  // told of each calibration batch; what it throws ends the score
};

struct ScoreRow {
  const char* name;
  const char* help;
  int passes;       // over the calibration text, in forward passes: 0 reads none, 2 = forward and the gradient of the
                    // activations
  bool of_columns;  // weighs columns of W, and has no say where the units are none
  at::Tensor (*compute)(const ScoreInput&);  // [R, U] float32 on the CPU, higher = keep
};
/// magnitude, activation, wanda_sp, flap, taylor, random, first_k. Without `pad` all need layers of one width:
/// UserError::recipe otherwise.
std::span<const ScoreRow> score_table();
/// Whether a score has a say in an axis.
bool scores_axis(const ScoreRow& row, CutAxis axis);
/// UserError::recipe(where) with the nearest name when unknown.
const ScoreRow& find_score(const std::string& name, const std::string& where);
/// "magnitude, activation, ...": the names of those that have a say in an axis, for help and messages.
std::string score_names(CutAxis axis = CutAxis::ffn);

at::Tensor score_magnitude(const ScoreInput& input);
at::Tensor score_activation(const ScoreInput& input);
at::Tensor score_wanda_sp(const ScoreInput& input);
at::Tensor score_flap(const ScoreInput& input);
at::Tensor score_taylor(const ScoreInput& input);
at::Tensor score_random(const ScoreInput& input);
at::Tensor score_first_k(const ScoreInput& input);

// -- what several of them use --
/// Rows computed one by one by `score(row)`, each [units of that row]; UserError::recipe when layers differ in width
/// and input.pad is false.
at::Tensor score_by_row(const ScoreInput& input, const std::function<at::Tensor(int64_t)>& score);
/// The one row of an axis that is one choice, from its units' scores, wherever they lie.
at::Tensor score_of_row(const at::Tensor& score_U);
/// Rows from a score a column of W: a unit has the L2 norm of its columns', and a unit of one column what it has.
at::Tensor score_by_columns(const ScoreInput& input, const std::function<at::Tensor(int64_t layer)>& score_of_columns);
/// W of a layer in double, without gradient: down_proj [D, F], or o_proj [D, H K].
at::Tensor writer_weight(const ScoreInput& input, int64_t layer);
/// Every calibration batch in its order. InternalError without any.
void for_each_batch(const ScoreInput& input, const std::function<void(const Batch& batch)>& look);
/// Runs every calibration batch through the model without gradients: tap(layer, x [N, columns of W], live [B, T] bool).
/// InternalError without batches.
using HiddenTap = std::function<void(int64_t layer, const at::Tensor& hidden_NC, const at::Tensor& live_BT)>;
void walk_hidden(const ScoreInput& input, const HiddenTap& tap);

// -- the formulas alone, for hand-computed cases --
/// One batch's part of the activation score, [C] in double: sum over samples of (mean over live tokens of |hidden|)^2.
/// live_BT is bool.
at::Tensor activation_squares(const at::Tensor& hidden_NC, const at::Tensor& live_BT);
/// mean_i |W_ij| * sqrt(mean over tokens of x_j^2), from W [D, F] and that mean [F].
at::Tensor wanda_sp_scores(const at::Tensor& down_DF, const at::Tensor& mean_square_F);
/// Var(x_j) * sum_i W_ij^2.
at::Tensor flap_scores(const at::Tensor& down_DF, const at::Tensor& variance_F);

}  // namespace coppice
