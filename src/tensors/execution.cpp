#include "src/tensors/execution.h"

#include <atomic>

namespace coppice {

namespace {

std::atomic<bool> emulate_float32{false};  // of all threads: backward may run in another one

}  // namespace

Execution execution_of(const at::Tensor& tensor) {
  if (tensor.is_cuda()) return Execution::device;
  return tensor.scalar_type() == at::kBFloat16 || emulate_float32.load(std::memory_order_relaxed) ? Execution::emulated
                                                                                                  : Execution::cpu;
}

EmulatedFloat32::EmulatedFloat32() { emulate_float32 = true; }
EmulatedFloat32::~EmulatedFloat32() { emulate_float32 = false; }

}  // namespace coppice
