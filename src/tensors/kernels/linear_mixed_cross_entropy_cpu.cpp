// A row is read for its maximum (and argmax), turned into exponentials while they are summed, and scaled into
// gradients: three passes over memory that the first one brought into the core's cache.
#include <algorithm>
#include <cmath>

#include "src/tensors/kernels/linear_mixed_cross_entropy.h"
#include "src/tensors/kernels/parallel_rows.h"
#include "src/tensors/kernels/vector_math.h"

namespace coppice {

namespace {

/// Shares of the two labels of a row: everything on the true label where there is no other.
struct LabelShares {
  int64_t teacher;
  double true_share, teacher_share;
};
LabelShares share_labels(int64_t true_label, int64_t teacher_label, double teacher_weight) {
  if (teacher_weight == 0.0 || teacher_label == kIgnoredLabel || teacher_label == true_label)
    return {true_label, 1.0, 0.0};
  return {teacher_label, 1.0 - teacher_weight, teacher_weight};
}

}  // namespace

LossRow mixed_cross_entropy_reference(std::span<const double> logits, int64_t true_label, int64_t teacher_label,
                                      double teacher_weight, double z_loss, std::span<double> gradient) {
  std::fill(gradient.begin(), gradient.end(), 0.0);
  if (true_label == kIgnoredLabel) return {};
  const LabelShares labels = share_labels(true_label, teacher_label, teacher_weight);
  const auto largest = std::max_element(logits.begin(), logits.end());  // the first of equals
  double sum = 0;
  for (const double logit : logits) sum += std::exp(logit - *largest);
  const double lse = *largest + std::log(sum);
  for (size_t v = 0; v < gradient.size(); ++v) gradient[v] = std::exp(logits[v] - lse) * (1.0 + 2.0 * z_loss * lse);
  if (!gradient.empty()) {
    gradient[true_label] -= labels.true_share;
    gradient[labels.teacher] -= labels.teacher_share;
  }
  return {.ce = lse - logits[true_label],
          .kd = teacher_weight == 0.0 ? 0.0 : lse - logits[labels.teacher],
          .z = z_loss * lse * lse,
          .top_1 = largest - logits.begin()};
}

namespace {

COPPICE_INLINE void multiply_loop(float* z, int64_t n, float factor) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) z[i] *= factor;
}
constexpr auto multiply = per_instruction_set<multiply_loop>;

LossRow pass_row(const MixedCrossEntropyParams& params, int64_t row) {
  const int64_t n = params.num_vocab, true_label = params.true_label[row];
  float* z = params.logits + row * n;
  if (true_label == kIgnoredLabel) {
    if (params.write_gradient) std::fill_n(z, n, 0.0f);
    return {};
  }
  const LabelShares labels =
      share_labels(true_label, params.teacher_label ? params.teacher_label[row] : kIgnoredLabel, params.teacher_weight);
  const double z_true = z[true_label], z_teacher = z[labels.teacher];
  const Largest largest = find_largest(z, n);
  LossRow result;
  if (params.argmax) result.top_1 = find_first(z, n, largest);
  if (params.argmax && params.teacher_label && params.teacher_label[row] >= 0)
    result.teacher_top_1 = params.teacher_label[row];
  const double sum = params.write_gradient ? sum_exponentials_in_place(z, n, largest.value)
                                           : sum_exponentials(z, n, largest.value, 1.0f);
  const double lse = largest.value + std::log(sum);
  result.ce = lse - z_true;
  if (params.teacher_weight != 0.0) result.kd = lse - z_teacher;
  result.z = params.z_loss * lse * lse;
  if (!params.write_gradient) return result;

  const double factor = params.scale * (1.0 + 2.0 * params.z_loss * lse) / sum;
  const double e_true = z[true_label], e_teacher = z[labels.teacher];
  multiply(z, n, static_cast<float>(factor));
  z[true_label] = static_cast<float>(e_true * factor - params.scale * labels.true_share);
  if (labels.teacher != true_label)
    z[labels.teacher] = static_cast<float>(e_teacher * factor - params.scale * labels.teacher_share);
  return result;
}

}  // namespace

void mixed_cross_entropy_cpu(const MixedCrossEntropyParams& params) {
  parallel_rows(params.num_rows, threads_for(params.num_rows * params.num_vocab), [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) params.rows[row] = pass_row(params, row);
  });
}

}  // namespace coppice
