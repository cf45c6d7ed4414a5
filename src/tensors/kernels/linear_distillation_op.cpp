// Torch at the door of distillation from a dense teacher: its head is multiplied inside the chunk, so that two chunks
// of logits are all there ever is.
#include "src/tensors/kernels/linear_distillation.h"

#include <fmt/format.h>
#include <torch/library.h>

#include <type_traits>

#include "src/tensors/kernels/launch.h"
#include "src/tensors/kernels/linear_loss.h"
#include "src/tensors/kernels/op_checks.h"

namespace coppice {

namespace {

DistillationSettings settings_of(const DistillationOptions& options) {
  DistillationSettings settings{.teacher_weight = options.teacher_weight,
                                .temperature = options.temperature,
                                .beta = options.beta,
                                .z_loss = options.z_loss};
  COPPICE_CHECK(options.teacher_weight >= 0.0 && options.teacher_weight <= 1.0,
                fmt::format("teacher_weight: got {}, expected 0 to 1", options.teacher_weight));
  COPPICE_CHECK(options.temperature > 0.0, fmt::format("temperature: got {}, expected above 0", options.temperature));
  if (options.loss == "kl") {
    settings.loss = DistillationLoss::kl;
  } else if (options.loss == "reverse_kl") {
    settings.loss = DistillationLoss::reverse_kl;
  } else {
    COPPICE_CHECK(options.loss == "jsd", fmt::format("loss: got '{}', expected kl, reverse_kl or jsd", options.loss));
    COPPICE_CHECK(options.beta > 0.0 && options.beta < 1.0,
                  fmt::format("beta: got {}, expected above 0 and below 1", options.beta));
    settings.loss = DistillationLoss::jsd;
  }
  return settings;
}

}  // namespace

LinearLoss distillation_step(const HeadRows& given_rows, const at::Tensor& teacher_hidden,
                             const at::Tensor& teacher_head, const DistillationOptions& options) {
  const at::NoGradGuard no_grad;
  const HeadRows rows = checked_rows(given_rows);
  const at::Tensor teacher_hidden_NE = teacher_hidden.detach(), teacher_head_VE = teacher_head.detach();
  check_head(teacher_hidden_NE, teacher_head_VE, "teacher_hidden_NE", "teacher_head_VE");
  check_dense(teacher_hidden_NE, rows.hidden_ND.scalar_type(), rows.hidden_ND.device(), "teacher_hidden_NE");
  const int64_t num_columns = rows.head_VD.size(0);
  check_shape(teacher_hidden_NE, {rows.hidden_ND.size(0), -1}, "teacher_hidden_NE");
  check_shape(teacher_head_VE, {num_columns, -1}, "teacher_head_VE");
  const DistillationSettings settings = settings_of(options);
  LogitChunks teacher(teacher_hidden_NE, teacher_head_VE, rows.chunk_rows, rows.num_vocab(),
                      logits_type(rows));  // as the student's: chunks depend on rows and vocabulary alone
  const RowPass pass = [&](int64_t first, at::Tensor& logits_CV, const RowResults& results) {
    const at::Tensor teacher_logits_CV = teacher.at(first);
    with_elements_of(logits_CV, [&]<class T>() {
      const DistillationParams<T> params{.logits = mutable_elements<T>(logits_CV),
                                         .teacher_logits = mutable_elements<T>(teacher_logits_CV),
                                         .true_label = elements<int64_t>(rows.true_label_N) + first,
                                         .rows = results.rows,
                                         .terms = results.terms,
                                         .num_rows = logits_CV.size(0),
                                         .num_vocab = num_columns,
                                         .first_id = rows.shard.first,
                                         .settings = settings,
                                         .scale = rows.scale,
                                         .write_gradient = rows.head_grad_VD.defined(),
                                         .argmax = rows.argmax};
      if constexpr (std::is_same_v<T, float>) {
        if (rows.shard.total > 0) {
          RowExchange<DistillationStatistics> statistics(params.num_rows);
          RowExchange<JsdStatistics> jsd(params.num_rows);
          distillation_statistics_cpu(params, statistics.own());
          distillation_gradient_cpu(params, statistics.exchange(rows.shard), jsd.own());
          if (settings.loss == DistillationLoss::jsd) distillation_jsd_cpu(params, jsd.exchange(rows.shard));
          return;
        }
      }
      COPPICE_RUN(rows.hidden_ND, distillation, params);
    });
  };
  return walk_chunks(rows, pass);
}

at::Tensor linear_distillation(const at::Tensor& hidden_ND, const at::Tensor& head_VD,
                               const at::Tensor& teacher_hidden_NE, const at::Tensor& teacher_head_VE,
                               const at::Tensor& true_label, const DistillationOptions& options) {
  const at::Tensor true_label_N = true_label.contiguous(), teacher_hidden = teacher_hidden_NE.contiguous(),
                   teacher_head = teacher_head_VE.contiguous();
  return mean_linear_loss(
      hidden_ND, head_VD, true_label_N, options.teacher_weight,
      [=](const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& head_grad, double scale) {
        return distillation_step({.hidden_ND = hidden,
                                  .head_VD = head,
                                  .head_grad_VD = head_grad,
                                  .true_label_N = true_label_N,
                                  .scale = scale},
                                 teacher_hidden, teacher_head, options);
      });
}

TORCH_LIBRARY_FRAGMENT(coppice, m) {
  m.def(
      "linear_distillation(Tensor hidden_ND, Tensor head_VD, Tensor teacher_hidden_NE, Tensor teacher_head_VE, Tensor "
      "true_label_N, str loss, float "
      "teacher_weight, "
      "float temperature, float beta, float z_loss) -> Tensor",
      [](const at::Tensor& hidden_ND, const at::Tensor& head_VD, const at::Tensor& teacher_hidden_NE,
         const at::Tensor& teacher_head_VE, const at::Tensor& true_label_N, std::string loss, double teacher_weight,
         double temperature, double beta, double z_loss) {
        return linear_distillation(hidden_ND, head_VD, teacher_hidden_NE, teacher_head_VE, true_label_N,
                                   {.loss = std::move(loss),
                                    .teacher_weight = teacher_weight,
                                    .temperature = temperature,
                                    .beta = beta,
                                    .z_loss = z_loss});
      });
}

}  // namespace coppice
