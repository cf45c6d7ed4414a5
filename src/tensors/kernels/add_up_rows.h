// Column sums of the partial rows that the blocks of a launch leave: sum[c] = rows[0][c] + rows[1][c] + ..., in an
// order that depends on the number of rows alone. Torch-free.
#pragma once

#include <cstdint>

struct CUstream_st;  // cudaStream_t points to one

namespace coppice {

struct AddUpRowsParams {
  const float* rows = nullptr;  // (num_rows, num_columns)
  float* sum = nullptr;         // (num_columns), overwritten or added to
  int num_rows = 0;
  int64_t num_columns = 0;
  bool accumulate = false;
};

// Each enqueues and returns the launch's error, 0 for none.
namespace device {
int add_up_rows(const AddUpRowsParams& params, CUstream_st* stream);
}
namespace emulated {
int add_up_rows(const AddUpRowsParams& params, CUstream_st* stream);
}

}  // namespace coppice
