// Compiled with -ffp-contract=off: a fused multiply-add would change bytes.
#include "src/checkpoint/quantised_blocks.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>

#include "src/base/errors.h"
#include "src/tensors/kernels/parallel_rows.h"
#include "src/tokens/half.h"

namespace coppice {
namespace {

static_assert(std::endian::native == std::endian::little, "numbers of a block are read as they lie in memory");
constexpr uint32_t kExponent = 0x7F800000U;  // all ones: infinite or NaN
constexpr uint16_t kHalfExponent = 0x7C00U;
constexpr int64_t kRunElements = 4096;  // what is looked at again while it is in the nearest cache

template <class T>
T number_at(const uint8_t* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(T));
  return value;
}
float half_at(const uint8_t* bytes) { return half_to_float(number_at<uint16_t>(bytes)); }

bool all_finite(const float* values, int64_t count) {
  uint32_t bad = 0;
  for (int64_t i = 0; i < count; ++i) bad |= (std::bit_cast<uint32_t>(values[i]) & kExponent) == kExponent ? 1U : 0U;
  return bad == 0;
}

// ---- one block to float32 ----

void decode_f32(const uint8_t* block, float* y) { std::memcpy(y, block, 4); }
void decode_f16(const uint8_t* block, float* y) { *y = half_at(block); }
void decode_bf16(const uint8_t* block, float* y) {
  *y = std::bit_cast<float>(uint32_t{number_at<uint16_t>(block)} << 16);
}

void decode_q8_0(const uint8_t* block, float* y) {
  const float d = half_at(block);
  for (int i = 0; i < 32; ++i) y[i] = static_cast<float>(static_cast<int8_t>(block[2 + i])) * d;
}

void decode_q4_0(const uint8_t* block, float* y) {
  const float d = half_at(block);
  for (int i = 0; i < 16; ++i) {
    y[i] = static_cast<float>((block[2 + i] & 0x0F) - 8) * d;
    y[i + 16] = static_cast<float>((block[2 + i] >> 4) - 8) * d;
  }
}

void decode_q4_1(const uint8_t* block, float* y) {
  const float d = half_at(block), m = half_at(block + 2);
  for (int i = 0; i < 16; ++i) {
    y[i] = static_cast<float>(block[4 + i] & 0x0F) * d + m;
    y[i + 16] = static_cast<float>(block[4 + i] >> 4) * d + m;
  }
}

/// The i-th of 32 values of five bits: four in a nibble, the highest one among 32 others.
int five_bits(const uint8_t* nibbles, uint32_t high, int i) {
  const int low = i < 16 ? nibbles[i] & 0x0F : nibbles[i - 16] >> 4;
  return low | static_cast<int>(((high >> i) & 1U) << 4);
}

void decode_q5_0(const uint8_t* block, float* y) {
  const float d = half_at(block);
  const auto high = number_at<uint32_t>(block + 2);
  for (int i = 0; i < 32; ++i) y[i] = static_cast<float>(five_bits(block + 6, high, i) - 16) * d;
}

void decode_q5_1(const uint8_t* block, float* y) {
  const float d = half_at(block), m = half_at(block + 2);
  const auto high = number_at<uint32_t>(block + 4);
  for (int i = 0; i < 32; ++i) y[i] = static_cast<float>(five_bits(block + 8, high, i)) * d + m;
}

struct ScaleAndMinimum {
  int scale, minimum;
};
/// The i-th of eight pairs of six bits in 12 bytes: the first four lie in the low bits of bytes 0-3 and 4-7; of the
/// others the low four bits lie in bytes 8-11, the high two in the high bits of bytes 0-7.
ScaleAndMinimum six_bits(const uint8_t* packed, int i) {
  if (i < 4) return {packed[i] & 63, packed[i + 4] & 63};
  return {(packed[i + 4] & 0x0F) | ((packed[i - 4] >> 6) << 4), (packed[i + 4] >> 4) | ((packed[i] >> 6) << 4)};
}

/// Eight parts of 32 values; two at a time share 32 bytes of nibbles. `high` (Q5_K): the fifth bits, bit i of byte l
/// for value l of part i.
void decode_parts(const uint8_t* block, const uint8_t* nibbles, const uint8_t* high, float* y) {
  const float d = half_at(block), m = half_at(block + 2);
  for (int part = 0; part < 8; ++part) {
    const auto [scale, minimum] = six_bits(block + 4, part);
    const float part_d = d * static_cast<float>(scale), part_m = m * static_cast<float>(minimum);
    const uint8_t* bytes = nibbles + 32 * (part / 2);
    const int shift = part % 2 * 4;
    for (int l = 0; l < 32; ++l) {
      int q = (bytes[l] >> shift) & 0x0F;
      if (high != nullptr) q |= ((high[l] >> part) & 1) << 4;
      y[32 * part + l] = part_d * static_cast<float>(q) - part_m;
    }
  }
}

void decode_q4_k(const uint8_t* block, float* y) { decode_parts(block, block + 16, nullptr, y); }
void decode_q5_k(const uint8_t* block, float* y) { decode_parts(block, block + 48, block + 16, y); }

void decode_q6_k(const uint8_t* block, float* y) {
  const uint8_t *low = block, *high = block + 128, *scales = block + 192;
  const float d = half_at(block + 208);
  for (int half = 0; half < 2; ++half, low += 64, high += 32, scales += 8, y += 128)
    for (int part = 0; part < 4; ++part)
      for (int l = 0; l < 32; ++l) {
        const int nibble = (low[l + 32 * (part % 2)] >> (part / 2 * 4)) & 0x0F;
        const int q = (nibble | (((high[l] >> (2 * part)) & 3) << 4)) - 32;
        const int scale = static_cast<int8_t>(scales[2 * part + l / 16]);
        y[32 * part + l] = d * static_cast<float>(scale) * static_cast<float>(q);
      }
}

// ---- float32 to one block; false: beyond float16 ----

bool is_finite_half(uint16_t half) { return (half & kHalfExponent) != kHalfExponent; }

bool encode_f32(const float* x, uint8_t* block) {
  std::memcpy(block, x, 4);
  return true;
}

bool encode_f16(const float* x, uint8_t* block) {
  const uint16_t half = float_to_half(*x);
  std::memcpy(block, &half, 2);
  return is_finite_half(half);
}

bool encode_bf16(const float* x, uint8_t* block) {
  const auto bits = std::bit_cast<uint32_t>(*x);
  const auto rounded = static_cast<uint16_t>((bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16);
  std::memcpy(block, &rounded, 2);
  return (rounded & 0x7F80U) != 0x7F80U;
}

bool encode_q8_0(const float* x, uint8_t* block) {
  float largest = 0;
  for (int i = 0; i < 32; ++i) largest = std::max(largest, std::fabs(x[i]));
  const float d = largest / 127.0F, inverse = d != 0 ? 1.0F / d : 0.0F;
  const uint16_t half = float_to_half(d);
  std::memcpy(block, &half, 2);
  for (int i = 0; i < 32; ++i) {
    const float scaled = x[i] * inverse;  // infinite or NaN where d is so small that 1 / d overflows: 0, as on x86
    block[2 + i] = std::isfinite(scaled) ? static_cast<uint8_t>(static_cast<int8_t>(std::roundf(scaled))) : 0;
  }
  return is_finite_half(half);
}

bool encode_q4_0(const float* x, uint8_t* block) {
  float largest = 0, max = 0;  // the first value of largest magnitude, with its sign
  for (int i = 0; i < 32; ++i)
    if (largest < std::fabs(x[i])) largest = std::fabs(x[i]), max = x[i];
  const float d = max / -8.0F, inverse = d != 0 ? 1.0F / d : 0.0F;  // a block of zeros: d = -0
  const uint16_t half = float_to_half(d);
  std::memcpy(block, &half, 2);
  const auto nibble = [&](float value) {
    const float scaled = value * inverse;
    return std::isfinite(scaled) ? std::min(15, static_cast<int>(scaled + 8.5F)) : 0;
  };
  for (int i = 0; i < 16; ++i) block[2 + i] = static_cast<uint8_t>(nibble(x[i]) | nibble(x[i + 16]) << 4);
  return is_finite_half(half);
}

// ---- all blocks of a tensor ----

using DecodeRun = void (*)(const uint8_t* blocks, int64_t count, float* y);
using EncodeRun = bool (*)(const float* x, int64_t count, uint8_t* blocks);

template <auto Decode, int64_t kElements, int64_t kBytes>
void decode_run(const uint8_t* blocks, int64_t count, float* y) {
  for (int64_t i = 0; i < count; ++i) Decode(blocks + i * kBytes, y + i * kElements);
}
template <auto Encode, int64_t kElements, int64_t kBytes>
bool encode_run(const float* x, int64_t count, uint8_t* blocks) {
  bool finite = true;
  for (int64_t i = 0; i < count; ++i) finite = Encode(x + i * kElements, blocks + i * kBytes) && finite;
  return finite;
}

struct Codec {
  GgmlType type;
  DecodeRun decode;
  EncodeRun encode;  // nullptr: only read
};
constexpr Codec kCodecs[] = {
    {GgmlType::f32, decode_run<decode_f32, 1, 4>, encode_run<encode_f32, 1, 4>},
    {GgmlType::f16, decode_run<decode_f16, 1, 2>, encode_run<encode_f16, 1, 2>},
    {GgmlType::bf16, decode_run<decode_bf16, 1, 2>, encode_run<encode_bf16, 1, 2>},
    {GgmlType::q8_0, decode_run<decode_q8_0, 32, 34>, encode_run<encode_q8_0, 32, 34>},
    {GgmlType::q4_0, decode_run<decode_q4_0, 32, 18>, encode_run<encode_q4_0, 32, 18>},
    {GgmlType::q4_1, decode_run<decode_q4_1, 32, 20>, nullptr},
    {GgmlType::q5_0, decode_run<decode_q5_0, 32, 22>, nullptr},
    {GgmlType::q5_1, decode_run<decode_q5_1, 32, 24>, nullptr},
    {GgmlType::q4_k, decode_run<decode_q4_k, 256, 144>, nullptr},
    {GgmlType::q5_k, decode_run<decode_q5_k, 256, 176>, nullptr},
    {GgmlType::q6_k, decode_run<decode_q6_k, 256, 210>, nullptr},
};

const Codec& codec_of(GgmlType type) {
  const auto found = std::ranges::find(kCodecs, type, &Codec::type);
  COPPICE_CHECK(found != std::end(kCodecs), ggml_type_row(type).name);
  return *found;
}

/// Number of blocks; both sides must hold as many.
int64_t num_blocks(GgmlType type, size_t elements, size_t bytes) {
  const GgmlTypeRow& row = ggml_type_row(type);
  const size_t blocks = elements / row.elements;
  COPPICE_CHECK(blocks * row.elements == elements && blocks * row.bytes == bytes,
                std::string(row.name) + ": elements and bytes of different numbers of blocks");
  return static_cast<int64_t>(blocks);
}

/// Calls run(first, count) for runs of blocks in parallel; false when one of them said so.
template <class Run>
bool for_all_runs(GgmlType type, int64_t blocks, const Run& run) {
  const int64_t elements = ggml_type_row(type).elements, length = std::max<int64_t>(1, kRunElements / elements);
  std::atomic<bool> good = true;
  parallel_rows(blocks, threads_for(blocks * elements), [&](int64_t begin, int64_t end, int) {
    for (int64_t first = begin; first < end; first += length)
      if (!run(first, std::min(length, end - first))) good.store(false, std::memory_order_relaxed);
  });
  return good;
}

}  // namespace

bool dequantise(GgmlType type, std::span<const std::byte> blocks, std::span<float> values) {
  const Codec& codec = codec_of(type);
  const GgmlTypeRow& row = ggml_type_row(type);
  const auto* bytes = reinterpret_cast<const uint8_t*>(blocks.data());
  return for_all_runs(type, num_blocks(type, values.size(), blocks.size()), [&](int64_t first, int64_t count) {
    float* y = values.data() + first * row.elements;
    codec.decode(bytes + first * row.bytes, count, y);
    return all_finite(y, count * row.elements);
  });
}

bool quantise(GgmlType type, std::span<const float> values, std::span<std::byte> blocks) {
  const Codec& codec = codec_of(type);
  COPPICE_CHECK(codec.encode != nullptr, ggml_type_row(type).name);
  const GgmlTypeRow& row = ggml_type_row(type);
  auto* bytes = reinterpret_cast<uint8_t*>(blocks.data());
  return for_all_runs(type, num_blocks(type, values.size(), blocks.size()), [&](int64_t first, int64_t count) {
    const float* x = values.data() + first * row.elements;
    return all_finite(x, count * row.elements) && codec.encode(x, count, bytes + first * row.bytes);
  });
}

}  // namespace coppice
