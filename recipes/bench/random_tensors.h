// What measured operations read: random tensors where they are measured, never zeros.
#pragma once

#include <ATen/ATen.h>

#include <cmath>
#include <cstdint>

#include "src/tensors/device.h"

namespace coppice {

inline at::TensorOptions activations(const Placement& on) {
  return at::TensorOptions().device(on.device).dtype(on.compute);
}
inline at::TensorOptions floats(const Placement& on) { return activations(on).dtype(at::kFloat); }
inline at::TensorOptions numbers(const Placement& on) { return activations(on).dtype(at::kLong); }

inline at::Tensor leaf(at::IntArrayRef sizes, const at::TensorOptions& options) {
  return at::randn(sizes, options).mul_(0.5).requires_grad_();
}

/// A teacher's hidden states and its output table.
struct TeacherRows {
  at::Tensor hidden_NE, head_VE;
  TeacherRows(int64_t num_rows, int64_t width, int64_t num_vocab, const Placement& on)
      : hidden_NE(at::randn({num_rows, width}, activations(on))),
        head_VE(at::randn({num_vocab, width}, activations(on)) / std::sqrt(static_cast<double>(width))) {}
};

}  // namespace coppice
