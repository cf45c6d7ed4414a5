// An fp32 master weight in two halves of 16 bits: the bf16 working copy that the model computes with, and what it
// lacks. The working copy is the master rounded to nearest, a tie away from zero (to even, the remainder would need a
// seventeenth bit); both together are the master, bit for bit, unless it is a NaN, which stays one. A working copy
// beside a whole master is rounded the same way, so that how a master is kept changes no bit. Torch-free.
#pragma once

#include <cstdint>

#include "src/tensors/kernels/bf16.h"

struct CUstream_st;  // cudaStream_t points to one

namespace coppice {

struct SplitMaster {
  Bf16 working;
  int16_t remainder;  // in the master's last bits: master = (working << 16) + remainder, as integers
};

COPPICE_HOST_DEVICE inline SplitMaster split_master(float master) {
  uint32_t bits;
  memcpy(&bits, &master, sizeof(bits));
  if ((bits & 0x7fffffff) > 0x7f800000) return {{0x7fff}, 0};
  return {{static_cast<uint16_t>((bits + 0x8000) >> 16)}, static_cast<int16_t>(bits & 0xffff)};
}

COPPICE_HOST_DEVICE inline float join_master(SplitMaster split) {
  const uint32_t bits =
      (static_cast<uint32_t>(split.working.bits) << 16) + static_cast<uint32_t>(int32_t{split.remainder});
  float master;
  memcpy(&master, &bits, sizeof(master));
  return master;
}

/// working[i] and remainder[i] = the halves of master[i].
struct SplitMastersParams {
  const float* master = nullptr;  // (size)
  Bf16* working = nullptr;        // (size)
  int16_t* remainder = nullptr;   // (size); null: the working copy alone
  int64_t size = 0;
};

/// master[i] = what the halves at places[i] are together, or those at i where there are no places.
struct JoinMastersParams {
  const Bf16* working = nullptr;
  const int16_t* remainder = nullptr;
  const int64_t* places = nullptr;  // (size) or null
  float* master = nullptr;          // (size)
  int64_t size = 0;
};

void split_masters_cpu(const SplitMastersParams& params);
void join_masters_cpu(const JoinMastersParams& params);

// Each enqueues and returns the launch's error, 0 for none.
namespace device {
int split_masters(const SplitMastersParams& params, CUstream_st* stream);
int join_masters(const JoinMastersParams& params, CUstream_st* stream);
}  // namespace device
namespace emulated {
int split_masters(const SplitMastersParams& params, CUstream_st* stream);
int join_masters(const JoinMastersParams& params, CUstream_st* stream);
}  // namespace emulated

}  // namespace coppice
