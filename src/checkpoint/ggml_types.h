// The element types of ggml: blocks of a fixed number of elements in a fixed number of bytes, along a row.
// https://github.com/ggml-org/llama.cpp (ggml/include/ggml.h, ggml/src/ggml-common.h)
#pragma once

#include <cstdint>
#include <string>

namespace coppice {

/// Those whose values are read; the numbers are the file's.
enum class GgmlType : uint32_t {
  f32 = 0,
  f16 = 1,
  q4_0 = 2,
  q4_1 = 3,
  q5_0 = 6,
  q5_1 = 7,
  q8_0 = 8,
  q4_k = 12,
  q5_k = 13,
  q6_k = 14,
  bf16 = 30,
};

struct GgmlTypeRow {
  uint32_t id;
  const char* name;
  uint32_t elements, bytes;  // of a block
  bool is_read;              // values can be made float32
};

/// The row of a type number; nullptr for a number that no file of today has.
const GgmlTypeRow* find_ggml_type(uint32_t id);
const GgmlTypeRow& ggml_type_row(GgmlType type);
/// "F32, F16, ... are read", for refusals.
std::string read_ggml_types();

}  // namespace coppice
