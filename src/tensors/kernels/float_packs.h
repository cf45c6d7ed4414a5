// Packs of any element type as floats, which is what kernels compute with. For .cu files. Torch-free.
#pragma once

#include "src/tensors/kernels/cuda_dialect.h"

namespace coppice::COPPICE_EXECUTION {

template <int N, class T>
__device__ __forceinline__ Pack<float, N> floats_of(const Pack<T, N>& pack) {
  Pack<float, N> floats;
  COPPICE_UNROLL
  for (int i = 0; i < N; ++i) floats[i] = to_float(pack[i]);
  return floats;
}

template <int N, class T>
__device__ __forceinline__ Pack<float, N> load_floats(const T* from COPPICE_CALLER) {
  return floats_of(load_pack<N>(from COPPICE_FROM_CALLER));
}

/// from[first..first + N), or zeros where nothing is `there`; `from` may be null then.
template <int N, class T>
__device__ __forceinline__ Pack<float, N> load_floats(const T* from, int64_t first, bool there COPPICE_CALLER) {
  if (!there) return {};
  return load_floats<N>(from + first COPPICE_FROM_CALLER);
}

/// to[0..N) = floats, each rounded to nearest.
template <int N, class T>
__device__ __forceinline__ void store_floats(T* to, const Pack<float, N>& floats COPPICE_CALLER) {
  Pack<T, N> pack;
  COPPICE_UNROLL
  for (int i = 0; i < N; ++i) pack[i] = from_float<T>(floats[i]);
  store_pack<N>(to, pack COPPICE_FROM_CALLER);
}

/// Whether every row, `row_stride` elements after the one before, starts at a multiple of 16 bytes.
template <class T>
bool starts_at_packs(const T* rows, int64_t row_stride) {
  return reinterpret_cast<uintptr_t>(rows) % 16 == 0 && row_stride * static_cast<int64_t>(sizeof(T)) % 16 == 0;
}

}  // namespace coppice::COPPICE_EXECUTION
