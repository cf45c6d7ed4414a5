// CUDA's words for a .cu that is compiled as C++: src/tensors/kernels/cuda_dialect.h includes this where nvcc does not
// compile. Semantics: CUDA C++ Programming Guide, sections of warp shuffle, vote and reduce functions; errors of the
// approximate functions: its tables of maximum errors and PTX's ex2.approx, lg2.approx, rcp.approx.
#pragma once

#include <bit>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <source_location>
#include <tuple>
#include <type_traits>

#include "src/tensors/executor/block.h"
#include "src/tensors/executor/shared_memory.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define threadIdx (*::coppice::executor::thread_index)
#define blockIdx (::coppice::executor::block_index)
#define blockDim (::coppice::executor::block_size)
#define gridDim (::coppice::executor::grid_size)

/// Shared memory of the block, an array of `count` elements: NaN to begin with.
#define COPPICE_SHARED(type, name, count) \
  static char name##_key;                 \
  type* const name = static_cast<type*>(  \
      ::coppice::executor::shared_array(&name##_key, sizeof(type) * (count), std::source_location::current()))

#define COPPICE_UNROLL  // before a loop whose count is known: nvcc's to unroll

/// In a function of the dialect that waits: its caller's line, for faults.
#define COPPICE_CALLER , const std::source_location& at = std::source_location::current()
#define COPPICE_FROM_CALLER , at

struct CUstream_st;  // a stream; none is looked at here

namespace coppice::emulated {

using executor::Operation;
using executor::Site;
using executor::Size3;

/// A launch takes the stream and the line that it is launched from; launches are over when they return.
struct LaunchStream {
  LaunchStream(CUstream_st*, const Site& at = Site::current()) : at(at) {}
  Site at;
};

/// Runs the kernel. Returns 0; what a device would refuse or leave undefined is a Fault.
template <class... Parameters, class... Arguments>
int launch(void (*kernel)(Parameters...), Size3 grid, Size3 block, int64_t shared_bytes, LaunchStream stream,
           Arguments... arguments) {
  struct Call {
    void (*kernel)(Parameters...);
    std::tuple<Parameters...> arguments;
  };
  const Call call{kernel, std::tuple<Parameters...>(arguments...)};
  executor::run(
      grid, block, shared_bytes,
      [](const void* closure) {
        const auto& call = *static_cast<const Call*>(closure);
        std::apply(call.kernel, call.arguments);
      },
      &call, stream.at);
  return 0;
}

static_assert(executor::SharedMemory::kMostUnasked == kMostSharedUnasked);
inline int64_t most_shared_bytes() { return executor::SharedMemory::kLargest; }
inline void* dynamic_shared() { return executor::dynamic_shared(); }

inline void __syncthreads(const Site& at = Site::current()) { executor::sync_threads(at); }

template <class T>
T exchanged(Operation operation, unsigned mask, T value, int source, int width, const Site& at) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= sizeof(executor::Payload));
  executor::Payload payload;
  std::memcpy(payload.words, &value, sizeof(T));
  payload = executor::warp_operation(operation, mask, payload, source, width, at);
  std::memcpy(&value, payload.words, sizeof(T));
  return value;
}

inline void __syncwarp(unsigned mask = ~0u, const Site& at = Site::current()) {
  exchanged(Operation::sync_warp, mask, 0, 0, 32, at);
}
template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32, const Site& at = Site::current()) {
  return exchanged(Operation::shuffle, mask, value, lane, width, at);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_bits, int width = 32, const Site& at = Site::current()) {
  return exchanged(Operation::shuffle_xor, mask, value, lane_bits, width, at);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned lanes, int width = 32, const Site& at = Site::current()) {
  return exchanged(Operation::shuffle_up, mask, value, static_cast<int>(lanes), width, at);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned lanes, int width = 32, const Site& at = Site::current()) {
  return exchanged(Operation::shuffle_down, mask, value, static_cast<int>(lanes), width, at);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, const Site& at = Site::current()) {
  return exchanged(Operation::ballot, mask, static_cast<unsigned>(predicate != 0), 0, 32, at);
}
inline int __any_sync(unsigned mask, int predicate, const Site& at = Site::current()) {
  return __ballot_sync(mask, predicate, at) != 0;
}
inline int __all_sync(unsigned mask, int predicate, const Site& at = Site::current()) {
  return __ballot_sync(mask, predicate, at) == mask;
}
template <class T>
T __reduce_add_sync(unsigned mask, T value, const Site& at = Site::current()) {
  static_assert(std::is_integral_v<T> && sizeof(T) == 4);
  return exchanged(Operation::reduce_add, mask, value, 0, 32, at);
}
template <class T>
T __reduce_min_sync(unsigned mask, T value, const Site& at = Site::current()) {
  static_assert(std::is_integral_v<T> && sizeof(T) == 4);
  return exchanged(std::is_signed_v<T> ? Operation::reduce_min_signed : Operation::reduce_min, mask, value, 0, 32, at);
}
template <class T>
T __reduce_max_sync(unsigned mask, T value, const Site& at = Site::current()) {
  static_assert(std::is_integral_v<T> && sizeof(T) == 4);
  return exchanged(std::is_signed_v<T> ? Operation::reduce_max_signed : Operation::reduce_max, mask, value, 0, 32, at);
}
inline unsigned __reduce_and_sync(unsigned mask, unsigned value, const Site& at = Site::current()) {
  return exchanged(Operation::reduce_and, mask, value, 0, 32, at);
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned value, const Site& at = Site::current()) {
  return exchanged(Operation::reduce_or, mask, value, 0, 32, at);
}
inline unsigned __reduce_xor_sync(unsigned mask, unsigned value, const Site& at = Site::current()) {
  return exchanged(Operation::reduce_xor, mask, value, 0, 32, at);
}

inline int __popc(unsigned bits) { return std::popcount(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline int __clz(int bits) { return std::countl_zero(static_cast<unsigned>(bits)); }
inline unsigned __float_as_uint(float value) { return std::bit_cast<unsigned>(value); }
inline float __uint_as_float(unsigned bits) { return std::bit_cast<float>(bits); }

/// What .ftz makes of an operand and of a result: a subnormal number is a zero of its sign.
inline float flushed(float x) { return std::fabs(x) < FLT_MIN ? std::copysign(0.0f, x) : x; }

inline float rsqrtf(float x) { return executor::approximate(static_cast<float>(1.0 / std::sqrt(double{x})), x, 2.0f); }
inline float fast_exp2(float x) { return executor::approximate(flushed(std::exp2(flushed(x))), x, 2.0f); }
inline float fast_exp(float x) {
  return executor::approximate(std::exp(x), x, 2.0f + std::floor(std::fabs(1.173f * x)));
}
inline float fast_log2(float x) {  // 2^-22.6 where x is in (1/2, 2), 2^-22 of the result elsewhere
  const float exact = std::log2(flushed(x));
  if (x > 0.5f && x < 2.0f) return exact + (executor::approximate(1.0f, x, 1.3f) - 1.0f);
  return executor::approximate(exact, x, 2.0f);
}
inline float fast_reciprocal(float x) { return executor::approximate(flushed(1.0f / flushed(x)), x, 1.0f); }

inline void count_load(const void* from, size_t bytes, const Site& at) { executor::count_load(from, bytes, at); }
inline void count_store(const void* to, size_t bytes, const Site& at) { executor::count_store(to, bytes, at); }

}  // namespace coppice::emulated
