// How an op reaches its kernels: tensors as the pointers of Params<T>, and the call that goes to the CPU's loops, to
// the executor or to a device.
#pragma once

#include <ATen/ATen.h>
#include <c10/core/DeviceGuard.h>

#include <atomic>
#include <string_view>
#include <type_traits>

#include "src/tensors/built_with_cuda.h"
#include "src/tensors/execution.h"
#include "src/tensors/kernels/bf16.h"

struct CUstream_st;  // cudaStream_t points to one

namespace coppice {

/// The stream that the device's operations are enqueued on; in builds with CUDA alone.
CUstream_st* current_stream(at::Device device);
/// DeviceError with the kernel's name unless `error`, a launcher's, is 0; out_of_memory where it says so.
void check_launch(int error, std::string_view kernel);

// ---- Params<T> from tensors ----

/// A tensor's elements, null where it is undefined. T: Bf16 of a bfloat16 tensor, else the tensor's own type.
template <class T>
const T* elements(const at::Tensor& tensor) {
  if (!tensor.defined()) return nullptr;
  if constexpr (std::is_same_v<T, Bf16>)
    return reinterpret_cast<const Bf16*>(tensor.const_data_ptr<at::BFloat16>());
  else
    return tensor.const_data_ptr<T>();
}
template <class T>
T* mutable_elements(const at::Tensor& tensor) {
  if (!tensor.defined()) return nullptr;
  if constexpr (std::is_same_v<T, Bf16>)
    return reinterpret_cast<Bf16*>(tensor.mutable_data_ptr<at::BFloat16>());
  else
    return tensor.mutable_data_ptr<T>();
}

inline int64_t row_stride(const at::Tensor& rows) { return rows.defined() ? rows.stride(0) : 0; }

/// body.operator()<T>() for the elements of `tensor`: T = float or Bf16.
template <class Body>
void with_elements_of(const at::Tensor& tensor, const Body& body) {
  if (tensor.scalar_type() == at::kBFloat16)
    body.template operator()<Bf16>();
  else
    body.template operator()<float>();
}

/// float32 for what the blocks of a kernel leave behind; undefined where the CPU's loops run, which need none.
inline at::Tensor partial_sums(const at::Tensor& where, at::IntArrayRef sizes) {
  if (execution_of(where) == Execution::cpu) return at::Tensor();
  return at::empty(sizes, where.options().dtype(at::kFloat));
}

// ---- running ----

namespace launch_timing {
extern std::atomic<bool> is_wanted;  // a LaunchTimes lives (src/tensors/launch_times.h)
struct Launch;
Launch* begin_on_host(const char* kernel);
void end_on_host(Launch* launch) noexcept;
Launch* begin_on_device(const char* kernel, CUstream_st* stream);  // in builds with CUDA alone, as the next
void end_on_device(Launch* launch, CUstream_st* stream) noexcept;
inline bool wanted() { return is_wanted.load(std::memory_order_relaxed); }
}  // namespace launch_timing

/// Times what is launched while it lives, where that is wanted: by the host's clock.
class TimedOnHost {
 public:
  explicit TimedOnHost(const char* kernel)
      : launch_(launch_timing::wanted() ? launch_timing::begin_on_host(kernel) : nullptr) {}
  ~TimedOnHost() {
    if (launch_ != nullptr) launch_timing::end_on_host(launch_);
  }
  TimedOnHost(const TimedOnHost&) = delete;
  TimedOnHost& operator=(const TimedOnHost&) = delete;

 private:
  launch_timing::Launch* launch_;
};
/// The same by events of a stream, whose device is the current one.
class TimedOnDevice {
 public:
  TimedOnDevice(const char* kernel, CUstream_st* stream)
      : stream_(stream), launch_(launch_timing::wanted() ? launch_timing::begin_on_device(kernel, stream) : nullptr) {}
  ~TimedOnDevice() {
    if (launch_ != nullptr) launch_timing::end_on_device(launch_, stream_);
  }
  TimedOnDevice(const TimedOnDevice&) = delete;
  TimedOnDevice& operator=(const TimedOnDevice&) = delete;

 private:
  CUstream_st* stream_;
  launch_timing::Launch* launch_;
};

/// Runs the launcher of this name in namespace emulated or device, as execution_of(where) says; not for cpu.
#define COPPICE_LAUNCH(where, kernel, params)                          \
  do {                                                                 \
    if (execution_of(where) == Execution::emulated) {                  \
      const TimedOnHost timed(#kernel);                                \
      check_launch(emulated::kernel(params, nullptr), #kernel);        \
    } else if constexpr (kBuiltWithCuda) {                             \
      const c10::DeviceGuard on_device((where).device());              \
      CUstream_st* const on_stream = current_stream((where).device()); \
      const TimedOnDevice timed(#kernel, on_stream);                   \
      check_launch(device::kernel(params, on_stream), #kernel);        \
    }                                                                  \
  } while (false)

/// The same, and <kernel>_cpu(params) for cpu. In a template over the elements' type, where that one is for float
/// alone.
#define COPPICE_RUN(where, kernel, params)              \
  do {                                                  \
    if constexpr (requires { kernel##_cpu(params); }) { \
      if (execution_of(where) == Execution::cpu) {      \
        kernel##_cpu(params);                           \
        break;                                          \
      }                                                 \
    }                                                   \
    COPPICE_LAUNCH(where, kernel, params);              \
  } while (false)

}  // namespace coppice
