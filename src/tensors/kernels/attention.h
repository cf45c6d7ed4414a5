// The attentions that causal_attention() calls by name. B sequences, T tokens, N = B T, H query heads, G key/value
// heads, K head size, X = columns of some heads.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <string_view>

#include "src/tensors/ops.h"
#include "src/tensors/token_layout.h"

namespace coppice {

struct AttentionShape {
  int64_t batch, num_heads, num_kv_heads;
};
/// Of what attends to what: within a document where there are any.
struct Documents {
  at::Tensor document_BT;  // int32; undefined: none
  DocumentBounds bounds;   // for backends that take those
};

/// What forward leaves for backward beside its output.
struct AttentionState {
  at::Tensor logsumexp, seed, offset;
};
struct AttentionOutput {
  at::Tensor out_NX;
  AttentionState state;
};

struct AttentionBackend {
  std::string_view name;
  bool takes_bounds;  // else document_BT
  AttentionOutput (*forward)(const AttentionInput& in, const AttentionShape& shape, const Documents& documents);
  /// Gradients of q, k and v.
  AttentionInput (*backward)(const AttentionInput& in, const AttentionShape& shape, const Documents& documents,
                             const AttentionOutput& output, const at::Tensor& out_grad_NX);
};
/// cpu, plain, flash, cudnn.
extern const std::array<AttentionBackend, 4> kAttentionBackends;

}  // namespace coppice
