// The loss's self-test passes on right targets and names what is wrong with others.
#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <algorithm>

#include "src/base/errors.h"
#include "src/model/parameters.h"
#include "student/targets.h"

using namespace coppice;

namespace {

Model random_model() {
  const ModelConfig config = preset("test", "t");
  Model model = make_model(config);
  initialise_parameters(config, *model.arena, 3);
  model.arena->enable_gradient();
  return model;
}

/// A text that a teacher can be right about: token = 7 + (position * step) mod 250, teacher right on three of four.
struct Example {
  Batch batch;
  at::Tensor teacher_BT;
};
Example predictable_example() {
  constexpr int64_t kRows = 4, kSeqLen = 100;
  const at::Tensor step = at::arange(1, kRows + 1).unsqueeze(1) * 3;
  const at::Tensor text = 7 + (at::arange(kSeqLen + 1).unsqueeze(0) * step).remainder(250);
  Batch batch{.token_BT = text.narrow(1, 0, kSeqLen).contiguous(),
              .position_BT = at::arange(kSeqLen).repeat({kRows, 1}),
              .document_BT = {},
              .true_label_BT = text.narrow(1, 1, kSeqLen).contiguous(),
              .spans = {},
              .num_live = 0};
  batch.true_label_BT.select(1, 40).fill_(kIgnoredLabel);
  batch.num_live = kRows * (kSeqLen - 1);
  at::Tensor teacher_BT = text.narrow(1, 1, kSeqLen).clone();
  teacher_BT = at::where(at::arange(kSeqLen).remainder(4).eq(0), at::full_like(teacher_BT, 3), teacher_BT);
  return {batch, teacher_BT};
}

std::string complaint(const Model& model, const Batch& batch, const Targets& targets) {
  try {
    self_test_loss(model, batch, targets);
  } catch (const InternalError& error) {
    return error.what();
  }
  return "";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("self_test_loss: right targets pass, and the agreement is that of the labels") {
    const Model model = random_model();
    const auto [batch, teacher_BT] = predictable_example();
    const at::Tensor before = model.arena->master().clone();
    for (const double weight : {0.0, 0.5, 0.9, 1.0}) {
      const double agreement = self_test_loss(model, batch, make_targets(batch, teacher_BT, {.teacher_weight = weight, .z_loss = 1e-6}));
      CHECK(agreement == doctest::Approx(75.0 / 99));  // columns 4, 8, ... are wrong, column 40 is ignored and one of them
    }
    CHECK(self_test_loss(model, batch, make_targets(batch, {}, {})) == -1);
    CHECK(model.arena->master().equal(before));
    CHECK(model.arena->gradient().abs().max().item<double>() == 0);
  }

  TEST_CASE("self_test_loss: a model of zeros and a batch without live labels pass") {
    const Model zeros = make_model(preset("test", "t"));
    auto [batch, teacher_BT] = predictable_example();
    CHECK(complaint(zeros, batch, make_targets(batch, teacher_BT, {})) == "");
    batch.true_label_BT.fill_(kIgnoredLabel);
    batch.num_live = 0;
    CHECK(complaint(random_model(), batch, make_targets(batch, teacher_BT, {})) == "");
  }

  TEST_CASE("self_test_loss: a model that is certain, and a text of one token, pass") {
    const auto [batch, teacher_BT] = predictable_example();
    const Model model = random_model();
    model.arena->parameter("norm.weight").detach().mul_(8);  // logits of tens: many rows are certain
    CHECK(complaint(model, batch, make_targets(batch, teacher_BT, {})) == "");
    Batch same = batch;
    same.token_BT = at::full_like(batch.token_BT, 9);
    same.true_label_BT = at::where(batch.true_label_BT.lt(0), batch.true_label_BT, same.token_BT);
    CHECK(complaint(random_model(), same, make_targets(same, same.token_BT, {})) == "");
  }

  TEST_CASE("self_test_loss: true labels moved by one are named") {
    const auto [batch, teacher_BT] = predictable_example();
    Targets targets = make_targets(batch, teacher_BT, {});
    targets.true_label_N = batch.true_label_BT.roll(1, 1).reshape({-1});
    CHECK(contains(complaint(random_model(), batch, targets), "not the next token"));
  }

  TEST_CASE("self_test_loss: teacher labels moved by one are named, either way") {
    const auto [batch, teacher_BT] = predictable_example();
    for (const int64_t shift : {-1, 1})
      CHECK(contains(complaint(random_model(), batch, make_targets(batch, teacher_BT.roll(shift, 1), {})), "they are shifted"));
  }

  TEST_CASE("self_test_loss: a wrong count of live labels is named") {
    auto [batch, teacher_BT] = predictable_example();
    batch.num_live += 1;
    CHECK(contains(complaint(random_model(), batch, make_targets(batch, teacher_BT, {})), "the batch says 397"));
  }
}
