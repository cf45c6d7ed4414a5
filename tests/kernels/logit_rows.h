// Rows of logits for the kernels over them: between numbers that must stay as they are, or the last of more rows than
// 32 bits can count. Torch-free.
#pragma once

#include <doctest/doctest.h>
#include <sys/mman.h>

#include <cstdint>
#include <cstring>
#include <vector>

#include "src/tensors/kernels/bf16.h"
#include "src/tensors/kernels/loss_terms.h"
#include "tests/executor/outputs.h"

namespace coppice {

template <class T>
T element(float value) {
  if constexpr (std::is_same_v<T, Bf16>)
    return to_bf16(value);
  else
    return value;
}

/// A matrix with 16 numbers in front of it and behind it, from 16 bytes on; with `shift` elements more in front it
/// starts where no pack does.
template <class T>
class GuardedRows {
 public:
  GuardedRows(const std::vector<T>& values, int64_t shift)
      : front_(static_cast<size_t>(kGuard + shift)), all_(values.size() + 2 * kGuard + static_cast<size_t>(shift)) {
    std::fill(all_.begin(), all_.end(), element<T>(42.0f));
    std::copy(values.begin(), values.end(), all_.begin() + static_cast<int64_t>(front_));
  }
  T* data() { return all_.data() + front_; }
  /// With what stands around it.
  const std::vector<T>& all() const { return all_; }
  /// What all() has to be for these values.
  std::vector<float> around(const std::vector<double>& values) const {
    std::vector<float> expected(all_.size(), 42.0f);
    for (size_t i = 0; i < values.size(); ++i) expected[front_ + i] = static_cast<float>(values[i]);
    return expected;
  }

 private:
  static constexpr size_t kGuard = 16;
  size_t front_;
  std::vector<T> all_;
};

/// Address space of `rows` rows of which the last alone may be touched; as much in front of it for offsets below zero.
/// A row's bytes: a multiple of the page's.
template <class T>
class LastRow {
 public:
  LastRow(int64_t rows, const std::vector<T>& row)
      : bytes_(2 * rows * static_cast<int64_t>(row.size() * sizeof(T))), size_(row.size()) {
    map_ = static_cast<char*>(
        ::mmap(nullptr, static_cast<size_t>(bytes_), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    REQUIRE(map_ != MAP_FAILED);
    REQUIRE(::mprotect(last(), size_ * sizeof(T), PROT_READ | PROT_WRITE) == 0);
    std::memcpy(last(), row.data(), size_ * sizeof(T));
  }
  ~LastRow() { ::munmap(map_, static_cast<size_t>(bytes_)); }
  LastRow(const LastRow&) = delete;
  LastRow& operator=(const LastRow&) = delete;
  T* first() const { return reinterpret_cast<T*>(map_ + bytes_ / 2); }
  T* last() const { return reinterpret_cast<T*>(map_ + bytes_) - size_; }

 private:
  int64_t bytes_;
  size_t size_;
  char* map_ = nullptr;
};

inline void append_terms(Outputs& outputs, const std::vector<LossTerms>& terms) {
  for (const LossTerms& row : terms) {
    outputs.insert(outputs.end(), {row.ce, row.kd, row.z});
    outputs.push_back(static_cast<float>(row.marks));
  }
}

template <class T>
std::vector<double> doubles_of(const T* values, int64_t count) {
  std::vector<double> doubles;
  for (int64_t i = 0; i < count; ++i) doubles.push_back(to_float(values[i]));
  return doubles;
}

/// The reference's row as a kernel leaves it. `row`: a LossRow.
template <class Row>
void append_reference(Outputs& outputs, const Row& row, bool live, bool argmax, int64_t true_label) {
  outputs.insert(outputs.end(), {static_cast<float>(row.ce), static_cast<float>(row.kd), static_cast<float>(row.z)});
  int32_t marks = live ? kLiveRow : 0;
  if (live && argmax) {
    marks += row.top_1 == true_label ? kCorrectRow : 0;
    marks += row.top_1 == row.teacher_top_1 ? kAgreeingRow : 0;
  }
  outputs.push_back(static_cast<float>(marks));
}

}  // namespace coppice
