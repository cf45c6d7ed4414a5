#include "src/data/batch_device.h"

#include <ATen/ATen.h>

namespace coppice {

Batch on_device(Batch batch, at::Device device) {
  for (at::Tensor* tensor : {&batch.token_BT, &batch.position_BT, &batch.document_BT, &batch.true_label_BT})
    if (tensor->defined()) *tensor = tensor->to(device);
  return batch;
}

}  // namespace coppice
