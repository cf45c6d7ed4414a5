// The fused operations as functions over tensors; each is an autograd function that saves the least and computes
// backward by hand. Formulas, letters and references stand in src/tensors/kernels/<stem>.h. B sequences, T tokens, N =
// B*T, D hidden, H query heads, G key/value heads, K head size, F FFN channels, V vocabulary, L layers. Weights are
// [out, in] as in Hugging Face files.
//
// Activations and matrices are float32 or bfloat16, all of one op alike, and so is what it returns; vectors (norm
// weights, biases, masks) and every gradient of a weight are float32. src/tensors/execution.h says who computes.
//
// `weight_grad` is the arena's view of the weight's gradient: backward accumulates into it directly (beta = 1) and
// returns no gradient for the weight. An undefined weight_grad makes the op return the gradient through autograd
// instead (tests, Python).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>

#include "src/tensors/ignored_label.h"
#include "src/tensors/token_layout.h"

namespace coppice {

/// y_NO = x_NI w_OI^T + bias_O; bias_O undefined = none. The bias's gradient goes the way of the weight's.
at::Tensor linear(const at::Tensor& x_NI, const at::Tensor& weight_OI, const at::Tensor& weight_grad_OI,
                  const at::Tensor& bias_O = {}, const at::Tensor& bias_grad_O = {});
/// Its backward pass for who has x again and no graph: the gradients of weight and bias, where there are such, are
/// added to; returns that of x.
at::Tensor linear_backward(const at::Tensor& y_grad_NO, const at::Tensor& x_NI, const at::Tensor& weight_OI,
                           const at::Tensor& weight_grad_OI, const at::Tensor& bias_grad_O = {});

/// rows of the table; backward scatter-adds, in an order that depends on the tokens alone. `ids_below`: tokens are
/// known to lie in [0, ids_below), and are not read to find out unless it is 0 (unknown) or more than the table has.
/// `order` is that of the tokens, for kernels; undefined: backward makes it, which waits for a device.
at::Tensor embedding(const at::Tensor& token_N, const at::Tensor& table_VD, const at::Tensor& table_grad_VD,
                     int64_t ids_below = 0, const TokenOrder& order = {});

struct ResidualNorm {
  at::Tensor residual_ND;  // x + delta (delta undefined: x itself)
  at::Tensor normed_ND;    // rms_norm(residual) * weight
};
/// Residual add and RMSNorm in one pass: eps inside the root, weight [D].
ResidualNorm residual_rms_norm(const at::Tensor& x_ND, const at::Tensor& delta_ND, const at::Tensor& weight_D,
                               const at::Tensor& weight_grad_D, double eps);

/// Frequencies of plain RoPE, radians a position: theta^(-2i/K) for i = 0 .. K/2 - 1; float64 [K/2] on the host.
at::Tensor rope_frequencies(double rope_theta, int64_t head_size);

/// What attention reads: queries [N, H K], keys and values [N, G K], heads side by side. Rows may lie apart.
struct AttentionInput {
  at::Tensor q_NX, k_NX, v_NX;
};
/// The packed rows [N, (H + 2G) K] as that, views.
AttentionInput split_heads(const at::Tensor& qkv_NP, int64_t num_heads, int64_t num_kv_heads);
/// QK-norm (skipped when the weights are undefined), then RoPE (half-split), of the packed projection [N, (H + 2G) K],
/// to which biases were added. Pair i turns by position * frequencies[i] (float64 [K/2], contiguous on the host).
/// position_N int64; `largest_position`: none is larger or negative, -1 = unknown, they are looked at. Values are those
/// of the projection, as they stand there or copied.
AttentionInput qk_norm_rope(const at::Tensor& qkv_NP, const at::Tensor& q_weight_K, const at::Tensor& q_weight_grad_K,
                            const at::Tensor& k_weight_K, const at::Tensor& k_weight_grad_K,
                            const at::Tensor& position_N, int64_t num_heads, int64_t num_kv_heads, double eps,
                            const at::Tensor& frequencies, int64_t largest_position = -1);

/// Causal scaled-dot-product attention, [N, H K]; document_BT (int32, non-decreasing segment numbers) undefined = no
/// document mask. `bounds` are those of the documents, for a device; undefined: made from document_BT, which waits.
/// src/tensors/attention.h says whose attention it is.
at::Tensor causal_attention(const AttentionInput& in, int64_t batch, int64_t num_heads, int64_t num_kv_heads,
                            const at::Tensor& document_BT, const DocumentBounds& bounds = {});

/// h_NF = silu(gate) * (mask * up) on the packed projection gate_up_N2F (gate first); ffn_mask_F undefined = no mask.
/// The mask's gradient is reduced on the way.
at::Tensor swiglu(const at::Tensor& gate_up_N2F, const at::Tensor& ffn_mask_F);
/// linear(swiglu(gate_up, mask), weight) with weight [O, F]: the same bits both ways, and h is not kept for the
/// backward pass, whose kernel makes it again beside gate_up's gradient.
at::Tensor swiglu_linear(const at::Tensor& gate_up_N2F, const at::Tensor& ffn_mask_F, const at::Tensor& weight_OF,
                         const at::Tensor& weight_grad_OF);

/// Soft-Top-K of each row: lambda = min(1, exp((s + a)/epsilon)), sum = k (0 < k <= F). Exact, threshold in double;
/// scores are float32. DivergedError for scores that are not finite; on a device, which is not waited for, their row is
/// NaN instead.
at::Tensor soft_top_k(const at::Tensor& scores_LF, double k, double epsilon);

/// Mean over live rows of lse - (1-w) z_true - w z_teacher + z_loss lse^2; true label kIgnoredLabel = ignored row.
/// Gradients through autograd.
at::Tensor linear_mixed_cross_entropy(const at::Tensor& hidden_ND, const at::Tensor& head_VD,
                                      const at::Tensor& true_label_N, const at::Tensor& teacher_label_N,
                                      double teacher_weight, double z_loss);

/// Sums over live rows.
struct LinearLossSums {
  int64_t num_live = 0;
  double ce = 0;        // -log p[true], nats, summed
  double kd = 0;        // the teacher's term, summed: -log p[teacher] of a label, or a divergence times temperature^2
  double z = 0;         // z_loss * lse^2, summed
  int64_t correct = 0;  // rows whose argmax (lowest id on ties) is the true label
  int64_t agree = 0;    // rows whose argmax is the teacher's
};
/// Their places in LinearLoss::sum_S.
inline constexpr int64_t kSumCe = 0, kSumKd = 1, kSumZ = 2, kSumLive = 3, kSumCorrect = 4, kSumAgree = 5,
                         kNumLossSums = 6;
/// What a loss of the training step leaves: its sums stay where they were made, until somebody reads them.
struct LinearLoss {
  at::Tensor sum_S;           // float64 [kNumLossSums]
  at::Tensor hidden_grad_ND;  // scale * d(sum of row losses)/d hidden; undefined when head_grad was not asked for
  /// The sums on the host: waits for the device.
  LinearLossSums read() const;
};
/// The part of the vocabulary that a rank's head holds; the default is all of it. Labels are ids of the whole.
struct VocabularyShard {
  int64_t first = 0;  // id of the head's first row
  int64_t total = 0;  // ids of the whole; 0 = the head is all there is, and nothing is exchanged
  /// Row statistics [C, X] float64 of this part to those of all parts, [parts, C, X] in the order of ids. Called at the
  /// same rows by all of them.
  std::function<at::Tensor(const at::Tensor& rows_CX)> exchange;
};
/// Rows that meet the output head in a training step, and what is wanted of them. Over a shard the sums are those of
/// the whole, the head's gradient is that of its rows, and the gradient of the hidden states is this part's share of a
/// sum.
struct HeadRows {
  at::Tensor hidden_ND, head_VD;
  at::Tensor head_grad_VD;    // d(head) is accumulated into it; undefined: forward only
  at::Tensor true_label_N;    // int64
  double scale = 1;           // of the gradients: 1 / live rows of the whole step
  bool argmax = false;        // else correct and agree stay 0
  int64_t chunk_rows = 0;     // logits exist for so many rows at a time, never N x V; 0 = by size
  int64_t labels_below = 0;   // all labels are, the teacher's too; 0 = unknown (or more than V): they are looked at
  bool float_logits = false;  // a gradient's logits are float32 in bfloat16 too, as they are without one
  VocabularyShard shard = {};
  int64_t num_vocab() const { return shard.total > 0 ? shard.total : head_VD.size(0); }  // of the whole
};
/// The same loss for the training step: row losses are summed, not averaged.
LinearLoss mixed_cross_entropy_step(const HeadRows& rows, const at::Tensor& teacher_label_N, double teacher_weight,
                                    double z_loss);

struct DistillationOptions {
  std::string loss = "kl";    // kl, reverse_kl or jsd
  double teacher_weight = 1;  // 0 to 1; the rest is cross-entropy on the true label
  double temperature = 1;     // of teacher and student; the divergence carries its square
  double beta = 0.5;          // of jsd
  double z_loss = 0;
};
/// Mean over live rows of (1-w) ce + w temperature^2 divergence(teacher, student) + z_loss lse^2 against a dense
/// teacher: its logits are made inside the chunk from teacher_hidden [N, E] and teacher_head [V, E], which get no
/// gradient.
at::Tensor linear_distillation(const at::Tensor& hidden_ND, const at::Tensor& head_VD,
                               const at::Tensor& teacher_hidden_NE, const at::Tensor& teacher_head_VE,
                               const at::Tensor& true_label_N, const DistillationOptions& options);
/// The same for the training step, as mixed_cross_entropy_step.
LinearLoss distillation_step(const HeadRows& rows, const at::Tensor& teacher_hidden_NE,
                             const at::Tensor& teacher_head_VE, const DistillationOptions& options);

/// The k most probable ids of every row, at some temperature.
struct TopK {
  at::Tensor id_NK;    // int64, most probable first; below 0 = no entry, in the first column: the row has no teacher
  at::Tensor logp_NK;  // float32 log-probabilities
  at::Tensor tail_logp_N;  // float32, log of what all other ids have together; -infinity = nothing
};
/// Mean over live rows of (1-w) ce + w temperature^2 KL(top-k with its tail as one bucket, student) + z_loss lse^2;
/// probabilities taken at `temperature`.
at::Tensor linear_top_k_cross_entropy(const at::Tensor& hidden_ND, const at::Tensor& head_VD,
                                      const at::Tensor& true_label_N, const TopK& top, double teacher_weight,
                                      double temperature, double z_loss);
/// The same for the training step, as mixed_cross_entropy_step.
LinearLoss top_k_cross_entropy_step(const HeadRows& rows, const TopK& top, double teacher_weight, double temperature,
                                    double z_loss);

/// Which rows' choices are not to be trusted blindly, left where they were made.
struct TopFacts {
  at::Tensor fact_N;                // uint8 of loss_rows.h's TopFact
  int64_t count_near_ties() const;  // the two best logits lie within 1e-5 of the best; waits for a device
  at::Tensor not_finite_N() const;  // bool: a NaN among the logits, or an infinite best one
};
/// argmax over the vocabulary of hidden head^T, ties to the lowest id; int64 [N]. Logits in chunks. `facts`, when
/// given, are those of its rows.
at::Tensor top_1(const at::Tensor& hidden_ND, const at::Tensor& head_VD, TopFacts* facts = nullptr);
/// The k largest logits of every row, ties to the lowest id, with log-probabilities at `temperature`. Logits in chunks.
TopK top_k(const at::Tensor& hidden_ND, const at::Tensor& head_VD, int64_t k, double temperature,
           TopFacts* facts = nullptr);

}  // namespace coppice
