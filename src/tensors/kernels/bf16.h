// bfloat16 as two bytes: the upper half of a float. at::BFloat16 and __nv_bfloat16 have this layout, so that pointers
// to them are pointers to it. Torch-free.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define COPPICE_HOST_DEVICE __host__ __device__
#else
#define COPPICE_HOST_DEVICE
#endif

namespace coppice {

struct Bf16 {
  uint16_t bits;
};
static_assert(sizeof(Bf16) == 2);

COPPICE_HOST_DEVICE inline float to_float(float value) { return value; }
COPPICE_HOST_DEVICE inline float to_float(Bf16 value) {
  const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
  float result;
  memcpy(&result, &bits, sizeof(result));
  return result;
}

/// Rounds to nearest, ties to even; every NaN becomes 0x7fff, as a device's conversion makes it.
COPPICE_HOST_DEVICE inline Bf16 to_bf16(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  if ((bits & 0x7fffffff) > 0x7f800000) return {0x7fff};
  return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

}  // namespace coppice
