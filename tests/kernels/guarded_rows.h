// Rows of logits between numbers that must stay as they are, and what a kernel over them leaves of a row. Torch-free.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>
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
      : front_(kGuard + static_cast<size_t>(shift)), all_(front_ + values.size() + kGuard, element<T>(42.0f)) {
    for (size_t i = 0; i < values.size(); ++i) all_[front_ + i] = values[i];
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
