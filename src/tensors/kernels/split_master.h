// An fp32 master weight in two halves of 16 bits: the bf16 working copy that the model computes with, and what it
// lacks. The working copy is the master rounded to nearest, a tie away from zero (to even, the remainder would need a
// seventeenth bit); both together are the master, bit for bit, unless it is a NaN, which stays one. Torch-free.
#pragma once

#include <cstdint>

#include "src/tensors/kernels/bf16.h"

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

}  // namespace coppice
