// Torch at the door of the label mixture: checks, the pass over a chunk's rows, registration; and the teacher's
// choices, which are the same walk without a loss.
#include "src/tensors/kernels/linear_mixed_cross_entropy.h"

#include <fmt/format.h>
#include <torch/library.h>

#include "src/tensors/kernels/launch.h"
#include "src/tensors/kernels/linear_loss.h"
#include "src/tensors/kernels/op_checks.h"
#include "src/tensors/kernels/top_k.h"

namespace coppice {

LinearLoss mixed_cross_entropy_step(const HeadRows& given_rows, const at::Tensor& teacher_label_N,
                                    double teacher_weight, double z_loss) {
  const at::NoGradGuard no_grad;
  const HeadRows rows = checked_rows(given_rows);
  COPPICE_CHECK(teacher_weight >= 0.0 && teacher_weight <= 1.0,
                fmt::format("teacher_weight: got {}, expected 0 to 1", teacher_weight));
  if (teacher_label_N.defined())
    check_labels(teacher_label_N, rows.hidden_ND.size(0), rows.num_vocab(), rows.labels_below, rows.hidden_ND.device(),
                 "teacher_label_N");
  constexpr ShardKernels<MixedCrossEntropyParams<float>, MixedStatistics> kOfShard{
      .measure = mixed_cross_entropy_statistics_cpu, .finish = mixed_cross_entropy_gradient_cpu};
  const auto whole = [&](const auto& params) { COPPICE_RUN(rows.hidden_ND, mixed_cross_entropy, params); };
  const RowPass pass = [&](int64_t first, at::Tensor& logits_CV, const RowResults& results) {
    with_elements_of(logits_CV, [&]<class T>() {
      const MixedCrossEntropyParams<T> params{
          .logits = mutable_elements<T>(logits_CV),
          .true_label = elements<int64_t>(rows.true_label_N) + first,
          .teacher_label = teacher_label_N.defined() ? elements<int64_t>(teacher_label_N) + first : nullptr,
          .rows = results.rows,
          .terms = results.terms,
          .num_rows = logits_CV.size(0),
          .num_vocab = rows.head_VD.size(0),
          .first_id = rows.shard.first,
          .teacher_weight = teacher_weight,
          .z_loss = z_loss,
          .scale = rows.scale,
          .write_gradient = rows.head_grad_VD.defined(),
          .argmax = rows.argmax};
      run_rows(rows, params, whole, kOfShard);
    });
  };
  return walk_chunks(rows, pass);
}

at::Tensor linear_mixed_cross_entropy(const at::Tensor& hidden_ND, const at::Tensor& head_VD,
                                      const at::Tensor& true_label, const at::Tensor& teacher_label,
                                      double teacher_weight, double z_loss) {
  const at::Tensor true_label_N = true_label.contiguous();
  const at::Tensor teacher_label_N = teacher_label.defined() ? teacher_label.contiguous() : teacher_label;
  return mean_linear_loss(
      hidden_ND, head_VD, true_label_N, teacher_weight,
      [=](const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& head_grad, double scale) {
        return mixed_cross_entropy_step({.hidden_ND = hidden,
                                         .head_VD = head,
                                         .head_grad_VD = head_grad,
                                         .true_label_N = true_label_N,
                                         .scale = scale},
                                        teacher_label_N, teacher_weight, z_loss);
      });
}

at::Tensor top_1(const at::Tensor& hidden, const at::Tensor& head, TopFacts* facts) {
  const at::NoGradGuard no_grad;
  const at::Tensor hidden_ND = hidden.detach(), head_VD = head.detach();
  check_head(hidden_ND, head_VD, "hidden_ND", "head_VD");
  at::Tensor top_1_N = at::empty({hidden_ND.size(0)}, hidden_ND.options().dtype(at::kLong));
  LogitChunks chunks(hidden_ND, head_VD);
  RowFacts row_facts(hidden_ND, facts);
  for (int64_t first = 0; first < hidden_ND.size(0); first += chunks.rows()) {
    const at::Tensor logits_CV = chunks.at(first);
    const Top1Params params{.logits = elements<float>(logits_CV),
                            .num_rows = logits_CV.size(0),
                            .num_vocab = head_VD.size(0),
                            .id = mutable_elements<int64_t>(top_1_N) + first,
                            .fact = row_facts.from(first)};
    if (execution_of(hidden_ND) == Execution::cpu)
      top_1_cpu(params.logits, params.num_rows, params.num_vocab, params.id, params.fact);
    else
      COPPICE_LAUNCH(hidden_ND, top_1, params);
  }
  return top_1_N;
}

TopK top_k(const at::Tensor& hidden, const at::Tensor& head, int64_t k, double temperature, TopFacts* facts) {
  const at::NoGradGuard no_grad;
  const at::Tensor hidden_ND = hidden.detach(), head_VD = head.detach();
  check_head(hidden_ND, head_VD, "hidden_ND", "head_VD");
  COPPICE_CHECK(k >= 1 && k <= head_VD.size(0), fmt::format("k: got {}, expected 1 to {}", k, head_VD.size(0)));
  COPPICE_CHECK(temperature > 0, fmt::format("temperature: got {}, expected above 0", temperature));
  const int64_t num_rows = hidden_ND.size(0);
  const auto floats = hidden_ND.options().dtype(at::kFloat);
  TopK top{.id_NK = at::empty({num_rows, k}, hidden_ND.options().dtype(at::kLong)),
           .logp_NK = at::empty({num_rows, k}, floats),
           .tail_logp_N = at::empty({num_rows}, floats)};
  LogitChunks chunks(hidden_ND, head_VD);
  RowFacts row_facts(hidden_ND, facts);
  for (int64_t first = 0; first < num_rows; first += chunks.rows()) {
    const at::Tensor logits_CV = chunks.at(first);
    const TopKParams params{.logits = mutable_elements<float>(logits_CV),
                            .num_rows = logits_CV.size(0),
                            .num_vocab = head_VD.size(0),
                            .k = k,
                            .temperature = temperature,
                            .id = mutable_elements<int64_t>(top.id_NK) + first * k,
                            .logp = mutable_elements<float>(top.logp_NK) + first * k,
                            .tail = mutable_elements<float>(top.tail_logp_N) + first,
                            .fact = row_facts.from(first)};
    COPPICE_RUN(hidden_ND, top_k, params);
  }
  return top;
}

TORCH_LIBRARY_FRAGMENT(coppice, m) {
  m.def(
      "linear_mixed_cross_entropy(Tensor hidden_ND, Tensor head_VD, Tensor true_label_N, Tensor teacher_label_N, float "
      "teacher_weight, float z_loss) -> Tensor",
      &linear_mixed_cross_entropy);
}

}  // namespace coppice
