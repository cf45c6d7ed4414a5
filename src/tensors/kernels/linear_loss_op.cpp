#include "src/tensors/kernels/linear_loss.h"

#include <fmt/format.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <vector>

#include "src/tensors/kernels/launch.h"
#include "src/tensors/kernels/logits.h"
#include "src/tensors/kernels/op_checks.h"
#include "src/tensors/kernels/products.h"

namespace coppice {

namespace {

// A chunk of logits that stays in the last-level cache is the cheapest; but every chunk also reads the head twice and
// its gradient once, so a large vocabulary needs enough rows to pay for that. Never more than kMaxChunkBytes. On a
// device products want many rows, and memory is there.
constexpr int64_t kCacheChunkBytes = int64_t{4} << 20;
constexpr int64_t kMaxChunkBytes = int64_t{64} << 20;
constexpr int64_t kMinChunkRows = 320;
constexpr int64_t kDeviceChunkBytes = int64_t{256} << 20;

int64_t chunk_rows(int64_t num_rows, int64_t row_bytes, bool on_cpu) {
  const int64_t rows = on_cpu ? std::min(std::max(kCacheChunkBytes / row_bytes, kMinChunkRows),
                                         std::max(int64_t{1}, kMaxChunkBytes / row_bytes))
                              : std::max(int64_t{1}, kDeviceChunkBytes / row_bytes);
  const int64_t chunks = std::max(int64_t{1}, (num_rows + rows - 1) / rows);
  return std::max(int64_t{1},
                  (num_rows + chunks - 1) / chunks);  // all nearly equal: a short last one would be the dearest
}

}  // namespace

void check_labels(const at::Tensor& label_N, int64_t num_rows, int64_t num_vocab, int64_t labels_below,
                  at::Device device, const char* name) {
  check_shape(label_N, {num_rows}, name);
  check_dense(label_N, at::kLong, device, name);
  COPPICE_CHECK(label_N.is_contiguous(), fmt::format("{}: expected contiguous int64", name));
  if (ids_known(labels_below, num_vocab)) return;
  const at::Tensor host_N = label_N.cpu();
  const int64_t* label = host_N.const_data_ptr<int64_t>();
  for (int64_t n = 0; n < num_rows; ++n) {
    COPPICE_CHECK(
        label[n] == kIgnoredLabel || (label[n] >= 0 && label[n] < num_vocab),
        fmt::format("{}[{}]: got {}, expected {} or 0 to {}", name, n, label[n], kIgnoredLabel, num_vocab - 1));
  }
}

void check_head(const at::Tensor& hidden_ND, const at::Tensor& head_VD, std::string_view hidden_name,
                std::string_view head_name) {
  check_shape(hidden_ND, {-1, -1}, hidden_name);
  check_shape(head_VD, {-1, hidden_ND.size(1)}, head_name);
  const Placement on = placement_of(hidden_ND, hidden_name);
  check_dense(head_VD, on.compute, on.device, head_name);
  COPPICE_CHECK(head_VD.size(0) > 0 && hidden_ND.size(1) > 0,
                fmt::format("{}: expected at least one row and one column", head_name));
}

HeadRows checked_rows(const HeadRows& rows) {
  HeadRows checked = rows;
  checked.hidden_ND = rows.hidden_ND.detach();
  checked.head_VD = rows.head_VD.detach();
  check_head(checked.hidden_ND, checked.head_VD, "hidden_ND", "head_VD");
  if (rows.shard.total > 0) {
    COPPICE_CHECK(
        rows.shard.first >= 0 && rows.shard.first + rows.head_VD.size(0) <= rows.shard.total && rows.shard.exchange,
        fmt::format("shard: ids {} to {} of {}", rows.shard.first, rows.shard.first + rows.head_VD.size(0) - 1,
                    rows.shard.total));
    COPPICE_CHECK(execution_of(checked.hidden_ND) == Execution::cpu,
                  "shard: parts of a vocabulary meet in float32 on the CPU alone");
  }
  check_labels(rows.true_label_N, rows.hidden_ND.size(0), rows.num_vocab(), rows.labels_below, rows.hidden_ND.device(),
               "true_label_N");
  if (rows.head_grad_VD.defined()) {
    check_shape(rows.head_grad_VD, {rows.head_VD.size(0), rows.head_VD.size(1)}, "head_grad_VD");
    check_dense(rows.head_grad_VD, at::kFloat, rows.head_VD.device(), "head_grad_VD");
  }
  return checked;
}

RowFacts::RowFacts(const at::Tensor& hidden_ND, TopFacts* facts) {
  if (facts != nullptr) facts->fact_N = fact_N_ = at::empty({hidden_ND.size(0)}, hidden_ND.options().dtype(at::kByte));
}

TopFact* RowFacts::from(int64_t row) {
  static_assert(sizeof(TopFact) == sizeof(uint8_t));
  return fact_N_.defined() ? reinterpret_cast<TopFact*>(mutable_elements<uint8_t>(fact_N_)) + row : nullptr;
}

int64_t TopFacts::count_near_ties() const {
  return fact_N.eq(static_cast<int64_t>(TopFact::near_tie)).sum().item<int64_t>();
}
at::Tensor TopFacts::not_finite_N() const { return fact_N.eq(static_cast<int64_t>(TopFact::not_finite)); }

LogitChunks::LogitChunks(const at::Tensor& hidden_ND, const at::Tensor& head_VD, int64_t rows, int64_t num_vocab,
                         at::ScalarType type)
    : hidden_ND_(hidden_ND.is_cpu() ? widened(hidden_ND).contiguous() : hidden_ND.contiguous()),
      head_VD_(head_VD.is_cpu() ? widened(head_VD).contiguous() : head_VD.contiguous()) {
  const int64_t row_bytes = std::max(num_vocab, head_VD.size(0)) * static_cast<int64_t>(c10::elementSize(type));
  rows_ = rows > 0 ? rows : chunk_rows(hidden_ND.size(0), row_bytes, hidden_ND.is_cpu());
  buffer_CV_ = at::empty({rows_, head_VD.size(0)}, hidden_ND.options().dtype(type));
}

at::Tensor LogitChunks::at(int64_t first) {
  at::Tensor logits_CV = buffer_CV_.narrow(0, 0, std::min(rows_, num_rows() - first));
  const at::Tensor hidden_CD = hidden_ND_.narrow(0, first, logits_CV.size(0));
  if (!hidden_CD.is_cpu()) {
    product_out(logits_CV, hidden_CD, head_VD_.t());
    return logits_CV;
  }
  const bool narrow = logits_CV.scalar_type() != at::kFloat;
  const at::Tensor sum_CV = narrow ? at::empty(logits_CV.sizes(), logits_CV.options().dtype(at::kFloat)) : logits_CV;
  logits_cpu({.hidden = elements<float>(hidden_CD),
              .head = elements<float>(head_VD_),
              .logits = mutable_elements<float>(sum_CV),
              .num_rows = logits_CV.size(0),
              .num_vocab = head_VD_.size(0),
              .width = head_VD_.size(1)});
  if (narrow) logits_CV.copy_(sum_CV);
  return logits_CV;
}

namespace {

/// Sums over live rows, in their order.
at::Tensor sum_rows(const std::vector<LossRow>& rows, const at::Tensor& true_label_N) {
  const at::Tensor sum_S = at::zeros({kNumLossSums}, at::kDouble);
  double* const sum = sum_S.mutable_data_ptr<double>();
  const int64_t* true_label = true_label_N.const_data_ptr<int64_t>();
  for (size_t n = 0; n < rows.size(); ++n) {
    if (true_label[n] == kIgnoredLabel) continue;
    const LossRow& row = rows[n];
    sum[kSumCe] += row.ce;
    sum[kSumKd] += row.kd;
    sum[kSumZ] += row.z;
    sum[kSumLive] += 1;
    sum[kSumCorrect] += row.top_1 == true_label[n];
    sum[kSumAgree] += row.top_1 >= 0 && row.top_1 == row.teacher_top_1;
  }
  return sum_S;
}

}  // namespace

at::Tensor empty_statistics(int64_t num_rows, int64_t numbers) { return at::empty({num_rows, numbers}, at::kDouble); }

at::Tensor exchange_statistics(const at::Tensor& own_CX, const VocabularyShard& shard) {
  at::Tensor all_RCX = shard.exchange(own_CX).contiguous();
  check_shape(all_RCX, {-1, own_CX.size(0), own_CX.size(1)}, "row statistics of all parts");
  return all_RCX;
}

LinearLossSums LinearLoss::read() const {
  const at::Tensor host_S = sum_S.cpu();
  const double* sum = host_S.const_data_ptr<double>();
  return {.num_live = static_cast<int64_t>(sum[kSumLive]),
          .ce = sum[kSumCe],
          .kd = sum[kSumKd],
          .z = sum[kSumZ],
          .correct = static_cast<int64_t>(sum[kSumCorrect]),
          .agree = static_cast<int64_t>(sum[kSumAgree])};
}

at::ScalarType logits_type(const HeadRows& rows) {
  return rows.head_grad_VD.defined() && !rows.float_logits ? rows.hidden_ND.scalar_type() : at::kFloat;
}

LinearLoss walk_chunks(const HeadRows& rows, const RowPass& pass, at::Tensor* given_terms) {
  const int64_t num_rows = rows.hidden_ND.size(0);
  const bool wants_gradient = rows.head_grad_VD.defined(), by_loops = execution_of(rows.hidden_ND) == Execution::cpu;
  LinearLoss result;
  if (wants_gradient) result.hidden_grad_ND = at::empty_like(rows.hidden_ND, at::MemoryFormat::Contiguous);
  std::vector<LossRow> loss(static_cast<size_t>(by_loops ? num_rows : 0));
  static_assert(sizeof(LossTerms) == 4 * sizeof(float));
  const at::Tensor terms_N4 = partial_sums(rows.hidden_ND, {num_rows, 4});
  LossTerms* const terms = reinterpret_cast<LossTerms*>(mutable_elements<float>(terms_N4));
  LogitChunks chunks(rows.hidden_ND, rows.head_VD, rows.chunk_rows, rows.num_vocab(), logits_type(rows));
  for (int64_t first = 0; first < num_rows; first += chunks.rows()) {
    at::Tensor logits_CV = chunks.at(first);
    pass(first, logits_CV,
         {.rows = by_loops ? loss.data() + first : nullptr, .terms = by_loops ? nullptr : terms + first});
    if (!wants_gradient) continue;
    const at::Tensor logits_grad_CV = logits_CV.to(rows.hidden_ND.scalar_type());
    at::Tensor hidden_grad = result.hidden_grad_ND.narrow(0, first, logits_CV.size(0));
    product_out(hidden_grad, logits_grad_CV, rows.head_VD);
    add_product(rows.head_grad_VD, logits_grad_CV.t(), rows.hidden_ND.narrow(0, first, logits_CV.size(0)));
  }
  if (by_loops) {
    result.sum_S = sum_rows(loss, rows.true_label_N);
    return result;
  }
  static_assert(kNumLossTermSums == kNumLossSums);
  result.sum_S = at::zeros({kNumLossSums}, rows.hidden_ND.options().dtype(at::kDouble));
  const AddLossTermsParams params{.terms = terms, .sum = mutable_elements<double>(result.sum_S), .num_rows = num_rows};
  COPPICE_LAUNCH(rows.hidden_ND, add_loss_terms, params);
  if (given_terms != nullptr) *given_terms = terms_N4;
  return result;
}

namespace {

struct Mean {
  at::Tensor loss, hidden_grad_ND;
};
Mean mean_of(const at::Tensor& hidden_ND, const at::Tensor& head_VD, const at::Tensor& head_grad_VD,
             const at::Tensor& true_label_N, double teacher_weight, const LossStep& step) {
  const int64_t num_live = true_label_N.ne(kIgnoredLabel).sum().item<int64_t>();
  const double scale = num_live == 0 ? 0.0 : 1.0 / static_cast<double>(num_live);
  const LinearLoss result = step(hidden_ND, head_VD, head_grad_VD, scale);
  const LinearLossSums sums = result.read();
  double sum = sums.ce + sums.z;
  if (teacher_weight != 0.0)
    sum += teacher_weight *
           (sums.kd - sums.ce);  // in this form exactly the cross-entropy when both labels agree everywhere
  return {at::full({}, sum * scale, hidden_ND.options().dtype(at::kFloat)), result.hidden_grad_ND};
}

struct MeanLinearLoss : torch::autograd::Function<MeanLinearLoss> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& hidden_ND,
                            const at::Tensor& head_VD, const at::Tensor& true_label_N, double teacher_weight,
                            const LossStep& step) {
    const at::Tensor head_grad_VD = at::zeros(head_VD.sizes(), head_VD.options().dtype(at::kFloat));
    const Mean mean = mean_of(hidden_ND, head_VD, head_grad_VD, true_label_N, teacher_weight, step);
    context->save_for_backward({mean.hidden_grad_ND, head_grad_VD});
    return mean.loss;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    COPPICE_CHECK(!at::GradMode::is_enabled(), "the linear losses have no second derivative");
    const auto saved = context->get_saved_variables();
    return {saved[0].mul(grads[0]), saved[1].mul(grads[0]), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor mean_linear_loss(const at::Tensor& hidden_ND, const at::Tensor& head_VD, const at::Tensor& true_label_N,
                            double teacher_weight, const LossStep& step) {
  const at::Tensor hidden = hidden_ND.contiguous(), head = head_VD.contiguous();
  check_head(hidden, head, "hidden_ND", "head_VD");
  if (at::GradMode::is_enabled() && (hidden.requires_grad() || head.requires_grad()))
    return MeanLinearLoss::apply(hidden, head, true_label_N, teacher_weight, step);
  return mean_of(hidden, head, at::Tensor(), true_label_N, teacher_weight, step).loss;
}

}  // namespace coppice
