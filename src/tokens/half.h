// IEEE half precision to float and back, without a library: what f16 datasets and GGUF blocks are read through.
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

/// Rounds to nearest, ties to even; beyond 65504 infinity, a NaN stays one.
inline uint16_t float_to_half(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000U, magnitude = bits & 0x7FFFFFFFU;
  uint32_t half = 0;
  if (magnitude > 0x7F800000U)
    half = 0x7E00U;
  else if (magnitude >= 0x47800000U)  // 65536
    half = 0x7C00U;
  else if (magnitude >= 0x38800000U)  // 2^-14: normal; a carry out of the mantissa goes on to the exponent
    half = (magnitude + 0xFFFU + ((magnitude >> 13) & 1U) - 0x38000000U) >> 13;
  else  // added to 0.5 the mantissa stands, rounded, in the lowest bits
    half = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5F) - 0x3F000000U;
  return static_cast<uint16_t>(sign | half);
}

}  // namespace coppice
