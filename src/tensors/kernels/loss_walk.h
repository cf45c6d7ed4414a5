// What the kernels over rows of logits share. One block has one row; its threads take packs of it in turn, so that a
// thread sees the same columns in every walk, and what it keeps of them in shared memory is its own. Sums of
// exponentials are kept online, beside the largest logit so far. All statistics are float32, exponents are in powers of
// two: x = z log2(e) / tau. The threads, and with them the bits, depend on the width of a row alone.
#pragma once

#include <cfloat>
#include <climits>
#include <cmath>

#include "src/tensors/kernels/float_packs.h"

namespace coppice::COPPICE_EXECUTION {

inline constexpr float kLog2E = 1.4426950408889634f;
inline constexpr float kLn2 = 0.6931471805599453f;

// ---- walks ----

/// body(column, pack) for the thread's packs of a row in global memory, kUnderWay loads at a time.
template <int kVec, int kUnderWay = 4, class T, class Body>
__device__ __forceinline__ void walk_row(const T* row, int columns, const Body& body) {
  const int stride = static_cast<int>(blockDim.x) * kVec;
  int v = static_cast<int>(threadIdx.x) * kVec;
  for (; v + (kUnderWay - 1) * stride < columns; v += kUnderWay * stride) {
    Pack<T, kVec> packs[kUnderWay];
    COPPICE_UNROLL
    for (int i = 0; i < kUnderWay; ++i) packs[i] = load_pack<kVec>(row + v + i * stride);
    COPPICE_UNROLL
    for (int i = 0; i < kUnderWay; ++i) body(v + i * stride, packs[i]);
  }
  for (; v < columns; v += stride) body(v, load_pack<kVec>(row + v));
}

/// body(column, pack of the first, pack of the second row).
template <int kVec, class T, class Body>
__device__ __forceinline__ void walk_two_rows(const T* first, const T* second, int columns, const Body& body) {
  constexpr int kUnderWay = 2;
  const int stride = static_cast<int>(blockDim.x) * kVec;
  int v = static_cast<int>(threadIdx.x) * kVec;
  for (; v + (kUnderWay - 1) * stride < columns; v += kUnderWay * stride) {
    Pack<T, kVec> a[kUnderWay], b[kUnderWay];
    COPPICE_UNROLL
    for (int i = 0; i < kUnderWay; ++i) {
      a[i] = load_pack<kVec>(first + v + i * stride);
      b[i] = load_pack<kVec>(second + v + i * stride);
    }
    COPPICE_UNROLL
    for (int i = 0; i < kUnderWay; ++i) body(v + i * stride, a[i], b[i]);
  }
  for (; v < columns; v += stride) body(v, load_pack<kVec>(first + v), load_pack<kVec>(second + v));
}

/// body(column) for the same packs.
template <int kVec, class Body>
__device__ __forceinline__ void walk_columns(int columns, const Body& body) {
  const int stride = static_cast<int>(blockDim.x) * kVec;
  for (int v = static_cast<int>(threadIdx.x) * kVec; v < columns; v += stride) body(v);
}

template <int kVec, class T>
__device__ __forceinline__ void store_zeros(T* row, int columns) {
  walk_columns<kVec>(columns, [&](int v) { store_floats(row + v, Pack<float, kVec>{}); });
}

/// Takes `share` off the pack's entry of `column`, where it has it.
template <int kVec>
__device__ __forceinline__ void take_off(Pack<float, kVec>& pack, int v, int column, float share) {
  if (static_cast<unsigned>(column - v) >= kVec) return;
  COPPICE_UNROLL
  for (int i = 0; i < kVec; ++i)
    if (v + i == column) pack[i] -= share;
}

// ---- statistics ----

/// sum of 2^(x - largest) over some x.
struct Exponentials {
  float largest;
  float sum;
};
/// Of no x at all: below every logit, and finite, so that no difference is a NaN.
__device__ __forceinline__ Exponentials no_exponentials() { return {-1e38f, 0.0f}; }

/// Adds z[i] * factor, below 2^30 or an infinity. A NaN goes into the sum. The rounding of `largest` is in all terms
/// alike.
template <int kVec>
__device__ __forceinline__ void add_exponentials(Exponentials& to, const Pack<float, kVec>& z, float factor) {
  float top = z[0];
  COPPICE_UNROLL
  for (int i = 1; i < kVec; ++i) top = fmaxf(top, z[i]);
  const float largest = fmaxf(to.largest, top * factor);
  float sum = 0.0f;
  COPPICE_UNROLL
  for (int i = 0; i < kVec; ++i) sum += fast_exp2(fmaf(z[i], factor, -largest));
  to.sum = fmaf(to.sum, fast_exp2(to.largest - largest), sum);
  to.largest = largest;
}

/// Scales the one with the smaller largest, so that a and b may change places.
__device__ __forceinline__ Exponentials join(const Exponentials& a, const Exponentials& b) {
  const bool a_leads = a.largest >= b.largest;
  const Exponentials lead = a_leads ? a : b, other = a_leads ? b : a;
  return {lead.largest, fmaf(other.sum, fast_exp2(other.largest - lead.largest), lead.sum)};
}

struct JoinExponentials {
  __device__ __forceinline__ Exponentials operator()(const Exponentials& a, const Exponentials& b) const {
    return join(a, b);
  }
};

/// log2 of the whole sum.
__device__ __forceinline__ float log2_of(const Exponentials& all) { return all.largest + log2f(all.sum); }

/// A row's largest logit, the lowest id among equals.
struct Choice {
  float logit;
  int id;
};
__device__ __forceinline__ Choice no_choice() { return {-INFINITY, INT_MAX}; }
struct JoinChoices {
  __device__ __forceinline__ Choice operator()(const Choice& a, const Choice& b) const {
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id) ? a : b;
  }
};
/// Columns must come in ascending order.
template <int kVec>
__device__ __forceinline__ void add_choices(Choice& to, const Pack<float, kVec>& z, int v) {
  COPPICE_UNROLL
  for (int i = 0; i < kVec; ++i)
    if (z[i] > to.logit) to = {z[i], v + i};
}

// ---- launches ----

/// The largest block: its threads have at most 64 registers.
inline constexpr int kMostWalkThreads = 1024;
inline constexpr int64_t kArrayBytes = 3 * 1024;  // at most, of the kernels' arrays in shared memory
/// Rows of a block up to so many bytes leave room for a second block on a multiprocessor of sm_90: 228 KiB, of which
/// the device takes 1 KiB a block.
inline constexpr int64_t kBytesOfTwoBlocks = 228 * 1024 / 2 - 1024 - kArrayBytes;

/// Calls launch_with<kVec, kKeep>(threads, shared_bytes). `rows`: what a block reads, each of `columns`; aligned: all
/// of them in packs of 16 bytes. keep: wanted in shared memory, behind `ahead` bytes (a multiple of 16); where they do
/// not fit, a second walk reads them again, from the cache.
template <class T, class LaunchWith>
int launch_walk(int64_t columns, int rows, bool aligned, bool keep, int64_t ahead, const LaunchWith& launch_with) {
  constexpr int kVec = 16 / sizeof(T);
  const int64_t bytes = rows * columns * static_cast<int64_t>(sizeof(T)),
                most = bytes <= kBytesOfTwoBlocks ? 512 : 1024;
  const auto threads = [&](int64_t vec) {
    const int64_t packs = (columns + vec - 1) / vec, warps = (packs + kWarpThreads - 1) / kWarpThreads;
    return static_cast<int>(warps * kWarpThreads < most ? warps * kWarpThreads : most);
  };
  if (!aligned) return launch_with.template operator()<1, false>(threads(1), ahead);
  if (keep && ahead + bytes + kArrayBytes <= most_shared_bytes())
    return launch_with.template operator()<kVec, true>(threads(kVec), ahead + bytes);
  return launch_with.template operator()<kVec, false>(threads(kVec), ahead);
}

}  // namespace coppice::COPPICE_EXECUTION
