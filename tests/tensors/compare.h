// How the kernel tests judge a result: against a double reference, with torch's own float32 error as the yardstick, and
// one rounding more where it is bfloat16.
#pragma once

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <algorithm>
#include <functional>
#include <vector>

#include "tests/tensors/placements.h"

namespace coppice {

/// Largest |a - b| in double; NaN anywhere gives NaN, which no bound accepts.
inline double max_error(const at::Tensor& a, const at::Tensor& b) {
  if (a.numel() == 0) return 0.0;
  return (a.detach().to(at::kDouble) - b.detach().to(at::kDouble)).abs().max().item<double>();
}

/// |ours - reference| <= 2 max|torch in float32 - reference| + floor, and 2^-8 |reference| for the rounding of a
/// bfloat16; false for NaN on any side.
inline void check_close(const at::Tensor& ours, const at::Tensor& torch32, const at::Tensor& reference64,
                        double floor = 1e-6) {
  REQUIRE(ours.sizes() == reference64.sizes());
  if (ours.numel() == 0) return;
  const at::Tensor size = reference64.detach().abs();
  const double bound = 2.0 * max_error(torch32, reference64) + floor * (1.0 + size.max().item<double>());
  const double rounding = ours.scalar_type() == at::kBFloat16 ? 0x1p-8 : 0.0;
  const double error =
      ((ours.detach().to(at::kDouble) - reference64.detach()).abs() - rounding * size).max().item<double>();
  INFO("error ", error, ", bound ", bound);
  CHECK(error <= bound);
}

/// The element type of a tensor of an op: vectors (norm weights, biases, masks) stay float32.
inline at::ScalarType element_type(const at::Tensor& tensor, at::ScalarType compute) {
  return compute == at::kBFloat16 && tensor.dim() == 1 ? at::kFloat : compute;
}
/// What a function of some inputs computes, and the gradients of sum(output * output_grad) with respect to the inputs
/// that require one.
struct Gradients {
  at::Tensor output;
  std::vector<at::Tensor> inputs;
};
using Composition = std::function<at::Tensor(const std::vector<at::Tensor>&)>;

inline Gradients differentiate(const Composition& function, const std::vector<at::Tensor>& inputs,
                               const at::Tensor& output_grad, const Placement& on) {
  std::vector<at::Tensor> leaves;
  for (const at::Tensor& input : inputs)
    leaves.push_back(input.detach()
                         .to(on.device, element_type(input, on.compute), /*non_blocking=*/false, /*copy=*/true)
                         .requires_grad_());
  Gradients result;
  const at::Tensor output = function(leaves);
  output.backward(output_grad.to(on.device, on.compute));
  for (const at::Tensor& leaf : leaves)
    result.inputs.push_back(leaf.grad().defined() ? leaf.grad().cpu() : leaf.grad());
  result.output = output.detach().cpu();
  return result;
}

/// Runs ours at `on`, and on the CPU the composition in float32 and in float64, and compares outputs and all gradients.
inline void check_against_composition(const OpPlacement& on, const Composition& ours, const Composition& composition,
                                      const std::vector<at::Tensor>& inputs, const at::Tensor& output_grad,
                                      double floor = 1e-6) {
  const auto rounded = [&](const at::Tensor& tensor) {
    return tensor.to(element_type(tensor, on.compute)).to(tensor.scalar_type());
  };
  std::vector<at::Tensor> given;  // what every one of the three reads
  for (const at::Tensor& input : inputs) given.push_back(rounded(input));
  const at::Tensor grad = rounded(output_grad);
  const double own_floor = on.execution == Execution::cpu ? floor : std::max(floor, 2e-6);
  const Gradients mine = differentiate(ours, given, grad, on);
  const Gradients torch32 = differentiate(composition, given, grad, {.device = at::kCPU, .compute = at::kFloat});
  const Gradients reference = differentiate(composition, given, grad, {.device = at::kCPU, .compute = at::kDouble});
  CHECK((mine.output.scalar_type() == on.compute));
  check_close(mine.output, torch32.output, reference.output, own_floor);
  for (size_t i = 0; i < inputs.size(); ++i) {
    CAPTURE(i);
    REQUIRE(mine.inputs[i].defined());
    check_close(mine.inputs[i], torch32.inputs[i], reference.inputs[i], own_floor);
  }
}

/// N(0, 1) from a seed, the same on every run.
inline at::Tensor randn(at::IntArrayRef shape, uint64_t seed) {
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  return at::randn(shape, generator);
}

/// A matrix inside a wider one whose surplus columns hold NaN, starting `offset` elements into its storage.
inline at::Tensor strided_copy(const at::Tensor& matrix, int64_t surplus, int64_t offset) {
  const int64_t rows = matrix.size(0), columns = matrix.size(1);
  const at::Tensor storage = at::full({offset + rows * (columns + surplus)}, std::numeric_limits<float>::quiet_NaN());
  const at::Tensor view = storage.as_strided({rows, columns}, {columns + surplus, 1}, offset);
  view.copy_(matrix);
  return view;
}

/// Room for `size` floats between sentinels; intact() tells whether anything around them was written.
class Guarded {
 public:
  explicit Guarded(int64_t size) : values_(static_cast<size_t>(size) + 2 * kMargin, kSentinel), size_(size) {}
  float* data() { return values_.data() + kMargin; }
  bool intact() const {
    for (int64_t i = 0; i < kMargin; ++i)
      if (values_[i] != kSentinel || values_[kMargin + size_ + i] != kSentinel) return false;
    return true;
  }
  at::Tensor tensor(at::IntArrayRef shape) { return at::from_blob(data(), shape).clone(); }

 private:
  static constexpr int64_t kMargin = 37;
  static constexpr float kSentinel = -12345.5f;
  std::vector<float> values_;
  int64_t size_;
};

}  // namespace coppice
