// Blocks against values and bytes worked out by hand from the formulas of ggml-quants.c; the parity tests compare all
// types with the gguf package.
#include "src/checkpoint/quantised_blocks.h"

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "src/base/errors.h"
#include "src/tokens/half.h"

using namespace coppice;

namespace {

using Bytes = std::vector<uint8_t>;

/// Little-endian half before others.
Bytes block(std::initializer_list<uint16_t> halves, const Bytes& rest) {
  Bytes bytes;
  for (const uint16_t half : halves) {
    bytes.push_back(static_cast<uint8_t>(half & 0xFF));
    bytes.push_back(static_cast<uint8_t>(half >> 8));
  }
  bytes.insert(bytes.end(), rest.begin(), rest.end());
  return bytes;
}

std::vector<float> values_of(GgmlType type, const Bytes& bytes) {
  const GgmlTypeRow& row = ggml_type_row(type);
  std::vector<float> values(bytes.size() / row.bytes * row.elements);
  CHECK(dequantise(type, std::as_bytes(std::span(bytes)), values));
  return values;
}

Bytes blocks_of(GgmlType type, const std::vector<float>& values) {
  const GgmlTypeRow& row = ggml_type_row(type);
  Bytes bytes(values.size() / row.elements * row.bytes);
  CHECK(quantise(type, values, std::as_writable_bytes(std::span(bytes))));
  return bytes;
}

/// 32 values: the first ones as given, the others 0.
std::vector<float> row_of(const std::vector<float>& first) {
  std::vector<float> values = first;
  values.resize(32, 0.0F);
  return values;
}

constexpr uint16_t kOne = 0x3C00, kHalf = 0x3800, kTwo = 0x4000, kMinusOne = 0xBC00;

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("quantised_blocks: one block of each type, read") {
    CHECK(values_of(GgmlType::f16, block({kOne, 0x8000, 0x0001}, {}))[2] == 0x1p-24F);
    CHECK(std::signbit(values_of(GgmlType::f16, block({kOne, 0x8000}, {}))[1]));
    CHECK(values_of(GgmlType::bf16, block({0x3F80, 0xC000, 0x0001}, {})) ==
          std::vector<float>{1.0F, -2.0F, std::bit_cast<float>(0x00010000U)});

    Bytes quants(32, 0);
    quants[0] = 127, quants[1] = 0x80, quants[31] = 0xFF;  // 127, -128, -1
    const std::vector<float> q8 = values_of(GgmlType::q8_0, block({kHalf}, quants));
    CHECK(q8[0] == 63.5F);
    CHECK(q8[1] == -64.0F);
    CHECK(q8[31] == -0.5F);

    Bytes nibbles(16, 0x88);  // 8 and 8
    nibbles[0] = 0xF0;        // element 0 is 0, element 16 is 15
    nibbles[15] = 0x1E;
    const std::vector<float> q4 = values_of(GgmlType::q4_0, block({kTwo}, nibbles));
    CHECK(q4[0] == -16.0F);
    CHECK(q4[16] == 14.0F);
    CHECK(q4[15] == 12.0F);
    CHECK(q4[31] == -14.0F);
    CHECK(q4[1] == 0.0F);
    const std::vector<float> q4_1 = values_of(GgmlType::q4_1, block({kTwo, kMinusOne}, nibbles));
    CHECK(q4_1[0] == -1.0F);
    CHECK(q4_1[16] == 29.0F);
    CHECK(q4_1[31] == 1.0F);

    Bytes five{0x01, 0x00, 0x01, 0x80};  // high bits of elements 0, 16 and 31
    five.insert(five.end(), nibbles.begin(), nibbles.end());
    const std::vector<float> q5 = values_of(GgmlType::q5_0, block({kOne}, five));
    CHECK(q5[0] == 0.0F);    // 16 + 0 - 16
    CHECK(q5[16] == 15.0F);  // 16 + 15 - 16
    CHECK(q5[31] == 1.0F);   // 16 + 1 - 16
    CHECK(q5[15] == -2.0F);  // 14 - 16
    const std::vector<float> q5_1 = values_of(GgmlType::q5_1, block({kOne, kHalf}, five));
    CHECK(q5_1[0] == 16.5F);
    CHECK(q5_1[15] == 14.5F);
  }

  TEST_CASE("quantised_blocks: scales and minima of the K types") {
    // Part 1: scale 3, minimum 5. Part 6: scale 0x2A = 42 (low four bits 10, high two 2), minimum 0x35 = 53 (5 and 3).
    Bytes scales(12, 0);
    scales[1] = 3, scales[5] = 5;
    scales[10] = 0x5A;                       // low bits of part 6: scale 10, minimum 5
    scales[2] = 2 << 6, scales[6] = 3 << 6;  // their high bits
    Bytes nibbles(128, 0);
    nibbles[0] = 0x70;        // part 0: 0, part 1: 7, element 0 of each
    nibbles[96 + 31] = 0x09;  // part 6, last element
    Bytes q4 = scales;
    q4.insert(q4.end(), nibbles.begin(), nibbles.end());
    const std::vector<float> q4_k = values_of(GgmlType::q4_k, block({kTwo, kHalf}, q4));
    CHECK(q4_k[0] == 0.0F);
    CHECK(q4_k[32] == 2 * 3 * 7 - 0.5F * 5);
    CHECK(q4_k[33] == -2.5F);
    CHECK(q4_k[6 * 32 + 31] == 2 * 42 * 9 - 0.5F * 53);
    CHECK(q4_k[6 * 32] == -26.5F);
    CHECK(q4_k[7 * 32] == 0.0F);

    Bytes high(32, 0);
    high[0] = 1 << 1, high[31] = 1 << 6;
    Bytes q5 = scales;
    q5.insert(q5.end(), high.begin(), high.end());
    q5.insert(q5.end(), nibbles.begin(), nibbles.end());
    const std::vector<float> q5_k = values_of(GgmlType::q5_k, block({kTwo, kHalf}, q5));
    CHECK(q5_k[32] == 2 * 3 * (16 + 7) - 0.5F * 5);
    CHECK(q5_k[6 * 32 + 31] == 2 * 42 * (16 + 9) - 0.5F * 53);

    // Q6_K: element 128 + 96 + 17 has its four bits in the high nibble of ql[64 + 32 + 17], two in bits 6 and 7 of
    // qh[32 + 17], its scale in scales[8 + 6 + 1].
    Bytes q6(210, 0);
    q6[64 + 32 + 17] = 0xB0;
    q6[128 + 32 + 17] = 2 << 6;
    q6[192 + 15] = static_cast<uint8_t>(-3);
    q6[192] = 2;
    q6[209] = 0x3C;  // d = 1
    const std::vector<float> q6_k = values_of(GgmlType::q6_k, q6);
    CHECK(q6_k[128 + 96 + 17] == -3 * (11 + 32 - 32));
    CHECK(q6_k[0] == 2 * -32);
    CHECK(q6_k[16] == 0.0F);
  }

  TEST_CASE("quantised_blocks: Q8_0 written, ties away from zero") {
    // amax = 127: d = 1, and the values themselves are rounded.
    const Bytes bytes = blocks_of(GgmlType::q8_0, row_of({-127, 0.5F, -0.5F, 2.5F, 1.49F, 126.5F, -0.0F}));
    Bytes quants(32, 0);
    quants[0] = static_cast<uint8_t>(-127), quants[1] = 1, quants[2] = static_cast<uint8_t>(-1), quants[3] = 3;
    quants[4] = 1, quants[5] = 127;
    CHECK(bytes == block({kOne}, quants));
    CHECK(blocks_of(GgmlType::q8_0, row_of({})) == block({0}, Bytes(32, 0)));
    // d = 2^-24 * 1.5 is a subnormal half, rounded to even: 2 * 2^-24. The quotients use d before it is rounded.
    Bytes small(32, 0);
    small[0] = 127;
    CHECK(blocks_of(GgmlType::q8_0, row_of({127 * 0x1.8p-24F})) == block({2}, small));
    // 1 / d overflows: as on x86, zeros.
    CHECK(blocks_of(GgmlType::q8_0, row_of({1e-40F, -1e-40F})) == block({0}, Bytes(32, 0)));
  }

  TEST_CASE("quantised_blocks: Q4_0 written: the first value of largest magnitude decides the sign") {
    // max = -8: d = 1, q = trunc(x + 8.5) up to 15.
    Bytes nibbles(16, 0x88);
    nibbles[0] = 0xF0;  // -8 -> 0, and element 16: +8 -> 16, held to 15
    nibbles[1] = 0x89;  // 0.5 -> 9
    nibbles[2] = 0x88;  // -0.5 -> 8
    std::vector<float> values = row_of({-8, 0.5F, -0.5F});
    values[16] = 8;
    CHECK(blocks_of(GgmlType::q4_0, values) == block({kOne}, nibbles));
    // The same with +8 first: d = -1, everything turns round.
    Bytes turned(16, 0x88);
    turned[0] = 0xF0;  // +8 -> 0, and -8 -> 15
    turned[1] = 0x88;  // 0.5 -> -0.5 + 8.5 = 8
    turned[2] = 0x89;  // -0.5 -> 9
    values = row_of({8, 0.5F, -0.5F});
    values[16] = -8;
    CHECK(blocks_of(GgmlType::q4_0, values) == block({kMinusOne}, turned));
    // Nothing but zeros, of either sign: d = 0 / -8 = -0.
    CHECK(blocks_of(GgmlType::q4_0, row_of({})) == block({0x8000}, Bytes(16, 0x88)));
    CHECK(blocks_of(GgmlType::q4_0, row_of({-0.0F})) == block({0x8000}, Bytes(16, 0x88)));
  }

  TEST_CASE("quantised_blocks: F16 and BF16 round to nearest even") {
    CHECK(blocks_of(GgmlType::bf16, {1.0F, 0x1.01p0F, 0x1.03p0F, 0x1.010002p0F, -0.0F}) ==
          block({0x3F80, 0x3F80, 0x3F82, 0x3F81, 0x8000}, {}));
    CHECK(blocks_of(GgmlType::f16, {1.0F, 0x1.002p0F, 0x1.006p0F, 65504.0F, 0x1p-25F, 0x1.8p-24F, -0x1p-14F}) ==
          block({0x3C00, 0x3C00, 0x3C02, 0x7BFF, 0x0000, 0x0002, 0x8400}, {}));
    int wrong = 0;
    for (uint32_t half = 0; half < 65536; ++half)
      if ((half & 0x7C00) != 0x7C00) wrong += float_to_half(half_to_float(static_cast<uint16_t>(half))) != half;
    CHECK(wrong == 0);
    CHECK(float_to_half(65519.996F) == 0x7BFF);
    CHECK(float_to_half(65520.0F) == 0x7C00);
    CHECK(float_to_half(-1e30F) == 0xFC00);
    CHECK((float_to_half(std::numeric_limits<float>::quiet_NaN()) & 0x7FFF) > 0x7C00);
  }

  TEST_CASE("quantised_blocks: what is not finite is said") {
    Bytes bytes(64);
    std::vector<float> values(32, 1.0F);
    const auto fits = [&](GgmlType type, float value) {
      values[17] = value;
      return quantise(type, values,
                      std::as_writable_bytes(std::span(bytes))
                          .first(32 / ggml_type_row(type).elements * ggml_type_row(type).bytes));
    };
    for (const GgmlType type : {GgmlType::f16, GgmlType::bf16, GgmlType::q8_0, GgmlType::q4_0}) {
      CAPTURE(ggml_type_row(type).name);
      CHECK(fits(type, 60000.0F));
      CHECK_FALSE(fits(type, std::numeric_limits<float>::infinity()));
      CHECK_FALSE(fits(type, std::numeric_limits<float>::quiet_NaN()));
    }
    CHECK_FALSE(fits(GgmlType::f16, 65520.0F));
    CHECK(fits(GgmlType::bf16, 65520.0F));
    CHECK_FALSE(fits(GgmlType::bf16, std::numeric_limits<float>::max()));
    CHECK_FALSE(fits(GgmlType::q8_0, 1e8F));  // d beyond float16
    CHECK_FALSE(fits(GgmlType::q4_0, 1e6F));
    const Bytes infinite = block({0x7C00}, Bytes(32, 1));
    CHECK_FALSE(dequantise(GgmlType::q8_0, std::as_bytes(std::span(infinite)), values));
  }

  TEST_CASE("quantised_blocks: many threads give the bytes of one") {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> values(300'000 / 32 * 32);
    for (float& value : values) value = normal(random);
    for (const GgmlType type : {GgmlType::q8_0, GgmlType::q4_0, GgmlType::f16}) {
      const Bytes whole = blocks_of(type, values);
      Bytes pieces;
      for (size_t first = 0; first < values.size(); first += 320) {  // too little for a second thread
        const Bytes piece =
            blocks_of(type, {values.begin() + static_cast<std::ptrdiff_t>(first),
                             values.begin() + static_cast<std::ptrdiff_t>(std::min(first + 320, values.size()))});
        pieces.insert(pieces.end(), piece.begin(), piece.end());
      }
      CHECK(whole == pieces);
    }
    Bytes q4_1(20);
    CHECK_THROWS_AS(quantise(GgmlType::q4_1, std::span(values).first(32), std::as_writable_bytes(std::span(q4_1))),
                    InternalError);
    std::vector<float> short_by_one(31);
    const Bytes zeros(34);
    CHECK_THROWS_AS(dequantise(GgmlType::q8_0, std::as_bytes(std::span(zeros)), short_by_one), InternalError);
  }
}
