// Rows of floats as the threads of their block hold them: in groups of four, in registers or in memory. For .cu files,
// after src/tensors/kernels/cuda_dialect.h.
#pragma once

#include "src/tensors/kernels/cuda_dialect.h"

namespace coppice::COPPICE_EXECUTION {

inline constexpr int kGroup = 4;  // values that are moved, and added up in float, together
using Group = Pack<float, kGroup>;

/// Where the groups of a row lie. They are moved in packs, or with kVec = 1 value by value.
template <int kVec>
struct RowShape {
  int count, num_groups;
  __device__ explicit RowShape(int64_t num_channels)
      : count(static_cast<int>(num_channels)), num_groups((count + kGroup - 1) / kGroup) {}
  __device__ __forceinline__ Group load(const float* row, int group, float absent) const {
    if constexpr (kVec == kGroup) {
      return load_pack<kGroup>(row + group * kGroup);
    } else {
      Group values;
      COPPICE_UNROLL
      for (int i = 0; i < kGroup; ++i)
        values[i] = group * kGroup + i < count ? load_pack<1>(row + group * kGroup + i)[0] : absent;
      return values;
    }
  }
  __device__ __forceinline__ void store(float* row, int group, const Group& values) const {
    if constexpr (kVec == kGroup) {
      store_pack<kGroup>(row + group * kGroup, values);
    } else {
      COPPICE_UNROLL
      for (int i = 0; i < kGroup; ++i)
        if (group * kGroup + i < count) store_pack<1>(row + group * kGroup + i, Pack<float, 1>{{values[i]}});
    }
  }
};

/// The thread's groups of a row: its own number, and every blockDim-th from there. Behind a row that is no multiple of
/// the group there are values `absent`.
template <int kVec, int kSlots>
class HeldRow {
 public:
  static constexpr int kPack = kVec;
  __device__ HeldRow(const RowShape<kVec>& shape, const float* from, float absent, float* = nullptr)
      : num_groups_(shape.num_groups) {
    COPPICE_UNROLL
    for (int slot = 0; slot < kSlots; ++slot)
      if (has(slot)) values_[slot] = shape.load(from, group(slot), absent);
  }
  template <class Visit>
  __device__ __forceinline__ void each(const Visit& visit) const {
    COPPICE_UNROLL
    for (int slot = 0; slot < kSlots; ++slot)
      if (has(slot)) visit(group(slot), values_[slot]);
  }
  template <class Map>
  __device__ __forceinline__ void replace(const Map& map, float) {
    COPPICE_UNROLL
    for (int slot = 0; slot < kSlots; ++slot)
      if (has(slot)) values_[slot] = map(values_[slot]);
  }
  template <class Visit>
  __device__ __forceinline__ void each_with(const HeldRow& other, const Visit& visit) const {
    COPPICE_UNROLL
    for (int slot = 0; slot < kSlots; ++slot)
      if (has(slot)) visit(group(slot), values_[slot], other.values_[slot]);
  }

 private:
  __device__ __forceinline__ int group(int slot) const { return static_cast<int>(threadIdx.x + slot * blockDim.x); }
  __device__ __forceinline__ bool has(int slot) const { return group(slot) < num_groups_; }
  Group values_[kSlots];
  int num_groups_;
};

/// The same of a row that is too wide for registers. What replaces its values is written to `scratch`.
template <int kVec>
class StreamedRow {
 public:
  static constexpr int kPack = kVec;
  __device__ StreamedRow(const RowShape<kVec>& shape, const float* from, float absent, float* scratch = nullptr)
      : shape_(shape), from_(from), scratch_(scratch), absent_(absent) {}
  template <class Visit>
  __device__ __forceinline__ void each(const Visit& visit) const {
    for (int group = threadIdx.x; group < shape_.num_groups; group += blockDim.x)
      visit(group, shape_.load(from_, group, absent_));
  }
  template <class Map>
  __device__ __forceinline__ void replace(const Map& map, float absent) {
    each([&](int group, const Group& values) { shape_.store(scratch_, group, map(values)); });
    from_ = scratch_;
    absent_ = absent;
  }
  template <class Visit>
  __device__ __forceinline__ void each_with(const StreamedRow& other, const Visit& visit) const {
    each([&](int group, const Group& values) {
      visit(group, values, other.shape_.load(other.from_, group, other.absent_));
    });
  }

 private:
  RowShape<kVec> shape_;
  const float* from_;
  float* scratch_;
  float absent_;
};

__device__ __forceinline__ float sum_of(const Group& values) {
  return (values[0] + values[1]) + (values[2] + values[3]);
}

/// Whether rows can be moved in packs.
inline bool in_groups(const void* start, int64_t row_stride) {
  return reinterpret_cast<uintptr_t>(start) % 16 == 0 && row_stride % kGroup == 0;
}

/// Threads of a block for a row of `columns`: one a group, as far as there are `most`, a multiple of 32.
inline int threads_for_groups(int64_t columns, int most) {
  const int64_t a_warp = int64_t{kWarpThreads} * kGroup, threads = (columns + a_warp - 1) / a_warp * kWarpThreads;
  return static_cast<int>(threads < most ? threads : most);
}

}  // namespace coppice::COPPICE_EXECUTION
