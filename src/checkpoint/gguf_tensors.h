// How a parameter of ours lies in a GGUF file: name, type of its bytes, and the order of its rows.
#pragma once

#include <cstdint>
#include <vector>

#include "src/model/parameters.h"

namespace coppice {

/// Rows of q and k where neighbouring pairs are rotated (architecture llama): row h K + 2 b + a of the file is row
/// h K + a K/2 + b of ours (a = 0, 1). K = head_dim.
inline int64_t row_of_halves(int64_t row, int64_t head_dim) {
  const int64_t within = row % head_dim;
  return row - within + within % 2 * (head_dim / 2) + within / 2;
}

/// Weight or bias of q or k.
bool is_rotated(const Parameter& parameter);

/// Rows and columns of a parameter; a vector has one column.
struct MatrixSize {
  int64_t rows = 0, columns = 1;
};
MatrixSize matrix_size(const std::vector<int64_t>& shape);

}  // namespace coppice
