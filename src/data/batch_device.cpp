#include "src/data/batch_device.h"

#include <ATen/ATen.h>

namespace coppice {

Batch on_device(Batch batch, at::Device device) {
  if (!device.is_cpu() && batch.token_BT.is_cpu()) {
    batch.token_order = make_token_order(batch.token_BT).to(device);
    if (batch.document_BT.defined()) batch.bounds = make_document_bounds(batch.document_BT).to(device);
  }
  for (at::Tensor* tensor : {&batch.token_BT, &batch.position_BT, &batch.document_BT, &batch.true_label_BT})
    if (tensor->defined()) *tensor = tensor->to(device);
  return batch;
}

}  // namespace coppice
