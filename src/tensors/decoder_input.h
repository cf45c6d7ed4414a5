// What a decoder reads: batches (src/data) are handed to models (src/model) in this form, so that neither knows the
// other. B sequences, T tokens.
#pragma once

#include <ATen/core/Tensor.h>

namespace coppice {

struct DecoderInput {
  at::Tensor token_BT;     // int64
  at::Tensor position_BT;  // int64
  at::Tensor document_BT;  // int32 segment numbers for a document mask; undefined = plain causal

  /// `columns` columns of `rows` rows from (row, column) on, contiguous.
  DecoderInput part(int64_t row, int64_t rows, int64_t column, int64_t columns) const;
};

}  // namespace coppice
