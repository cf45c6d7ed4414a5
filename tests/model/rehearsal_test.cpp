// The rehearsal of a step on a device: a decoder whose matrices are bfloat16 on the CPU, so that the executor runs its
// kernels, beside the float32 decoder with equal weights. What may lie between the two was measured on a model of the
// roundings alone; a slip in a backward (a norm without its mean term, a rotation the wrong way round, SiLU without its
// own slope) moves the gradient by 0.15 and more.
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
#include "tests/tensors/compare.h"

using namespace coppice;

namespace {

constexpr int64_t kBatch = 2, kSeqLen = 64, kTokens = kBatch * kSeqLen, kTeacherWidth = 48;

ModelConfig rehearsal_config() {
  ModelConfig config = preset("test", "t");
  config.hidden_size = 64, config.vocab_size = 256, config.intermediate_size = {128, 128};
  config.num_attention_heads = 4, config.num_key_value_heads = 2, config.head_dim = 16;
  return config;
}

Model rehearsal_model(at::ScalarType compute) {
  const ModelConfig config = rehearsal_config();
  Model model{.config = config,
              .arena = std::make_unique<ParameterArena>(arena_layout(config), Placement{.compute = compute})};
  {
    const MasterEditor master = model.arena->edit_master();
    uint64_t seed = 100;
    for (const ArenaEntry& entry : model.arena->layout().entries) {
      const at::Tensor noise = randn(entry.shape, seed++);
      master[entry.name].copy_(entry.is_vector() ? 1 + 0.1 * noise
                                                 : noise / std::sqrt(static_cast<double>(entry.shape[1])));
    }
  }
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

struct Rehearsal {
  std::string name;
  double teacher_weight = 0;
  std::function<LinearLoss(const HeadRows& rows, double teacher_weight)> loss;
  bool masked = false, packed = false;
};

std::vector<Rehearsal> rehearsals() {
  const auto labels = [](const HeadRows& rows, double teacher_weight) {
    const at::Tensor teacher_label_N = (randn({kTokens}, 2).abs() * 1e4).to(at::kLong) % 256;
    return mixed_cross_entropy_step(rows, teacher_label_N, teacher_weight, 1e-4);
  };
  const auto divergence = [](const HeadRows& rows, double teacher_weight) {
    const at::Tensor hidden_NE = randn({kTokens, kTeacherWidth}, 3),
                     head_VE = randn({256, kTeacherWidth}, 4) / std::sqrt(static_cast<double>(kTeacherWidth));
    const at::ScalarType type = rows.hidden_ND.scalar_type();
    return distillation_step(rows, hidden_NE.to(type), head_VE.to(type),
                             {.loss = "kl", .teacher_weight = teacher_weight, .temperature = 2});
  };
  return {{.name = "plain", .teacher_weight = 0, .loss = labels},
          {.name = "labels", .teacher_weight = 0.9, .loss = labels},
          {.name = "kl", .teacher_weight = 0.9, .loss = divergence},
          {.name = "masks", .teacher_weight = 0, .loss = labels, .masked = true},
          {.name = "documents", .teacher_weight = 0, .loss = labels, .packed = true}};
}

struct Step {
  double loss = 0;
  at::Tensor gradient, mask_gradient;  // laid out like the arena; all masks one behind the other
};

Step run_step(const Rehearsal& rehearsal, at::ScalarType compute) {
  const Model model = rehearsal_model(compute);
  const ArenaLayout& layout = model.arena->layout();
  const DecoderInput input = rehearsal_input(rehearsal.packed);
  DecoderMasks masks;
  if (rehearsal.masked)
    masks = {.multiplier_F = {at::linspace(0.2, 1, 128).requires_grad_(), at::linspace(1, 0.3, 128).requires_grad_()},
             .multiplier_G = {at::tensor({0.4f, 1.0f}).requires_grad_(), at::tensor({0.9f, 0.3f}).requires_grad_()},
             .multiplier_D = at::linspace(0.5, 1, 64).requires_grad_()};
  const at::Tensor label_N = next_tokens(input), hidden_ND = decoder_hidden(model, input, masks);
  CHECK((hidden_ND.scalar_type() == compute));
  const double live = static_cast<double>(label_N.ne(kIgnoredLabel).sum().item<int64_t>());
  const LinearLoss loss = rehearsal.loss({.hidden_ND = hidden_ND.detach(),
                                          .head_VD = output_head(model).detach(),
                                          .head_grad_VD = output_head_gradient(model),
                                          .true_label_N = label_N,
                                          .scale = 1 / live},
                                         rehearsal.teacher_weight);
  hidden_ND.backward(loss.hidden_grad_ND);
  const LinearLossSums sums = loss.read();
  Step step{.loss = ((1 - rehearsal.teacher_weight) * sums.ce + rehearsal.teacher_weight * sums.kd + sums.z) / live,
            .gradient = at::zeros({layout.size})};
  for (const ArenaEntry& entry : layout.entries)
    step.gradient.narrow(0, entry.offset, entry.size).copy_(model.arena->gradient_of(entry.name).flatten());
  std::vector<at::Tensor> of_masks;
  for (const auto member : {&DecoderMasks::multiplier_F, &DecoderMasks::multiplier_G})
    for (const at::Tensor& mask : masks.*member) of_masks.push_back(mask.grad());
  if (masks.multiplier_D.defined()) of_masks.push_back(masks.multiplier_D.grad());
  if (!of_masks.empty()) step.mask_gradient = at::cat(of_masks);
  return step;
}

double relative(const at::Tensor& got, const at::Tensor& wanted) {
  return ((got - wanted).norm() / wanted.norm()).item<double>();
}

}  // namespace

TEST_SUITE("parity") {
  TEST_CASE("rehearsal: a step in bfloat16 stays within its roundings of the float32 step") {
    const ArenaLayout layout = arena_layout(rehearsal_config());
    for (const Rehearsal& rehearsal : rehearsals()) {
      CAPTURE(rehearsal.name);
      executor::reset_counts();
      const Step wide = run_step(rehearsal, at::kFloat);
      CHECK(executor::counts().launches == 0);
      const Step narrow = run_step(rehearsal, at::kBFloat16);
      CHECK(executor::counts().launches > 25);
      INFO("loss ", wide.loss, " and ", narrow.loss);
      CHECK(std::abs(narrow.loss - wide.loss) <= 2e-3);
      CHECK(relative(narrow.gradient, wide.gradient) <= 0.04);
      CHECK(std::abs((narrow.gradient.norm() / wide.gradient.norm()).item<double>() - 1) <= 0.005);
      for (const ArenaBlock& block : layout.blocks) {
        CAPTURE(block.name);
        const auto of_block = [&](const Step& step) { return step.gradient.narrow(0, block.offset, block.size); };
        CHECK(of_block(wide).norm().item<double>() > 0);
        CHECK(relative(of_block(narrow), of_block(wide)) <= 0.08);
      }
      if (rehearsal.masked) CHECK(relative(narrow.mask_gradient, wide.mask_gradient) <= 0.08);
    }
  }

  TEST_CASE("rehearsal: equal bits whoever runs first") {
    for (const Rehearsal& rehearsal : rehearsals()) {
      CAPTURE(rehearsal.name);
      const Step first = run_step(rehearsal, at::kBFloat16);
      for (const executor::Schedule& schedule :
           {executor::Schedule{executor::Order::eager_backwards}, executor::Schedule{executor::Order::random, 1}}) {
        executor::set_schedule(schedule);
        const Step again = run_step(rehearsal, at::kBFloat16);
        executor::set_schedule({});
        CHECK(again.loss == first.loss);
        CHECK(at::equal(again.gradient, first.gradient));
        if (rehearsal.masked) CHECK(at::equal(again.mask_gradient, first.mask_gradient));
      }
    }
  }

  TEST_CASE("rehearsal: logits of a bfloat16 model are float32, and near the float32 model's") {
    const DecoderInput input = rehearsal_input(false);
    const at::NoGradGuard no_grad;
    const at::Tensor wide = decoder_logits(rehearsal_model(at::kFloat), input),
                     narrow = decoder_logits(rehearsal_model(at::kBFloat16), input);
    CHECK((narrow.scalar_type() == at::kFloat));
    CHECK(relative(narrow, wide) <= 0.02);
    CHECK_FALSE(at::equal(narrow, narrow.to(at::kBFloat16).to(at::kFloat)));
  }
}
