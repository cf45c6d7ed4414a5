// Inputs whose rows end in NaN, outputs between numbers that nobody may change, and address space that is there only
// where somebody writes. Torch-free.
#pragma once

#include <doctest/doctest.h>
#include <sys/mman.h>

#include <algorithm>

#include "tests/executor/outputs.h"
#include "tests/kernels/guarded_rows.h"

namespace coppice {

/// `scale` times a number of [-1, 1), rounded so that every element type holds it.
inline float exact_number(int64_t i, uint32_t stream, float scale) {
  return to_float(to_bf16(scale * number(i, stream)));
}

/// Rows of `width` numbers and behind each `padding` times NaN.
template <class T>
std::vector<T> rows_of_numbers(int64_t num_rows, int64_t width, int64_t padding, uint32_t stream, float scale = 1.0f) {
  std::vector<T> rows;
  rows.reserve(static_cast<size_t>(num_rows * (width + padding)));
  for (int64_t n = 0; n < num_rows; ++n)
    for (int64_t i = 0; i < width + padding; ++i)
      rows.push_back(
          element<T>(i < width ? exact_number(n * width + i, stream, scale) : std::numeric_limits<float>::quiet_NaN()));
  return rows;
}

/// `count` elements to be written and 16 behind them to be left alone, all 42: compared whole, they show a store past
/// the end and an element that nobody has written.
template <class T>
std::vector<T> guarded(int64_t count) {
  return std::vector<T>(static_cast<size_t>(count + 16), element<T>(42.0f));
}

/// Address space for `count` elements: zeros until somebody writes, memory only where somebody does.
template <class T>
class SparseRows {
 public:
  explicit SparseRows(int64_t count) : bytes_(static_cast<size_t>(count) * sizeof(T)) {
    void* const map =
        ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    REQUIRE(map != MAP_FAILED);
    ::madvise(map, bytes_, MADV_NOHUGEPAGE);
    data_ = static_cast<T*>(map);
  }
  ~SparseRows() { ::munmap(data_, bytes_); }
  SparseRows(const SparseRows&) = delete;
  SparseRows& operator=(const SparseRows&) = delete;
  T* data() { return data_; }
  void write(int64_t at, const std::vector<T>& values) { std::copy(values.begin(), values.end(), data_ + at); }
  std::vector<T> read(int64_t at, int64_t count) const { return std::vector<T>(data_ + at, data_ + at + count); }

 private:
  T* data_ = nullptr;
  size_t bytes_;
};

}  // namespace coppice
