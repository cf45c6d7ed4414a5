// IEEE half precision to float, without a library: what f16 datasets are read through.
#pragma once

#include <bit>
#include <cstdint>

namespace coppice {

/// Exact for every value; a NaN stays one.
inline float half_to_float(uint16_t half) {
  const uint32_t shifted = uint32_t{half} << 16, sign = shifted & 0x80000000U;
  const uint32_t magnitude = shifted << 1;  // 5 bits of exponent, 10 of mantissa, in the highest places
  // Normal numbers, infinities, NaN: exponent and mantissa move into place, 2^-112 mends the bias. Below them: the
  // mantissa added to 0.5 as its lowest bits, and 0.5 taken off again.
  const float normal = std::bit_cast<float>((magnitude >> 4) + (uint32_t{0xE0} << 23)) * 0x1p-112F;
  const float subnormal = std::bit_cast<float>((magnitude >> 17) | (uint32_t{126} << 23)) - 0.5F;
  const float value = magnitude < (uint32_t{1} << 27) ? subnormal : normal;
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(value));
}

}  // namespace coppice
