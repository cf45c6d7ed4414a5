// Names of devices and element types, and what this build can compute on: the one place that knows.
#pragma once

#include <ATen/core/Tensor.h>

#include <exception>
#include <optional>
#include <string>
#include <string_view>

namespace coppice {

/// The device that a name means: "cpu", "cuda" (the first one) or "cuda:N"; nothing for any other text.
std::optional<at::Device> find_device(std::string_view name);
/// The name that find_device() reads: "cpu", "cuda:1".
std::string device_name(at::Device device);
/// An element type as recipes and Python spell it: "float32", "bfloat16".
std::string dtype_name(at::ScalarType dtype);

/// Where a model lies and in which element type it computes: float32 or bfloat16.
struct Placement {
  at::Device device{at::kCPU};
  at::ScalarType compute = at::kFloat;
  bool split_master = false;  // in bfloat16: the master is the working copy and 16 bits more, no buffer of its own
};

/// Why this build cannot compute on `device`: "this build has no CUDA kernels"; empty when it can.
std::string_view why_unavailable(at::Device device);
/// Throws DeviceError::unavailable "<what> is on cuda:0, but this build has no CUDA kernels" where it cannot.
void check_available(at::Device device, std::string_view what);

bool built_with_cuda();

/// Whether an error of torch, of a device or of its libraries, or of operator new, says that memory is short.
bool is_out_of_memory(const std::exception& error);

}  // namespace coppice
