// Torch at the door of the loss: checks, chunks of tokens, three matrix products a chunk (logits, d hidden, d head), autograd, registration.
#include <fmt/format.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

#include "src/tensors/kernels/linear_mixed_cross_entropy.h"
#include "src/tensors/kernels/op_checks.h"
#include "src/tensors/ops.h"

namespace coppice {

namespace {

// A chunk of logits that stays in the last-level cache is the cheapest; but every chunk also reads the head twice and its gradient once, so a large
// vocabulary needs enough rows to pay for that. Never more than kMaxChunkBytes.
constexpr int64_t kCacheChunkBytes = int64_t{4} << 20;
constexpr int64_t kMaxChunkBytes = int64_t{64} << 20;
constexpr int64_t kMinChunkRows = 320;

int64_t chunk_rows(int64_t num_rows, int64_t num_vocab) {
  const int64_t row_bytes = num_vocab * static_cast<int64_t>(sizeof(float));
  const int64_t rows = std::min(std::max(kCacheChunkBytes / row_bytes, kMinChunkRows), std::max(int64_t{1}, kMaxChunkBytes / row_bytes));
  return std::min(rows, std::max(int64_t{1}, num_rows));
}

void check_labels(const at::Tensor& label_N, int64_t num_rows, int64_t num_vocab, const char* name) {
  check_shape(label_N, {num_rows}, name);
  COPPICE_CHECK(label_N.scalar_type() == at::kLong && label_N.is_contiguous(), fmt::format("{}: expected contiguous int64", name));
  const int64_t* label = label_N.const_data_ptr<int64_t>();
  for (int64_t n = 0; n < num_rows; ++n) {
    COPPICE_CHECK(label[n] == kIgnoredLabel || (label[n] >= 0 && label[n] < num_vocab),
                  fmt::format("{}[{}]: got {}, expected {} or 0 to {}", name, n, label[n], kIgnoredLabel, num_vocab - 1));
  }
}

void check_inputs(const at::Tensor& hidden_ND, const at::Tensor& head_VD) {
  check_shape(hidden_ND, {-1, -1}, "hidden_ND");
  check_shape(head_VD, {-1, hidden_ND.size(1)}, "head_VD");
  check_cpu_float32(hidden_ND, "hidden_ND");
  check_cpu_float32(head_VD, "head_VD");
  COPPICE_CHECK(head_VD.size(0) > 0 && hidden_ND.size(1) > 0, "head_VD: expected at least one row and one column");
}

/// `visit(first, logits_CV)` for one chunk of tokens after the other, all in one buffer.
template <class Visit>
void for_each_chunk(const at::Tensor& hidden_ND, const at::Tensor& head_VD, const Visit& visit) {
  const int64_t num_rows = hidden_ND.size(0), num_vocab = head_VD.size(0), rows = chunk_rows(num_rows, num_vocab);
  const at::Tensor buffer_CV = hidden_ND.new_empty({rows, num_vocab});
  for (int64_t first = 0; first < num_rows; first += rows) {
    at::Tensor logits_CV = buffer_CV.narrow(0, 0, std::min(rows, num_rows - first));
    at::mm_out(logits_CV, hidden_ND.narrow(0, first, logits_CV.size(0)), head_VD.t());
    visit(first, logits_CV);
  }
}

}  // namespace

MixedCrossEntropySums mixed_cross_entropy_step(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& head_grad_VD, const at::Tensor& true_label_N,
                                               const at::Tensor& teacher_label_N, double teacher_weight, double z_loss, double scale, bool argmax) {
  const at::NoGradGuard no_grad;
  const at::Tensor hidden_ND = hidden.detach(), head_VD = head.detach();
  check_inputs(hidden_ND, head_VD);
  const int64_t num_rows = hidden_ND.size(0), num_vocab = head_VD.size(0);
  COPPICE_CHECK(teacher_weight >= 0.0 && teacher_weight <= 1.0, fmt::format("teacher_weight: got {}, expected 0 to 1", teacher_weight));
  check_labels(true_label_N, num_rows, num_vocab, "true_label_N");
  if (teacher_label_N.defined()) check_labels(teacher_label_N, num_rows, num_vocab, "teacher_label_N");

  MixedCrossEntropySums sums;
  at::Tensor head_grad = head_grad_VD;
  if (head_grad.defined()) {
    check_shape(head_grad, {num_vocab, head_VD.size(1)}, "head_grad_VD");
    check_cpu_float32(head_grad, "head_grad_VD");
    sums.hidden_grad_ND = at::empty_like(hidden_ND, at::MemoryFormat::Contiguous);
  }
  const int64_t* true_label = true_label_N.const_data_ptr<int64_t>();
  const int64_t* teacher_label = teacher_label_N.defined() ? teacher_label_N.const_data_ptr<int64_t>() : nullptr;
  std::vector<MixedCrossEntropyRow> rows(static_cast<size_t>(num_rows));
  for_each_chunk(hidden_ND, head_VD, [&](int64_t first, at::Tensor& logits_CV) {
    const int64_t chunk = logits_CV.size(0);
    mixed_cross_entropy_cpu({.logits = logits_CV.mutable_data_ptr<float>(),
                             .true_label = true_label + first,
                             .teacher_label = teacher_label ? teacher_label + first : nullptr,
                             .rows = rows.data() + first,
                             .num_rows = chunk,
                             .num_vocab = num_vocab,
                             .teacher_weight = teacher_weight,
                             .z_loss = z_loss,
                             .scale = scale,
                             .write_gradient = head_grad.defined(),
                             .argmax = argmax});
    if (!head_grad.defined()) return;
    at::Tensor hidden_grad = sums.hidden_grad_ND.narrow(0, first, chunk);
    at::mm_out(hidden_grad, logits_CV, head_VD);
    head_grad.addmm_(logits_CV.t(), hidden_ND.narrow(0, first, chunk));
  });

  for (int64_t n = 0; n < num_rows; ++n) {  // in row order: the sums do not depend on threads or chunks
    if (true_label[n] == kIgnoredLabel) continue;
    ++sums.num_live;
    sums.ce += rows[n].ce;
    sums.kd += rows[n].kd;
    sums.z += rows[n].z;
    sums.correct += argmax && rows[n].top_1 == true_label[n];
    sums.agree += argmax && teacher_label && rows[n].top_1 == teacher_label[n];
  }
  return sums;
}

at::Tensor top_1(const at::Tensor& hidden, const at::Tensor& head) {
  const at::NoGradGuard no_grad;
  const at::Tensor hidden_ND = hidden.detach(), head_VD = head.detach();
  check_inputs(hidden_ND, head_VD);
  at::Tensor top_1_N = at::empty({hidden_ND.size(0)}, hidden_ND.options().dtype(at::kLong));
  int64_t* top_1 = top_1_N.mutable_data_ptr<int64_t>();
  for_each_chunk(hidden_ND, head_VD, [&](int64_t first, const at::Tensor& logits_CV) {
    top_1_cpu(logits_CV.const_data_ptr<float>(), logits_CV.size(0), head_VD.size(0), top_1 + first);
  });
  return top_1_N;
}

namespace {

/// Mean over live rows; the gradients of hidden and head are made on the way when head_grad_VD is defined. No live row: 0.
struct MeanLoss {
  at::Tensor loss, hidden_grad_ND;
};
MeanLoss mean_loss(const at::Tensor& hidden_ND, const at::Tensor& head_VD, const at::Tensor& head_grad_VD, const at::Tensor& true_label_N,
                   const at::Tensor& teacher_label_N, double teacher_weight, double z_loss) {
  const int64_t num_live = true_label_N.ne(kIgnoredLabel).sum().item<int64_t>();
  const double scale = num_live == 0 ? 0.0 : 1.0 / static_cast<double>(num_live);
  const MixedCrossEntropySums sums =
      mixed_cross_entropy_step(hidden_ND, head_VD, head_grad_VD, true_label_N, teacher_label_N, teacher_weight, z_loss, scale, /*argmax=*/false);
  double sum = sums.ce + sums.z;
  if (teacher_weight != 0.0) sum += teacher_weight * (sums.kd - sums.ce);  // in this form exactly the cross-entropy when both labels agree everywhere
  return {hidden_ND.new_full({}, sum * scale), sums.hidden_grad_ND};
}

struct MixedCrossEntropyFunction : torch::autograd::Function<MixedCrossEntropyFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& hidden_ND, const at::Tensor& head_VD, const at::Tensor& true_label_N,
                            const at::Tensor& teacher_label_N, double teacher_weight, double z_loss) {
    const at::Tensor head_grad_VD = at::zeros_like(head_VD, at::MemoryFormat::Contiguous);
    const MeanLoss mean = mean_loss(hidden_ND, head_VD, head_grad_VD, true_label_N, teacher_label_N, teacher_weight, z_loss);
    context->save_for_backward({mean.hidden_grad_ND, head_grad_VD});
    return mean.loss;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context, const torch::autograd::variable_list& grads) {
    COPPICE_CHECK(!at::GradMode::is_enabled(), "linear_mixed_cross_entropy has no second derivative");
    const auto saved = context->get_saved_variables();
    return {saved[0].mul(grads[0]), saved[1].mul(grads[0]), at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor linear_mixed_cross_entropy(const at::Tensor& hidden_ND, const at::Tensor& head_VD, const at::Tensor& true_label, const at::Tensor& teacher_label,
                                      double teacher_weight, double z_loss) {
  const at::Tensor true_label_N = true_label.contiguous();
  const at::Tensor teacher_label_N = teacher_label.defined() ? teacher_label.contiguous() : teacher_label;
  const at::Tensor hidden = hidden_ND.contiguous(), head = head_VD.contiguous();
  check_inputs(hidden, head);
  if (at::GradMode::is_enabled() && (hidden.requires_grad() || head.requires_grad()))
    return MixedCrossEntropyFunction::apply(hidden, head, true_label_N, teacher_label_N, teacher_weight, z_loss);
  return mean_loss(hidden, head, at::Tensor(), true_label_N, teacher_label_N, teacher_weight, z_loss).loss;
}

TORCH_LIBRARY_FRAGMENT(coppice, m) {
  m.def(
      "linear_mixed_cross_entropy(Tensor hidden_ND, Tensor head_VD, Tensor true_label_N, Tensor teacher_label_N, float teacher_weight, float z_loss) -> Tensor",
      &linear_mixed_cross_entropy);
}

}  // namespace coppice
