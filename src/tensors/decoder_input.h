// What a decoder reads: batches (src/data) are handed to models (src/model) in this form, so that neither knows the
// other. B sequences, T tokens.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "src/tensors/token_layout.h"

namespace coppice {

struct DecoderInput {
  at::Tensor token_BT;     // int64
  at::Tensor position_BT;  // int64
  at::Tensor document_BT;  // int32 segment numbers for a document mask; undefined = plain causal
  // What is known of them since they were made, so that no layer reads them to find out. Unknown: they are looked at.
  int64_t ids_below = 0;          // every token is, and from 0 on; 0 = unknown
  int64_t largest_position = -1;  // no position is larger, and none below 0; -1 = unknown
  TokenOrder token_order = {};    // of all tokens, on their device; undefined: made where kernels need it
  DocumentBounds bounds = {};     // the same of document_BT

  /// `columns` columns of `rows` rows from (row, column) on, contiguous.
  DecoderInput part(int64_t row, int64_t rows, int64_t column, int64_t columns) const;
};

}  // namespace coppice
