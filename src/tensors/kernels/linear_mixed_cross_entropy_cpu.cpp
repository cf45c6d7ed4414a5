// A row is read for its maximum (and argmax), turned into exponentials while they are summed, and scaled into
// gradients: three passes over memory that the first one brought into the core's cache.
#include <algorithm>
#include <cmath>

#include "src/tensors/kernels/linear_mixed_cross_entropy.h"
#include "src/tensors/kernels/parallel_rows.h"
#include "src/tensors/kernels/vector_math.h"

namespace coppice {

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

LabelShares shares_of(const MixedCrossEntropyParams<float>& params, int64_t row) {
  return share_labels(params.true_label[row], params.teacher_label ? params.teacher_label[row] : kIgnoredLabel,
                      params.teacher_weight);
}

/// Column of an id, -1 where another part has it.
int64_t column_of(const MixedCrossEntropyParams<float>& params, int64_t id) {
  const int64_t column = id - params.first_id;
  return column >= 0 && column < params.num_vocab ? column : -1;
}

/// Leaves exponentials in place of the logits where a gradient is wanted.
MixedStatistics measure_row(const MixedCrossEntropyParams<float>& params, int64_t row, const LabelShares& labels) {
  const int64_t n = params.num_vocab;
  float* z = params.logits + row * n;
  const auto logit = [&](int64_t id) { return column_of(params, id) < 0 ? 0.0 : double{z[column_of(params, id)]}; };
  MixedStatistics own{.z_true = logit(params.true_label[row]), .z_teacher = logit(labels.teacher)};
  const Largest largest = find_largest(z, n);
  own.largest = largest.value;
  if (params.argmax) own.top_1 = static_cast<double>(params.first_id + find_first(z, n, largest));
  own.sum = params.write_gradient ? sum_exponentials_in_place(z, n, largest.value)
                                  : sum_exponentials(z, n, largest.value, 1.0f);
  return own;
}

/// `whole`: of all parts. `sum_here`: what the whole row's exponentials would add up to if they were taken like this
/// part's.
LossRow finish_row(const MixedCrossEntropyParams<float>& params, int64_t row, const LabelShares& labels,
                   const MixedStatistics& whole, double sum_here) {
  const int64_t n = params.num_vocab, true_label = params.true_label[row];
  LossRow result;
  if (params.argmax) result.top_1 = static_cast<int64_t>(whole.top_1);
  if (params.argmax && params.teacher_label && params.teacher_label[row] >= 0)
    result.teacher_top_1 = params.teacher_label[row];
  const double lse = whole.largest + std::log(whole.sum);
  result.ce = lse - whole.z_true;
  if (params.teacher_weight != 0.0) result.kd = lse - whole.z_teacher;
  result.z = params.z_loss * lse * lse;
  if (!params.write_gradient) return result;

  float* z = params.logits + row * n;
  const double factor = params.scale * (1.0 + 2.0 * params.z_loss * lse) / sum_here;
  const int64_t true_column = column_of(params, true_label), teacher_column = column_of(params, labels.teacher);
  const double e_true = true_column < 0 ? 0.0 : z[true_column],
               e_teacher = teacher_column < 0 ? 0.0 : z[teacher_column];
  multiply_row(z, n, static_cast<float>(factor));
  if (true_column >= 0) z[true_column] = static_cast<float>(e_true * factor - params.scale * labels.true_share);
  if (teacher_column >= 0 && labels.teacher != true_label)
    z[teacher_column] = static_cast<float>(e_teacher * factor - params.scale * labels.teacher_share);
  return result;
}

/// True for an ignored row, whose gradient is then zero.
bool skip_row(const MixedCrossEntropyParams<float>& params, int64_t row) {
  if (params.true_label[row] != kIgnoredLabel) return false;
  if (params.write_gradient) std::fill_n(params.logits + row * params.num_vocab, params.num_vocab, 0.0f);
  return true;
}

template <class Body>
void walk_rows(const MixedCrossEntropyParams<float>& params, const Body& body) {
  parallel_rows(params.num_rows, threads_for(params.num_rows * params.num_vocab), [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) body(row);
  });
}

}  // namespace

void mixed_cross_entropy_cpu(const MixedCrossEntropyParams<float>& params) {
  walk_rows(params, [&](int64_t row) {
    params.rows[row] = {};
    if (skip_row(params, row)) return;
    const LabelShares labels = shares_of(params, row);
    const MixedStatistics whole = measure_row(params, row, labels);
    params.rows[row] = finish_row(params, row, labels, whole, whole.sum);
  });
}

void mixed_cross_entropy_statistics_cpu(const MixedCrossEntropyParams<float>& params, MixedStatistics* statistics) {
  walk_rows(params, [&](int64_t row) {
    statistics[row] = {};
    if (!skip_row(params, row)) statistics[row] = measure_row(params, row, shares_of(params, row));
  });
}

void mixed_cross_entropy_gradient_cpu(const MixedCrossEntropyParams<float>& params,
                                      const RowParts<MixedStatistics>& parts) {
  walk_rows(params, [&](int64_t row) {
    params.rows[row] = {};
    if (params.true_label[row] == kIgnoredLabel) return;
    MixedStatistics whole = parts.at(0, row);
    for (int64_t part = 1; part < parts.num_parts; ++part)  // ties to the lowest id: an earlier part keeps them
      if (const MixedStatistics& other = parts.at(part, row); other.largest > whole.largest) {
        whole.largest = other.largest;
        whole.top_1 = other.top_1;
      }
    whole.sum = whole.z_true = whole.z_teacher = 0;
    for (int64_t part = 0; part < parts.num_parts; ++part) {
      const MixedStatistics& other = parts.at(part, row);
      whole.sum += other.sum * std::exp(other.largest - whole.largest);
      whole.z_true += other.z_true;
      whole.z_teacher += other.z_teacher;
    }
    params.rows[row] = finish_row(params, row, shares_of(params, row), whole,
                                  whole.sum * std::exp(whole.largest - parts.own[row].largest));
  });
}

}  // namespace coppice
