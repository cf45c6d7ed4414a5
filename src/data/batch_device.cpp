#include "src/data/batch_device.h"

#include <ATen/core/Tensor.h>

#include "src/tensors/transfers.h"

namespace coppice {

Batch on_device(Batch batch, at::Device device) {
  if (!device.is_cpu() && batch.token_BT.is_cpu()) {
    batch.token_order = make_token_order(batch.token_BT);
    if (batch.document_BT.defined()) batch.bounds = make_document_bounds(batch.document_BT);
  }
  TokenOrder& order = batch.token_order;
  send({&batch.token_BT, &batch.position_BT, &batch.document_BT, &batch.true_label_BT, &order.row_N, &order.piece_X4,
        &order.long_token_X4, &batch.bounds.bound_S},
       device);
  return batch;
}

}  // namespace coppice
