#include "src/tensors/kernels/launch.h"

#include <fmt/format.h>

#include <string>

#include "src/base/errors.h"
#ifdef COPPICE_CUDA
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#endif

namespace coppice {

namespace {

std::string error_text(int error) {
#ifdef COPPICE_CUDA
  return cudaGetErrorString(static_cast<cudaError_t>(error));
#else
  return fmt::format("error {}", error);
#endif
}

}  // namespace

#ifdef COPPICE_CUDA
CUstream_st* current_stream(at::Device device) { return c10::cuda::getCurrentCUDAStream(device.index()).stream(); }
#endif

void check_launch(int error, std::string_view kernel) {
  constexpr int kNoMemory = 2;  // cudaErrorMemoryAllocation
  if (error == 0) return;
  const std::string text = fmt::format("{}: {}", kernel, error_text(error));
  if (error == kNoMemory)
    throw DeviceError::out_of_memory(text + "; a smaller micro_batch_tokens or batch_tokens needs less");
  throw DeviceError(ExitCode::internal, text);
}

}  // namespace coppice
