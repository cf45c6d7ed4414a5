// The attentions, forward and backward. Masks are causal everywhere; none drops anything out.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <optional>

#include "src/base/errors.h"
#include "src/tensors/kernels/attention.h"
#include "src/tensors/kernels/products.h"

namespace coppice {

namespace {

// ---- rows and heads ----

/// [N, heads K] as [B, heads, T, K], a view.
at::Tensor heads_of(const at::Tensor& rows_NX, const AttentionShape& shape, int64_t heads) {
  return rows_NX.unflatten(0, {shape.batch, -1}).unflatten(2, {heads, -1}).transpose(1, 2);
}
/// Back; a copy only where a token's heads do not lie side by side.
at::Tensor rows_of_heads(const at::Tensor& heads_BHTK) {
  return heads_BHTK.transpose(1, 2).reshape({heads_BHTK.size(0) * heads_BHTK.size(2), -1});
}

/// Queries, and keys and values once for every query head of their group.
struct Heads {
  at::Tensor q_BHTK, k_BHTK, v_BHTK;
};
Heads repeated_heads(const AttentionInput& in, const AttentionShape& shape) {
  const auto repeated = [&](const at::Tensor& rows_NX) {
    const at::Tensor heads_BGTK = heads_of(rows_NX, shape, shape.num_kv_heads);
    return shape.num_heads == shape.num_kv_heads
               ? heads_BGTK
               : heads_BGTK.repeat_interleave(shape.num_heads / shape.num_kv_heads, 1);
  };
  return {heads_of(in.q_NX, shape, shape.num_heads), repeated(in.k_NX), repeated(in.v_NX)};
}
/// Gradients of the repeated ones added up, as rows.
AttentionInput rows_of_gradients(const Heads& grads, const AttentionShape& shape) {
  const auto summed = [&](const at::Tensor& grad_BHTK) {
    return rows_of_heads(
        shape.num_heads == shape.num_kv_heads ? grad_BHTK : grad_BHTK.unflatten(1, {shape.num_kv_heads, -1}).sum(2));
  };
  return {rows_of_heads(grads.q_BHTK), summed(grads.k_BHTK), summed(grads.v_BHTK)};
}

// ---- cpu and plain: bfloat16 is widened, and rounded at the door ----

/// 0 where query and key belong to one document, -infinity elsewhere; [B, 1, T, T]. Undefined stays undefined.
std::optional<at::Tensor> document_bias(const at::Tensor& document_BT) {
  if (!document_BT.defined()) return std::nullopt;
  const at::Tensor other = document_BT.unsqueeze(2) != document_BT.unsqueeze(1);
  return at::zeros(other.sizes(), at::TensorOptions().dtype(at::kFloat))
      .masked_fill_(other, -std::numeric_limits<float>::infinity())
      .unsqueeze(1);
}

AttentionInput widened_input(const AttentionInput& in) {
  return {widened(in.q_NX), widened(in.k_NX), widened(in.v_NX)};
}

AttentionInput rounded_to(at::ScalarType type, const AttentionInput& grads) {
  return {grads.q_NX.to(type), grads.k_NX.to(type), grads.v_NX.to(type)};
}

AttentionOutput forward_on_cpu(const AttentionInput& in, const AttentionShape& shape, const Documents& documents) {
  const Heads heads = repeated_heads(widened_input(in), shape);
  const auto [out_BHTK, logsumexp] = at::_scaled_dot_product_flash_attention_for_cpu(
      heads.q_BHTK, heads.k_BHTK, heads.v_BHTK, 0.0, /*is_causal=*/true, document_bias(documents.document_BT));
  return {.out_NX = rows_of_heads(out_BHTK).to(in.q_NX.scalar_type()), .state = {.logsumexp = logsumexp}};
}

AttentionInput backward_on_cpu(const AttentionInput& in, const AttentionShape& shape, const Documents& documents,
                               const AttentionOutput& output, const at::Tensor& out_grad_NX) {
  const Heads heads = repeated_heads(widened_input(in), shape);
  const auto [q_grad, k_grad, v_grad] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
      heads_of(widened(out_grad_NX), shape, shape.num_heads), heads.q_BHTK, heads.k_BHTK, heads.v_BHTK,
      heads_of(widened(output.out_NX), shape, shape.num_heads), output.state.logsumexp, 0.0, /*is_causal=*/true,
      document_bias(documents.document_BT));
  return rounded_to(in.q_NX.scalar_type(), rows_of_gradients({q_grad, k_grad, v_grad}, shape));
}

// ---- plain: on any device and for heads of any size, in float32, all scores in memory ----

double scale_of(const Heads& heads) { return 1.0 / std::sqrt(static_cast<double>(heads.q_BHTK.size(3))); }

at::Tensor probabilities(const Heads& heads, const at::Tensor& document_BT) {
  const int64_t length = heads.q_BHTK.size(2);
  at::Tensor hidden = at::ones({length, length}, heads.q_BHTK.options().dtype(at::kBool)).triu(1);
  if (document_BT.defined())
    hidden = hidden.logical_or(document_BT.unsqueeze(2).ne(document_BT.unsqueeze(1))).unsqueeze(1);
  const at::Tensor scores = heads.q_BHTK.matmul(heads.k_BHTK.transpose(2, 3)) * scale_of(heads);
  return scores.masked_fill(hidden, -std::numeric_limits<float>::infinity()).softmax(3);
}

AttentionOutput forward_plainly(const AttentionInput& in, const AttentionShape& shape, const Documents& documents) {
  const Heads heads = repeated_heads(widened_input(in), shape);
  const at::Tensor out_BHTK = probabilities(heads, documents.document_BT).matmul(heads.v_BHTK);
  return {.out_NX = rows_of_heads(out_BHTK).to(in.q_NX.scalar_type())};
}

AttentionInput backward_plainly(const AttentionInput& in, const AttentionShape& shape, const Documents& documents,
                                const AttentionOutput& output, const at::Tensor& out_grad_NX) {
  const Heads heads = repeated_heads(widened_input(in), shape);
  const at::Tensor p = probabilities(heads, documents.document_BT),
                   out_BHTK = heads_of(widened(output.out_NX), shape, shape.num_heads),
                   out_grad_BHTK = heads_of(widened(out_grad_NX), shape, shape.num_heads);
  const at::Tensor along = (out_grad_BHTK * out_BHTK).sum(3, /*keepdim=*/true),
                   scores_grad = p * (out_grad_BHTK.matmul(heads.v_BHTK.transpose(2, 3)) - along) * scale_of(heads);
  return rounded_to(in.q_NX.scalar_type(), rows_of_gradients({scores_grad.matmul(heads.k_BHTK),
                                                              scores_grad.transpose(2, 3).matmul(heads.q_BHTK),
                                                              p.transpose(2, 3).matmul(out_grad_BHTK)},
                                                             shape));
}

// ---- flash and cudnn: bfloat16 on a device; every key head is read where it lies ----

/// What flash is told of the sequences: documents end to end, or the rows of the batch.
struct Sequences {
  std::optional<at::Tensor> bound_S;
  int64_t longest;
  Sequences(const AttentionInput& in, const AttentionShape& shape, const Documents& documents)
      : longest(in.q_NX.size(0) / shape.batch) {
    if (!documents.bounds.defined()) return;
    bound_S = documents.bounds.bound_S;
    longest = documents.bounds.longest;
  }
  at::Tensor bound_or_none() const { return bound_S.value_or(at::Tensor()); }
};

/// [N, heads K] as [B, T, heads, K], or with documents [N, heads, K]; views.
at::Tensor heads_of_tokens(const at::Tensor& rows_NX, int64_t heads, const AttentionShape& shape,
                           const Sequences& sequences) {
  const at::Tensor heads_NXK = rows_NX.unflatten(1, {heads, -1});
  return sequences.bound_S ? heads_NXK : heads_NXK.unflatten(0, {shape.batch, -1});
}

AttentionInput flash_input(const AttentionInput& in, const AttentionShape& shape, const Sequences& sequences) {
  return {heads_of_tokens(in.q_NX, shape.num_heads, shape, sequences),
          heads_of_tokens(in.k_NX, shape.num_kv_heads, shape, sequences),
          heads_of_tokens(in.v_NX, shape.num_kv_heads, shape, sequences)};
}

AttentionOutput forward_by_flash(const AttentionInput& in, const AttentionShape& shape, const Documents& documents) {
  const Sequences sequences(in, shape, documents);
  const auto [q, k, v] = flash_input(in, shape, sequences);
  const auto [out, logsumexp, seed, offset, debug_mask] =
      at::_flash_attention_forward(q, k, v, sequences.bound_S, sequences.bound_S, sequences.longest, sequences.longest,
                                   0.0, /*is_causal=*/true, /*return_debug_mask=*/false);
  return {.out_NX = out.reshape({in.q_NX.size(0), -1}),
          .state = {.logsumexp = logsumexp, .seed = seed, .offset = offset}};
}

AttentionInput backward_by_flash(const AttentionInput& in, const AttentionShape& shape, const Documents& documents,
                                 const AttentionOutput& output, const at::Tensor& out_grad_NX) {
  const Sequences sequences(in, shape, documents);
  const auto [q, k, v] = flash_input(in, shape, sequences);
  const auto of_queries = [&](const at::Tensor& rows_NX) {
    return heads_of_tokens(rows_NX, shape.num_heads, shape, sequences);
  };
  const auto [q_grad, k_grad, v_grad] =
      at::_flash_attention_backward(of_queries(out_grad_NX), q, k, v, of_queries(output.out_NX), output.state.logsumexp,
                                    sequences.bound_or_none(), sequences.bound_or_none(), sequences.longest,
                                    sequences.longest, 0.0, /*is_causal=*/true, output.state.seed, output.state.offset);
  const int64_t num_tokens = in.q_NX.size(0);
  return {q_grad.reshape({num_tokens, -1}), k_grad.reshape({num_tokens, -1}), v_grad.reshape({num_tokens, -1})};
}

// Of whole sequences alone: torch 2.11 tells cuDNN's backward pass the size of a head for the longest document, and the
// strides of the inputs for those of the gradients.

/// [B, heads, T, K], views.
AttentionInput cudnn_input(const AttentionInput& in, const AttentionShape& shape) {
  return {heads_of(in.q_NX, shape, shape.num_heads), heads_of(in.k_NX, shape, shape.num_kv_heads),
          heads_of(in.v_NX, shape, shape.num_kv_heads)};
}
int64_t length_of(const AttentionInput& in, const AttentionShape& shape) { return in.q_NX.size(0) / shape.batch; }

AttentionOutput forward_by_cudnn(const AttentionInput& in, const AttentionShape& shape, const Documents& documents) {
  COPPICE_CHECK(!documents.document_BT.defined() && !documents.bounds.defined(), "documents of cuDNN's attention");
  const auto [q, k, v] = cudnn_input(in, shape);
  const int64_t length = length_of(in, shape);
  const auto result =
      at::_cudnn_attention_forward(q, k, v, std::nullopt, std::nullopt, std::nullopt, length, length,
                                   /*compute_log_sumexp=*/true, 0.0, /*is_causal=*/true, /*return_debug_mask=*/false);
  return {.out_NX = rows_of_heads(std::get<0>(result)),
          .state = {.logsumexp = std::get<1>(result), .seed = std::get<6>(result), .offset = std::get<7>(result)}};
}

AttentionInput backward_by_cudnn(const AttentionInput& in, const AttentionShape& shape, const Documents&,
                                 const AttentionOutput& output, const at::Tensor& out_grad_NX) {
  const auto [q, k, v] = cudnn_input(in, shape);
  const int64_t length = length_of(in, shape);
  const auto [q_grad, k_grad, v_grad] = at::_cudnn_attention_backward(
      heads_of(out_grad_NX, shape, shape.num_heads), q, k, v, heads_of(output.out_NX, shape, shape.num_heads),
      output.state.logsumexp, output.state.seed, output.state.offset, /*attn_bias=*/at::Tensor(),
      /*cum_seq_q=*/at::Tensor(), /*cum_seq_k=*/at::Tensor(), length, length, 0.0, /*is_causal=*/true);
  return {rows_of_heads(q_grad), rows_of_heads(k_grad), rows_of_heads(v_grad)};
}

}  // namespace

const std::array<AttentionBackend, 4> kAttentionBackends = {{
    {"cpu", /*takes_bounds=*/false, forward_on_cpu, backward_on_cpu},
    {"plain", /*takes_bounds=*/false, forward_plainly, backward_plainly},
    {"flash", /*takes_bounds=*/true, forward_by_flash, backward_by_flash},
    {"cudnn", /*takes_bounds=*/false, forward_by_cudnn, backward_by_cudnn},
}};

}  // namespace coppice
