// Weights in ggml's blocks, to float32 and back: torch-free, shared out among OpenMP threads. Formulas, and for
// quantisation the bytes, are those of the reference functions in ggml/src/ggml-quants.c (quantize_row_*_ref,
// dequantize_row_*). y = value, q = stored integer, d and m = scale and minimum of a block (of a part of it, for the
// K types).
//   Q8_0 y = d q   Q4_0, Q5_0 y = d (q - 8 | 16)   Q4_1, Q5_1 y = d q + m   Q4_K, Q5_K y = d q - m   Q6_K y = d (q -
//   32)
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "src/checkpoint/ggml_types.h"

namespace coppice {

/// Values of whole blocks as float32, exactly as ggml computes them; false when one of them is not finite.
/// InternalError unless the sizes fit.
bool dequantise(GgmlType type, std::span<const std::byte> blocks, std::span<float> values);

/// Blocks of values (F32, F16, BF16, Q8_0, Q4_0; InternalError for others): F16 and BF16 round to nearest even. False
/// when a value is not finite, or a value or a scale lies beyond the type: such blocks must not be used.
bool quantise(GgmlType type, std::span<const float> values, std::span<std::byte> blocks);

}  // namespace coppice
