// A batch on the device that a model computes on.
#pragma once

#include "src/data/windows.h"

namespace coppice {

/// The batch with its tensors on `device`, the very same ones where they lie there already, and with what kernels there
/// are told of it. What the host reads of it (spans, counts, ends of segments) stays where it is.
Batch on_device(Batch batch, at::Device device);

}  // namespace coppice
