// What kernels on a device are told of a batch beside its tensors: made by the host, once, before the batch goes there.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace coppice {

/// Who adds up which rows of the embedding's gradient, as src/tensors/kernels/embedding.h says; all int32.
struct TokenOrder {
  at::Tensor row_N;          // rows, sorted by token
  at::Tensor piece_X4;       // runs of them that are added up in one go
  at::Tensor long_token_X4;  // runs of partial sums
  int64_t num_partials = 0;

  bool defined() const { return row_N.defined(); }
  TokenOrder to(at::Device device) const;
};
/// Of int64 tokens of any shape, where they lie; those of a device are waited for.
TokenOrder make_token_order(const at::Tensor& token);

/// Where documents begin, for attention that does not cross them.
struct DocumentBounds {
  at::Tensor bound_S;   // int32: the first token of each, rows put end to end, and the end of the last one
  int64_t longest = 0;  // tokens

  bool defined() const { return bound_S.defined(); }
  DocumentBounds to(at::Device device) const;
};
/// Of segment numbers (int32), where they lie; those of a device are waited for.
DocumentBounds make_document_bounds(const at::Tensor& document_BT);

}  // namespace coppice
