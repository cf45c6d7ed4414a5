#include "src/tensors/decoder_input.h"

namespace coppice {

DecoderInput DecoderInput::part(int64_t row, int64_t rows, int64_t column, int64_t columns) const {
  DecoderInput result = *this;
  for (at::Tensor* value_BT : {&result.token_BT, &result.position_BT, &result.document_BT})
    if (value_BT->defined()) *value_BT = value_BT->narrow(0, row, rows).narrow(1, column, columns).contiguous();
  result.token_order = {};
  result.bounds = {};
  return result;
}

}  // namespace coppice
