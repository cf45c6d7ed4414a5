// The language of our .cu files: CUDA under nvcc, C++ run by the executor (src/tensors/executor) under every other
// compiler. A .cu includes this and its own header, and puts its kernels and launchers into
// namespace coppice::COPPICE_EXECUTION.
//   Global memory: load_pack, store_pack, copy_pack: one instruction each, and what the executor counts as bytes.
//   Shared memory: COPPICE_SHARED(type, name, count) and dynamic_shared(); bare __shared__ is not in the language.
//   Threads: blocks are one-dimensional and a multiple of 32 wherever warp_reduce or block_reduce is used.
// Not in it: communication between blocks of a launch, float atomics, votes without a mask, cp.async, clusters.
// Torch-free.
#pragma once

#include <cstdint>

#include "src/tensors/kernels/bf16.h"

namespace coppice {
/// Dynamic shared memory that a launch takes as it is. A device must be asked for more than 48 KiB in all, what a
/// kernel has in arrays included, which a launch does not know.
inline constexpr int64_t kMostSharedUnasked = 32 * 1024;
}  // namespace coppice

#ifdef __CUDACC__

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#define COPPICE_EXECUTION device
#define COPPICE_SHARED(type, name, count) __shared__ __align__(16) type name[count]
#define COPPICE_UNROLL _Pragma("unroll")
#define COPPICE_CALLER
#define COPPICE_FROM_CALLER

namespace coppice::device {

/// Extent of a grid or a block.
struct Size3 {
  Size3(int64_t x, int64_t y = 1, int64_t z = 1) : x(x), y(y), z(z) {}
  int64_t x, y, z;
};

/// Enqueues the kernel and does not wait. Returns a cudaError_t, 0 for none.
template <class... Parameters, class... Arguments>
int launch(void (*kernel)(Parameters...), Size3 grid, Size3 block, int64_t shared_bytes, CUstream_st* stream,
           Arguments... arguments) {
  if (grid.x > 2147483647 || grid.y > 65535 || grid.z > 65535) return cudaErrorInvalidConfiguration;
  if (shared_bytes > kMostSharedUnasked) {
    const cudaError_t error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
    if (error != cudaSuccess) return error;
  }
  const auto extent = [](const Size3& size) {
    return dim3(static_cast<unsigned>(size.x), static_cast<unsigned>(size.y), static_cast<unsigned>(size.z));
  };
  kernel<<<extent(grid), extent(block), static_cast<size_t>(shared_bytes), stream>>>(arguments...);
  return cudaGetLastError();
}

/// Of a block on the current device, arrays and dynamic together.
inline int64_t most_shared_bytes() {
  int device = 0, bytes = 48 * 1024;
  if (cudaGetDevice(&device) == cudaSuccess)
    cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  return bytes;
}

__device__ __forceinline__ void* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char coppice_dynamic_shared[];
  return coppice_dynamic_shared;
}

__device__ __forceinline__ float fast_exp2(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}
__device__ __forceinline__ float fast_exp(float x) { return __expf(x); }
__device__ __forceinline__ float fast_log2(float x) {
  float result;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}
__device__ __forceinline__ float fast_reciprocal(float x) {
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

}  // namespace coppice::device

#else

#define COPPICE_EXECUTION emulated
#include "src/tensors/executor/dialect.h"

#endif

namespace coppice::COPPICE_EXECUTION {

// ---- global memory ----

/// N neighbours in memory that are moved by one instruction (16 bytes at most; more are several).
template <class T, int N>
struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Pack {
  static_assert(N > 0 && (N & (N - 1)) == 0, "packs hold a power of two");
  T values[N];
  __host__ __device__ T& operator[](int i) { return values[i]; }
  __host__ __device__ const T& operator[](int i) const { return values[i]; }
};

#ifdef __CUDACC__
/// The compiler takes a copy of bf16 values apart into eight 2-byte moves: words are what it moves at once.
template <int Bytes>
struct WordOf {
  using type = uint4;
};
template <>
struct WordOf<1> {
  using type = unsigned char;
};
template <>
struct WordOf<2> {
  using type = unsigned short;
};
template <>
struct WordOf<4> {
  using type = unsigned;
};
template <>
struct WordOf<8> {
  using type = uint2;
};
template <class To, class From>
__device__ __forceinline__ void move_words(To* to, const From* from, int bytes) {
  using Word = typename WordOf<static_cast<int>(sizeof(To))>::type;
  static_assert(sizeof(To) % sizeof(Word) == 0 && sizeof(From) % sizeof(Word) == 0);
  COPPICE_UNROLL
  for (int i = 0; i < bytes / static_cast<int>(sizeof(Word)); ++i)
    reinterpret_cast<Word*>(to)[i] = reinterpret_cast<const Word*>(from)[i];
}
#endif

/// from[0..N), which starts at a multiple of the pack's size.
template <int N, class T>
__device__ __forceinline__ Pack<T, N> load_pack(const T* from COPPICE_CALLER) {
#ifdef __CUDACC__
  Pack<T, N> pack;
  move_words(&pack, reinterpret_cast<const Pack<T, N>*>(from), sizeof(pack));
  return pack;
#else
  count_load(from, sizeof(T) * N, at);
  return *reinterpret_cast<const Pack<T, N>*>(from);
#endif
}

/// to[0..N) = pack.
template <int N, class T>
__device__ __forceinline__ void store_pack(T* to, const Pack<T, N>& pack COPPICE_CALLER) {
#ifdef __CUDACC__
  if constexpr (sizeof(T) == 2 && sizeof(pack) == 16) {  // an assignment comes apart into four stores inside loops
    __stwb(reinterpret_cast<uint4*>(to), reinterpret_cast<const uint4&>(pack));
  } else {
    move_words(reinterpret_cast<Pack<T, N>*>(to), &pack, sizeof(pack));
  }
#else
  count_store(to, sizeof(T) * N, at);
  *reinterpret_cast<Pack<T, N>*>(to) = pack;
#endif
}

/// to[0..N) = from[0..N), in global memory both.
template <int N, class T>
__device__ __forceinline__ void copy_pack(T* to, const T* from COPPICE_CALLER) {
  store_pack<N>(to, load_pack<N>(from COPPICE_FROM_CALLER) COPPICE_FROM_CALLER);
}

/// The same in shared memory, whose bytes nobody counts.
template <int N, class T>
__device__ __forceinline__ Pack<T, N> load_shared(const T* from) {
  Pack<T, N> pack;
#ifdef __CUDACC__
  move_words(&pack, reinterpret_cast<const Pack<T, N>*>(from), sizeof(pack));
#else
  pack = *reinterpret_cast<const Pack<T, N>*>(from);
#endif
  return pack;
}
template <int N, class T>
__device__ __forceinline__ void store_shared(T* to, const Pack<T, N>& pack) {
#ifdef __CUDACC__
  move_words(reinterpret_cast<Pack<T, N>*>(to), &pack, sizeof(pack));
#else
  *reinterpret_cast<Pack<T, N>*>(to) = pack;
#endif
}

/// A float as an element of activations.
template <class T>
__device__ __forceinline__ T from_float(float value);
template <>
__device__ __forceinline__ float from_float<float>(float value) {
  return value;
}
template <>
__device__ __forceinline__ Bf16 from_float<Bf16>(float value) {
#ifdef __CUDACC__
  const __nv_bfloat16 rounded = __float2bfloat16_rn(value);
  return reinterpret_cast<const Bf16&>(rounded);
#else
  return to_bf16(value);
#endif
}

// ---- reductions, in an order that no schedule changes ----

inline constexpr int kWarpThreads = 32;
inline constexpr unsigned kWholeWarp = ~0u;

/// What the lane whose number differs in `lane_bits` holds; any type of 4, 8, 12 or 16 bytes.
template <class T>
__device__ __forceinline__ T shuffle_xor(const T& value, int lane_bits COPPICE_CALLER) {
#ifdef __CUDACC__
  static_assert(sizeof(T) % 4 == 0);
  unsigned words[sizeof(T) / 4];
  memcpy(words, &value, sizeof(T));
  COPPICE_UNROLL
  for (unsigned& word : words) word = __shfl_xor_sync(kWholeWarp, word, lane_bits);
  T result;
  memcpy(&result, words, sizeof(T));
  return result;
#else
  return __shfl_xor_sync(kWholeWarp, value, lane_bits, kWarpThreads, at);
#endif
}

/// join over the 32 lanes of a warp, equal bits in all of them. join(a, b) must have the bits of join(b, a).
template <class T, class Join>
__device__ __forceinline__ T warp_reduce(T value, Join join COPPICE_CALLER) {
  COPPICE_UNROLL
  for (int lane_bits = kWarpThreads / 2; lane_bits > 0; lane_bits /= 2)
    value = join(value, shuffle_xor(value, lane_bits COPPICE_FROM_CALLER));
  return value;
}

/// Shared memory of block_reduce: two halves of one value a warp. They take turns, so that a reduction costs one
/// barrier: nobody writes a half before all have met at the barrier of the reduction after the one that read it.
template <class T>
class ReduceScratch {
 public:
  static constexpr int kCount = 2 * kWarpThreads;
  /// `shared`: kCount elements.
  __device__ explicit ReduceScratch(T* shared) : half_(shared), other_(shared + kWarpThreads) {}
  __device__ T* next() {
    T* const half = half_;
    half_ = other_;
    other_ = half;
    return half;
  }

 private:
  T* half_;
  T* other_;
};

/// join over all threads of the block, equal bits in all of them; join(value, neutral) is value.
template <class T, class Join>
__device__ __forceinline__ T block_reduce(T value, Join join, T neutral, ReduceScratch<T>& scratch COPPICE_CALLER) {
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarpThreads, warp = thread / kWarpThreads;
  T* const half = scratch.next();
  value = warp_reduce(value, join COPPICE_FROM_CALLER);
  if (lane == 0) half[warp] = value;
#ifdef __CUDACC__
  __syncthreads();
#else
  __syncthreads(at);
#endif
  value = lane < static_cast<int>(blockDim.x) / kWarpThreads ? half[lane] : neutral;
  return warp_reduce(value, join COPPICE_FROM_CALLER);
}

struct Sum {
  template <class T>
  __device__ __forceinline__ T operator()(const T& a, const T& b) const {
    return a + b;
  }
};
struct Largest {
  __device__ __forceinline__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

}  // namespace coppice::COPPICE_EXECUTION
