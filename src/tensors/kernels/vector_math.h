// Scalar functions written so that GCC vectorises the loops that call them, at the width of the instruction set that
// the loop is compiled for.
#pragma once

#include <bit>
#include <cstdint>

#include "src/tensors/kernels/instruction_set.h"

namespace coppice {

/// e^x within 1 ulp without branches; 0 below about -103.97, infinity above 88.73, subnormals in between (a few units
/// off), NaN stays NaN. x = n ln2 + r, |r| <= ln2 / 2; e^r by its Taylor polynomial of degree 7 (remainder 6e-9 of the
/// value); 2^n in two factors, so that n may reach -150.
COPPICE_INLINE float vector_exp(float x) {
  x = x < -104.0f ? -104.0f : x;
  x = x > 89.0f ? 89.0f : x;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  const float shifted = x * 1.44269504088896341f + kRound;
  const float n = shifted - kRound;
  const int32_t exponent = std::bit_cast<int32_t>(shifted) - std::bit_cast<int32_t>(kRound);
  float r = x - n * 0.693145751953125f;  // the high 16 bits of ln2: n * high is exact
  r = r - n * 1.428606820309417e-06f;
  float p = 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const int32_t half = exponent >> 1;
  return p * std::bit_cast<float>((half + 127) << 23) * std::bit_cast<float>((exponent - half + 127) << 23);
}

/// e^x within 1 ulp for x up to 88, 0 below -87 (no subnormal numbers), NaN stays NaN: half the cost of vector_exp, for
/// sums and weights.
COPPICE_INLINE float vector_exp_flushed(float x) {
  float y = x < -87.0f ? -87.0f : x;
  y = y > 88.0f ? 88.0f : y;
  constexpr float kRound = 12582912.0f;
  const float shifted = y * 1.44269504088896341f + kRound;
  const float n = shifted - kRound;
  const int32_t exponent = std::bit_cast<int32_t>(shifted) - std::bit_cast<int32_t>(kRound);
  float r = y - n * 0.693145751953125f;
  r = r - n * 1.428606820309417e-06f;
  float p = 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const float value = p * std::bit_cast<float>((exponent + 127) << 23);
  return x < -87.0f ? 0.0f : value;
}

/// Natural logarithm of a positive normal number, within 1 ulp: x = 2^e m, m in [sqrt(1/2), sqrt 2), and the polynomial
/// of log(1 + f) by Cephes.
COPPICE_INLINE float vector_log(float x) {
  const int32_t bits = std::bit_cast<int32_t>(x), exponent = (bits - 0x3f3504f3) >> 23;
  const float n = static_cast<float>(exponent), f = std::bit_cast<float>(bits - (exponent << 23)) - 1.0f,
              square = f * f;
  float p = 7.0376836292e-2f;
  p = p * f - 1.1514610310e-1f;
  p = p * f + 1.1676998740e-1f;
  p = p * f - 1.2420140846e-1f;
  p = p * f + 1.4249322787e-1f;
  p = p * f - 1.6668057665e-1f;
  p = p * f + 2.0000714765e-1f;
  p = p * f - 2.4999993993e-1f;
  p = p * f + 3.3333331174e-1f;
  p = p * f * square - n * 2.12194440e-4f - 0.5f * square;  // ln2 in two parts: n * 0.693359375 is exact
  return f + p + n * 0.693359375f;
}

/// 1 / (1 + e^-x), within 3 ulp for x > -87; falls to 0 below -103.97.
COPPICE_INLINE float vector_sigmoid(float x) { return 1.0f / (1.0f + vector_exp(-x)); }

}  // namespace coppice
