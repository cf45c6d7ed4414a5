// Rows shared out among OpenMP threads in fixed, equal ranges, so that a result depends on the number of threads and on
// nothing else.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace coppice {

/// Threads worth waking for `elements` of elementwise work: a region costs a few microseconds, about what one core does
/// with this many floats.
inline int threads_for(int64_t elements) {
  constexpr int64_t kElementsPerThread = 16384;
  return static_cast<int>(
      std::clamp<int64_t>(elements / kElementsPerThread, 1, omp_in_parallel() ? 1 : omp_get_max_threads()));
}

/// Calls body(begin, end, thread) for `threads` consecutive ranges of [0, rows).
template <class Body>
void parallel_rows(int64_t rows, int threads, const Body& body) {
  if (threads <= 1) {
    body(int64_t{0}, rows, 0);
    return;
  }
#pragma omp parallel num_threads(threads)
  {
    const int64_t team = omp_get_num_threads(), thread = omp_get_thread_num();
    body(rows * thread / team, rows * (thread + 1) / team, static_cast<int>(thread));
  }
}

/// Column sums over rows, made deterministic: float sums over kBlockRows rows, added up in double per thread, threads
/// added in order.
class ColumnSums {
 public:
  static constexpr int64_t kBlockRows = 64;

  ColumnSums(int64_t columns, int threads)
      : columns_(columns),
        padded_((columns + 15) / 16 * 16),
        total_(padded_ * threads, 0.0),
        block_(padded_ * threads, 0.0f) {}

  /// The thread's float accumulator; the caller adds rows to it and calls flush() every kBlockRows rows and at the end.
  float* block(int thread) { return block_.data() + thread * padded_; }
  void flush(int thread) {
    float* block = this->block(thread);
    double* total = total_.data() + thread * padded_;
    for (int64_t c = 0; c < columns_; ++c) {
      total[c] += double{block[c]};
      block[c] = 0.0f;
    }
  }
  /// sums[0..count) = the totals of columns first.., or sums += them.
  void write(float* sums, bool accumulate, int64_t first, int64_t count) const {
    const auto threads = static_cast<int64_t>(total_.size()) / padded_;
    for (int64_t c = 0; c < count; ++c) {
      double sum = 0.0;
      for (int64_t thread = 0; thread < threads; ++thread) sum += total_[thread * padded_ + first + c];
      sums[c] = static_cast<float>(accumulate ? double{sums[c]} + sum : sum);
    }
  }
  void write(float* sums, bool accumulate) const { write(sums, accumulate, 0, columns_); }

 private:
  int64_t columns_, padded_;
  std::vector<double> total_;
  std::vector<float> block_;
};

}  // namespace coppice
