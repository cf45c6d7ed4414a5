// The gradient of a step is the same however its batch is split into micro-batches: every loss, packed and not, with
// masks and without.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "src/model/parameters.h"
#include "src/optim/optimizer.h"
#include "src/tensors/draws.h"
#include "student/targets.h"
#include "tests/tensors/whole_arena.h"

using namespace coppice;

namespace {

constexpr int64_t kRows = 8, kSeqLen = 24, kVocab = 300;

Model model_of(uint64_t seed) {
  const ModelConfig config = preset("test", "t");
  Model model = make_model(config);
  initialise_parameters(config, *model.arena, seed);
  model.arena->enable_gradient();
  return model;
}

/// Rows of very unequal live counts, the last one without any; packed: documents of 7, 1 and the rest.
Batch ragged_batch(bool packed) {
  at::manual_seed(11);
  const at::Tensor text = at::randint(kVocab, {kRows, kSeqLen + 1}, at::kLong), column = at::arange(kSeqLen);
  Batch batch{.token_BT = text.narrow(1, 0, kSeqLen).contiguous(),
              .position_BT = column.repeat({kRows, 1}),
              .document_BT = {},
              .true_label_BT = text.narrow(1, 1, kSeqLen).contiguous()};
  const int64_t dead[kRows] = {0, 3, 20, 7, 23, 0, 11, 24};
  for (int64_t row = 0; row < kRows; ++row)
    batch.true_label_BT[row].narrow(0, kSeqLen - dead[row], dead[row]).fill_(kIgnoredLabel);
  if (packed) {
    const at::Tensor begin = at::where(column.ge(8), 8, at::where(column.ge(7), 7, 0));
    batch.document_BT = (column.ge(7).to(at::kInt) + column.ge(8).to(at::kInt)).repeat({kRows, 1});
    batch.position_BT = (column - begin).repeat({kRows, 1});
  }
  batch.num_live = batch.true_label_BT.ge(0).sum().item<int64_t>();
  return batch;
}

Batch rows_of(const Batch& batch, int64_t first, int64_t count) {
  Batch part;
  const DecoderInput input = batch.input().part(first, count, 0, kSeqLen);
  part.token_BT = input.token_BT;
  part.position_BT = input.position_BT;
  part.document_BT = input.document_BT;
  part.true_label_BT = batch.true_label_BT.narrow(0, first, count).contiguous();
  part.num_live = part.true_label_BT.ge(0).sum().item<int64_t>();
  return part;
}

/// Gradients of weights and masks, end to end.
at::Tensor gradient(const Model& model, const DecoderMasks& masks) {
  std::vector<at::Tensor> all{whole_gradient(*model.arena)};
  for (const auto member : {&DecoderMasks::multiplier_F, &DecoderMasks::multiplier_G})
    for (const at::Tensor& mask : masks.*member) all.push_back(mask.grad());
  return at::cat(all).to(at::kDouble);
}

/// Draws whose numbers hang on the token alone, whatever batch it stands in.
TopK draws_of(const TeacherSignal& signal, const at::Tensor& token_BT, const KdOptions& options) {
  const at::Tensor number_N1 = (token_BT.reshape({-1, 1}).to(at::kDouble) * 0.6180339887).frac(),
                   number_NR = at::cat({number_N1, (number_N1 + 0.37).frac(), (number_N1 + 0.71).frac()}, 1);
  if (options.loss == "sample")
    return shares_of_draws(draw_ids(signal.hidden_NE, signal.head_VE, options.temperature, number_NR));
  return shares_of_head_and_draws(top_k_and_draws(signal.hidden_NE, signal.head_VE, 4, options.temperature, number_NR));
}

struct Case {
  const char* loss;
  const char* hidden_loss;
  int teachers;  // 0 = none
};
constexpr Case kCases[] = {
    {"labels", "none", 0}, {"labels", "none", 1},   {"top_k", "none", 1}, {"decoupled_top_k", "none", 1},
    {"sample", "none", 1}, {"hybrid", "none", 1},   {"kl", "none", 1},    {"reverse_kl", "none", 1},
    {"jsd", "none", 1},    {"labels", "cosine", 1}, {"kl", "mse", 1},     {"labels", "none", 2}};

}  // namespace

TEST_SUITE("parity") {
  TEST_CASE("split: 1, 2, 4 and 8 micro-batches have one gradient, whatever the loss; means of them have not") {
    const Model model = model_of(3), teacher = model_of(5);
    for (const bool packed : {false, true})
      for (const bool masked : {false, true})
        for (const Case& one : kCases) {
          CAPTURE(packed);
          CAPTURE(masked);
          CAPTURE(one.loss);
          CAPTURE(one.hidden_loss);
          CAPTURE(one.teachers);
          const Batch batch = ragged_batch(packed);
          const KdOptions options{.loss = one.loss,
                                  .teacher_weight = one.teachers > 0 ? 0.9 : 0.0,
                                  .temperature = std::string(one.loss) == "labels" ? 1.0 : 2.0,
                                  .beta = 0.3,
                                  .hidden_loss = one.hidden_loss,
                                  .hidden_weight = 0.5,
                                  .hidden_layers = {1, 2},
                                  .z_loss = 1e-3};
          const TargetsOf targets_of = [&](const Batch& part) {
            const at::NoGradGuard no_grad;
            std::vector<Targets> targets;
            for (int i = 0; i < std::max(1, one.teachers); ++i) {
              TeacherSignal signal;
              DecoderTaps taps;
              if (options.hidden_loss != "none")
                taps.layer_output = [&](int, const at::Tensor& output_ND) { signal.layer_ND.push_back(output_ND); };
              if (one.teachers > 0) {
                signal.hidden_NE = decoder_hidden(teacher, part.input(), {}, taps) * (1.0 + i);
                signal.head_VE = output_head(teacher);
                signal.label_BT = top_1(signal.hidden_NE * (i == 0 ? 1 : -1), signal.head_VE).view_as(part.token_BT);
                signal.top = top_k(signal.hidden_NE, signal.head_VE, 6, options.temperature);
                if (reads_draws(options.loss)) signal.top = draws_of(signal, part.token_BT, options);
              }
              targets.push_back(distillation_targets(part, signal, options));
              targets.back().share = one.teachers > 1 ? (i == 0 ? 0.25 : 0.75) : 1;
            }
            return targets;
          };
          const auto run = [&](int64_t count, bool mean) {
            model.arena->zero_gradient();
            DecoderMasks masks;
            if (masked)
              masks = {
                  .multiplier_F = {at::linspace(0.1, 1, 96).requires_grad_(true),
                                   at::linspace(1, 0.1, 96).requires_grad_(true)},
                  .multiplier_G = {at::full({1}, 0.5f).requires_grad_(true), at::full({1}, 0.8f).requires_grad_(true)}};
            std::vector<Batch> batches;
            for (int64_t i = 0; i < count; ++i) batches.push_back(rows_of(batch, kRows / count * i, kRows / count));
            if (!mean) {
              const LossSums sums =
                  accumulate_gradient(model, batches, targets_of, masks, gradient_scale(batch.num_live)).read();
              CHECK(sums.num_live == batch.num_live);
            } else {
              for (const Batch& part : batches)
                train_micro_batch(model, part, targets_of(part), masks,
                                  gradient_scale(part.num_live) / static_cast<double>(count));
            }
            return gradient(model, masks);
          };
          const at::Tensor whole = run(1, false);
          const double norm = whole.norm().item<double>();
          CHECK(norm > 0);
          for (const int64_t count : {2, 4, 8}) {
            CAPTURE(count);
            CHECK((run(count, false) - whole).norm().item<double>() <= 1e-5 * norm);
            CHECK((run(count, true) - whole).norm().item<double>() > 1e-2 * norm);
          }
        }
  }
}
