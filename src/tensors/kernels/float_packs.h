// Packs of any element type as floats, which is what kernels compute with. For .cu files. Torch-free.
#pragma once

#include "src/tensors/kernels/cuda_dialect.h"

namespace coppice::COPPICE_EXECUTION {

template <int N, class T>
__device__ __forceinline__ Pack<float, N> floats_of(const Pack<T, N>& pack) {
  Pack<float, N> floats;
#ifdef __CUDACC__
  if constexpr (sizeof(T) == 2 && N > 1) {  // one instruction an element; halves taken one by one are three a pair
    COPPICE_UNROLL
    for (int i = 0; i < N; i += 2) {
      const unsigned pair = reinterpret_cast<const unsigned*>(&pack)[i / 2];
      floats[i] = __uint_as_float(pair << 16);
      floats[i + 1] = __uint_as_float(pair & 0xffff0000u);
    }
  } else
#endif
  {
    COPPICE_UNROLL
    for (int i = 0; i < N; ++i) floats[i] = to_float(pack[i]);
  }
  return floats;
}

template <int N, class T>
__device__ __forceinline__ Pack<float, N> load_floats(const T* from COPPICE_CALLER) {
  return floats_of(load_pack<N>(from COPPICE_FROM_CALLER));
}

/// from[first..first + N), or zeros where nothing is `there`; `from` may be null then. No branch: a load by condition
/// does not keep those behind it from being issued.
template <int N, class T>
__device__ __forceinline__ Pack<T, N> load_or_zero(const T* from, int64_t first, bool there COPPICE_CALLER) {
#ifdef __CUDACC__
  using Word = typename WordOf<static_cast<int>(sizeof(Pack<T, N>))>::type;
  Pack<T, N> pack;  // by words: zeros of two bytes would be chosen one by one
  COPPICE_UNROLL
  for (int i = 0; i < static_cast<int>(sizeof(pack) / sizeof(Word)); ++i) reinterpret_cast<Word*>(&pack)[i] = Word{};
#else
  Pack<T, N> pack{};
#endif
  if (there) pack = load_pack<N>(from + first COPPICE_FROM_CALLER);
  return pack;
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
