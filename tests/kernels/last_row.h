// Rows of which there is nothing but the last: full shapes for executor::run_only_last_block. Torch-free.
#pragma once

#include <doctest/doctest.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace coppice {

/// Address space of a (rows, columns) matrix, and as much in front of it for offsets below zero, that nobody may touch
/// but for its last row.
template <class T>
class LastRow {
 public:
  LastRow(int64_t rows, int64_t columns)
      : row_start_(static_cast<size_t>((rows - 1) * columns) * sizeof(T)),
        bytes_((row_start_ + static_cast<size_t>(columns) * sizeof(T) + kPage - 1) / kPage * kPage),
        map_(static_cast<char*>(
            ::mmap(nullptr, 2 * bytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0))) {
    REQUIRE(map_ != MAP_FAILED);
    const size_t begin = row_start_ / kPage * kPage;
    REQUIRE(::mprotect(map_ + bytes_ + begin, bytes_ - begin, PROT_READ | PROT_WRITE) == 0);
  }
  ~LastRow() { ::munmap(map_, 2 * bytes_); }
  LastRow(const LastRow&) = delete;
  LastRow& operator=(const LastRow&) = delete;

  /// The matrix.
  T* data() const { return reinterpret_cast<T*>(map_ + bytes_); }
  T* row() const { return reinterpret_cast<T*>(map_ + bytes_ + row_start_); }
  void write_row(const std::vector<T>& values) const { std::ranges::copy(values, row()); }

 private:
  static constexpr size_t kPage = 4096;
  size_t row_start_, bytes_;
  char* map_;
};

}  // namespace coppice
