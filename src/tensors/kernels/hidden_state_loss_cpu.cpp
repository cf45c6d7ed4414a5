// The reference alone: on the CPU in float32 these losses are compositions of ATen (student/targets.cpp).
#include "src/tensors/kernels/hidden_state_loss.h"

#include <algorithm>
#include <cmath>

namespace coppice {
namespace {

/// x.y, x.x, y.y.
struct Products {
  double xy = 0, xx = 0, yy = 0;
};
Products products_of(const float* x, const float* y, int64_t n) {
  Products products;
  for (int64_t d = 0; d < n; ++d) {
    products.xy += double{x[d]} * y[d];
    products.xx += double{x[d]} * x[d];
    products.yy += double{y[d]} * y[d];
  }
  return products;
}
double clamped_norm(double square) { return std::max(std::sqrt(square), double{kLeastNorm}); }

}  // namespace

void hidden_state_loss_reference(const HiddenStateLossParams<float>& params) {
  for (int64_t n = 0; n < params.num_tokens; ++n) {
    const float *x = params.student + n * params.student_row_stride,
                *y = params.teacher + n * params.teacher_row_stride;
    double loss = 0;
    Products products;
    if (params.live[n] && params.kind == HiddenLoss::mse) {
      for (int64_t d = 0; d < params.hidden_size; ++d) loss += (double{x[d]} - y[d]) * (double{x[d]} - y[d]);
      loss /= static_cast<double>(params.hidden_size);
    } else if (params.live[n]) {
      products = products_of(x, y, params.hidden_size);
      loss = 1 - products.xy / (clamped_norm(products.xx) * clamped_norm(products.yy));
    }
    params.loss[n] = static_cast<float>(loss);
    if (params.kind == HiddenLoss::mse || params.products == nullptr) continue;
    float* const to = params.products + n * 3;
    to[0] = static_cast<float>(products.xy);
    to[1] = static_cast<float>(products.xx);
    to[2] = static_cast<float>(products.yy);
  }
}

void hidden_state_loss_backward_reference(const HiddenStateLossBackwardParams<float>& params) {
  const double scale = *params.scale;
  for (int64_t n = 0; n < params.num_tokens; ++n) {
    const float *x = params.student + n * params.student_row_stride,
                *y = params.teacher + n * params.teacher_row_stride;
    float* const grad = params.student_grad + n * params.hidden_size;
    double of_x = 0, of_y = 0;
    if (params.live[n] && params.kind == HiddenLoss::mse) {
      of_x = 2 / static_cast<double>(params.hidden_size);
      of_y = -of_x;
    } else if (params.live[n]) {
      const Products products = products_of(x, y, params.hidden_size);
      const double norm = std::sqrt(products.xx), a = clamped_norm(products.xx), b = clamped_norm(products.yy);
      of_x = norm > 0 ? products.xy / (a * b) / (a * norm) : 0;
      of_y = -1 / (a * b);
    }
    for (int64_t d = 0; d < params.hidden_size; ++d)
      grad[d] = params.live[n] ? static_cast<float>(scale * (of_x * x[d] + of_y * y[d])) : 0.0f;
  }
}

}  // namespace coppice
