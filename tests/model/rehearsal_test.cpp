// One step of a decoder wherever it computes, beside the plain decoder's in double with equal weights: float32 by the
// CPU's loops and by the kernels; bfloat16 by the executor, which is the rehearsal of a step on a device; and on one.
// What may lie between bfloat16 and the double step was measured on a model of the roundings alone; a slip in a
// backward (a norm without its mean term, a rotation the wrong way round, SiLU without its own slope) moves the
// gradient by 0.15 and more.
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "src/model/decoder.h"
#include "src/model/parameters.h"
#include "src/tensors/executor/executor.h"
#include "src/tensors/ops.h"
#include "tests/model/noise.h"
#include "tests/model/reference_decoder.h"
#include "tests/tensors/compare.h"

using namespace coppice;

namespace {

constexpr int64_t kBatch = 2, kSeqLen = 64, kTokens = kBatch * kSeqLen, kTeacherWidth = 48, kTopK = 8;
constexpr double kZLoss = 1e-4, kTemperature = 2;

/// `other_family`: as imported models are, with biases of queries, keys and values in place of their norms, scaled RoPE
/// and a head of its own.
ModelConfig rehearsal_config(bool other_family) {
  ModelConfig config = preset("test", "t");
  config.hidden_size = 64, config.vocab_size = 256, config.intermediate_size = {128, 128};
  config.num_attention_heads = 4, config.num_key_value_heads = 2, config.head_dim = 16;
  if (!other_family) return config;
  config.qkv_bias = true, config.qk_norm = false, config.tie_word_embeddings = false;
  config.rope_scaling = {
      .factor = 4, .low_freq_factor = 1, .high_freq_factor = 4, .original_max_position_embeddings = 64};
  return config;
}

Model rehearsal_model(const Placement& on, bool other_family = false) {
  const ModelConfig config = rehearsal_config(other_family);
  Model model{.config = config, .arena = std::make_unique<ParameterArena>(arena_layout(config), on)};
  fill_with_noise(*model.arena);
  model.arena->enable_gradient();
  return model;
}

/// `packed`: three documents a row, positions restarting.
DecoderInput rehearsal_input(bool packed) {
  const at::Tensor token_BT = (randn({kBatch, kSeqLen}, 1).abs() * 1e4).to(at::kLong) % 256;
  const at::Tensor column = at::arange(kSeqLen);
  DecoderInput input{.token_BT = token_BT, .position_BT = column.repeat({kBatch, 1})};
  if (!packed) return input;
  const at::Tensor begins = column.ge(20).to(at::kLong) * 20 + column.ge(21).to(at::kLong);
  input.document_BT = (column.ge(20).to(at::kInt) + column.ge(21).to(at::kInt)).repeat({kBatch, 1});
  input.position_BT = (column - begins).repeat({kBatch, 1});
  return input;
}

/// The next token of a row; the last one has none.
at::Tensor next_tokens(const DecoderInput& input) {
  const at::Tensor label_BT = at::full_like(input.token_BT, kIgnoredLabel);
  label_BT.narrow(1, 0, kSeqLen - 1).copy_(input.token_BT.narrow(1, 1, kSeqLen - 1));
  return label_BT.view(-1);
}

DecoderInput placed(DecoderInput input, at::Device device) {
  for (at::Tensor* tensor : {&input.token_BT, &input.position_BT, &input.document_BT})
    if (tensor->defined()) *tensor = tensor->to(device);
  return input;
}

// -- what a teacher says, the same on every run --
at::Tensor teacher_labels() { return (randn({kTokens}, 2).abs() * 1e4).to(at::kLong) % 256; }
at::Tensor teacher_hidden() { return randn({kTokens, kTeacherWidth}, 3); }
at::Tensor teacher_head() { return randn({256, kTeacherWidth}, 4) / std::sqrt(static_cast<double>(kTeacherWidth)); }
/// The eight most probable ids of the same teacher, at that temperature.
TopK teacher_top_k() { return top_k(teacher_hidden(), teacher_head(), kTopK, kTemperature); }

/// tau^2 sum over a row of q log(q / p), q log-probabilities.
at::Tensor divergence(const at::Tensor& log_q, const at::Tensor& log_p) {
  return kTemperature * kTemperature * (log_q.exp() * (log_q - log_p)).sum(1);
}

struct Rehearsal {
  std::string name;
  double teacher_weight = 0;
  std::function<LinearLoss(const HeadRows& rows, double teacher_weight)> loss;
  std::function<at::Tensor(const at::Tensor& logits_NV)> teacher_term;  // of every row, in double
  double z_loss = 0;
  bool masked = false, packed = false, other_family = false;
};

std::vector<Rehearsal> rehearsals() {
  const auto labels = [](const HeadRows& rows, double teacher_weight) {
    return mixed_cross_entropy_step(rows, teacher_labels().to(rows.hidden_ND.device()), teacher_weight, kZLoss);
  };
  const auto labels_term = [](const at::Tensor& logits_NV) {
    return -logits_NV.log_softmax(1).gather(1, teacher_labels().unsqueeze(1)).squeeze(1);
  };
  const auto some_ids = [](const HeadRows& rows, double teacher_weight) {
    const TopK top = teacher_top_k();
    const at::Device device = rows.hidden_ND.device();
    return top_k_cross_entropy_step(
        rows,
        {.id_NK = top.id_NK.to(device), .logp_NK = top.logp_NK.to(device), .tail_logp_N = top.tail_logp_N.to(device)},
        teacher_weight, kTemperature, kZLoss);
  };
  const auto some_ids_term = [](const at::Tensor& logits_NV) {
    const TopK top = teacher_top_k();
    const at::Tensor log_p_NK = (logits_NV / kTemperature).log_softmax(1).gather(1, top.id_NK),
                     rest_N1 = (1 - log_p_NK.exp().sum(1, /*keepdim=*/true)).log();
    return divergence(at::cat({top.logp_NK, top.tail_logp_N.unsqueeze(1)}, 1).to(at::kDouble),
                      at::cat({log_p_NK, rest_N1}, 1));
  };
  const auto whole = [](const HeadRows& rows, double teacher_weight) {
    const auto there = [&](const at::Tensor& tensor) { return tensor.to(rows.hidden_ND.options()); };
    return distillation_step(rows, there(teacher_hidden()), there(teacher_head()),
                             {.loss = "kl", .teacher_weight = teacher_weight, .temperature = kTemperature});
  };
  const auto whole_term = [](const at::Tensor& logits_NV) {
    const at::Tensor teacher_NV = teacher_hidden().to(at::kDouble).mm(teacher_head().to(at::kDouble).t());
    return divergence((teacher_NV / kTemperature).log_softmax(1), (logits_NV / kTemperature).log_softmax(1));
  };
  return {{.name = "plain", .loss = labels, .teacher_term = labels_term, .z_loss = kZLoss},
          {.name = "labels", .teacher_weight = 0.9, .loss = labels, .teacher_term = labels_term, .z_loss = kZLoss},
          {.name = "top_k", .teacher_weight = 0.9, .loss = some_ids, .teacher_term = some_ids_term, .z_loss = kZLoss},
          {.name = "kl", .teacher_weight = 0.9, .loss = whole, .teacher_term = whole_term},
          {.name = "masks", .loss = labels, .teacher_term = labels_term, .z_loss = kZLoss, .masked = true},
          {.name = "documents", .loss = labels, .teacher_term = labels_term, .z_loss = kZLoss, .packed = true},
          {.name = "another family",
           .teacher_weight = 0.9,
           .loss = labels,
           .teacher_term = labels_term,
           .z_loss = kZLoss,
           .other_family = true}};
}

/// Leaves where and in which type they are asked for; none unless `rehearsal` has masks.
DecoderMasks masks_of(const Rehearsal& rehearsal, const at::TensorOptions& options) {
  if (!rehearsal.masked) return {};
  const auto leaf = [&](const at::Tensor& mask) { return mask.to(options, false, /*copy=*/true).requires_grad_(); };
  return {.multiplier_F = {leaf(at::linspace(0.2, 1, 128)), leaf(at::linspace(1, 0.3, 128))},
          .multiplier_G = {leaf(at::tensor({0.4f, 1.0f})), leaf(at::tensor({0.9f, 0.3f}))},
          .multiplier_D = leaf(at::linspace(0.5, 1, 64))};
}

/// The gradients of all masks, one behind the other, on the CPU.
at::Tensor gradient_of(const DecoderMasks& masks) {
  std::vector<at::Tensor> all;
  for (const auto member : {&DecoderMasks::multiplier_F, &DecoderMasks::multiplier_G})
    for (const at::Tensor& mask : masks.*member) all.push_back(mask.grad().cpu());
  if (masks.multiplier_D.defined()) all.push_back(masks.multiplier_D.grad().cpu());
  return all.empty() ? at::Tensor() : at::cat(all);
}

struct Step {
  double loss = 0;
  at::Tensor gradient, mask_gradient;  // on the CPU: laid out like the arena; all masks one behind the other
};

/// `gradient_of_entry` by name.
Step step_of(double loss, const DecoderMasks& masks, const ArenaLayout& layout,
             const std::function<at::Tensor(const std::string&)>& gradient_of_entry, at::ScalarType type) {
  Step step{.loss = loss, .gradient = at::zeros({layout.size}, type), .mask_gradient = gradient_of(masks)};
  for (const ArenaEntry& entry : layout.entries)
    step.gradient.narrow(0, entry.offset, entry.size).copy_(gradient_of_entry(entry.name).flatten());
  return step;
}

double num_live(const at::Tensor& label_N) { return label_N.ne(kIgnoredLabel).sum().item<double>(); }

Step run_step(const Rehearsal& rehearsal, const Placement& on) {
  const Model model = rehearsal_model(on, rehearsal.other_family);
  const DecoderInput input = rehearsal_input(rehearsal.packed);
  const DecoderMasks masks = masks_of(rehearsal, at::TensorOptions(on.device));
  const at::Tensor label_N = next_tokens(input), hidden_ND = decoder_hidden(model, placed(input, on.device), masks);
  CHECK((hidden_ND.scalar_type() == on.compute));
  const double live = num_live(label_N);
  const LinearLoss loss = rehearsal.loss({.hidden_ND = hidden_ND.detach(),
                                          .head_VD = output_head(model).detach(),
                                          .head_grad_VD = output_head_gradient(model),
                                          .true_label_N = label_N.to(on.device),
                                          .scale = 1 / live},
                                         rehearsal.teacher_weight);
  hidden_ND.backward(loss.hidden_grad_ND);
  const LinearLossSums sums = loss.read();
  return step_of(((1 - rehearsal.teacher_weight) * sums.ce + rehearsal.teacher_weight * sums.kd + sums.z) / live, masks,
                 model.arena->layout(), [&](const std::string& name) { return model.arena->gradient_of(name); },
                 at::kFloat);
}

/// The same by the plain decoder, in double.
Step plain_step(const Rehearsal& rehearsal) {
  const Model model = rehearsal_model({}, rehearsal.other_family);
  const testing::NamedWeights weights = testing::reference_weights(model);
  const DecoderInput input = rehearsal_input(rehearsal.packed);
  const DecoderMasks masks = masks_of(rehearsal, at::TensorOptions(at::kDouble));
  const at::Tensor label_N = next_tokens(input),
                   logits_NV = testing::reference_logits(model.config, weights, input, masks),
                   lse_N = logits_NV.logsumexp(1),
                   ce_N = lse_N - logits_NV.gather(1, label_N.clamp_min(0).unsqueeze(1)).squeeze(1);
  const double weight = rehearsal.teacher_weight;
  const at::Tensor row_N =
      (1 - weight) * ce_N + weight * rehearsal.teacher_term(logits_NV) + rehearsal.z_loss * lse_N.square();
  const at::Tensor loss = row_N.masked_select(label_N.ne(kIgnoredLabel)).sum() / num_live(label_N);
  loss.backward();
  return step_of(
      loss.item<double>(), masks, model.arena->layout(),
      [&](const std::string& name) { return weights.at(name).grad(); }, at::kDouble);
}

double relative(const at::Tensor& got, const at::Tensor& wanted) {
  return ((got - wanted).norm() / wanted.norm()).item<double>();
}

/// How far a step may be off the one in double: the loss, the gradient of everything and of each block, its norm.
struct Bounds {
  double loss, all, block, norm;
};
Bounds bounds_of(at::ScalarType compute) {
  return compute == at::kFloat ? Bounds{.loss = 1e-5, .all = 1e-5, .block = 5e-5, .norm = 1e-5}
                               : Bounds{.loss = 2e-3, .all = 0.04, .block = 0.08, .norm = 0.005};
}

void check_steps(const OpPlacement& on) {
  const Bounds most = bounds_of(on.compute);
  for (const Rehearsal& rehearsal : rehearsals()) {
    CAPTURE(rehearsal.name);
    const ArenaLayout layout = arena_layout(rehearsal_config(rehearsal.other_family));
    const Step plain = plain_step(rehearsal);
    executor::reset_counts();
    const Step step = run_step(rehearsal, on);
    CHECK((executor::counts().launches > 25) == on.is_emulated());
    INFO("loss ", plain.loss, " and ", step.loss);
    CHECK(std::abs(step.loss - plain.loss) <= most.loss);
    CHECK(relative(step.gradient, plain.gradient) <= most.all);
    CHECK(std::abs(step.gradient.norm().item<double>() / plain.gradient.norm().item<double>() - 1) <= most.norm);
    for (const ArenaBlock& block : layout.blocks) {
      CAPTURE(block.name);
      const auto of_block = [&](const Step& one) { return one.gradient.narrow(0, block.offset, block.size); };
      CHECK(of_block(plain).norm().item<double>() > 0);
      CHECK(relative(of_block(step), of_block(plain)) <= most.block);
    }
    if (rehearsal.masked) CHECK(relative(step.mask_gradient, plain.mask_gradient) <= most.block);
  }
}

void check_same(const Step& step, const Step& expected) {
  CHECK(step.loss == expected.loss);
  CHECK(at::equal(step.gradient, expected.gradient));
  if (expected.mask_gradient.defined()) CHECK(at::equal(step.mask_gradient, expected.mask_gradient));
}

}  // namespace

TEST_SUITE("parity") {
  TEST_CASE("rehearsal: a step stays within its roundings of the plain decoder's in double") {
    on_each(host_placements(), check_steps);
  }

  TEST_CASE("rehearsal: equal bits whoever runs first") {
    const Placement narrow{.compute = at::kBFloat16};
    for (const Rehearsal& rehearsal : rehearsals()) {
      CAPTURE(rehearsal.name);
      const Step first = run_step(rehearsal, narrow);
      for (const executor::Schedule& schedule :
           {executor::Schedule{executor::Order::eager_backwards}, executor::Schedule{executor::Order::random, 1}}) {
        executor::set_schedule(schedule);
        const Step again = run_step(rehearsal, narrow);
        executor::set_schedule({});
        check_same(again, first);
      }
    }
  }

  TEST_CASE("rehearsal: logits of a bfloat16 model are float32, and near the float32 model's") {
    const DecoderInput input = rehearsal_input(false);
    const at::NoGradGuard no_grad;
    const at::Tensor wide = decoder_logits(rehearsal_model({}), input),
                     narrow = decoder_logits(rehearsal_model({.compute = at::kBFloat16}), input);
    CHECK((narrow.scalar_type() == at::kFloat));
    CHECK(relative(narrow, wide) <= 0.02);
    CHECK_FALSE(at::equal(narrow, narrow.to(at::kBFloat16).to(at::kFloat)));
  }
}

TEST_SUITE("gpu") {
  TEST_CASE("rehearsal: a step stays within its roundings of the plain decoder's in double, and repeats: on a device") {
    on_each(device_placements(), [](const OpPlacement& on) {
      check_steps(on);
      for (const Rehearsal& rehearsal : rehearsals()) {
        CAPTURE(rehearsal.name);
        check_same(run_step(rehearsal, on), run_step(rehearsal, on));
      }
    });
  }
}
