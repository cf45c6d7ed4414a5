// The loss's self-test passes on right targets and names what is wrong with others.
#include "student/self_test.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <algorithm>
#include <functional>

#include "src/base/errors.h"
#include "src/model/parameters.h"
#include "src/tensors/draws.h"
#include "tests/tensors/whole_arena.h"

using namespace coppice;

namespace {

Model random_model(at::ScalarType compute = at::kFloat) {
  const ModelConfig config = preset("test", "t");
  Model model = make_model(config, {.compute = compute});
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

namespace {

/// The example's targets for every loss, from a teacher that is another model.
std::vector<Targets> all_targets(const Batch& batch, const at::Tensor& teacher_BT,
                                 at::ScalarType compute = at::kFloat) {
  Model teacher = make_model(preset("test", "t"), {.compute = compute});
  initialise_parameters(teacher.config, *teacher.arena, 9);
  const at::Tensor hidden_NE = decoder_hidden(
                       teacher, {.token_BT = batch.token_BT, .position_BT = batch.position_BT, .document_BT = {}}),
                   head_VE = output_head(teacher).detach().clone();
  TeacherSignal signal{.label_BT = teacher_BT, .top = {}, .hidden_NE = hidden_NE.detach(), .head_VE = head_VE};
  std::vector<Targets> all;
  for (const std::string loss : {"labels", "top_k", "decoupled_top_k", "sample", "hybrid", "kl", "reverse_kl", "jsd"}) {
    const at::Tensor number_NR = at::linspace(0.01, 0.99, hidden_NE.size(0) * 6, at::kDouble).view({-1, 6});
    signal.top = loss == "sample"   ? shares_of_draws(draw_ids(hidden_NE, head_VE, 2.0, number_NR))
                 : loss == "hybrid" ? shares_of_head_and_draws(top_k_and_draws(hidden_NE, head_VE, 6, 2.0, number_NR))
                                    : top_k(hidden_NE, head_VE, 6, loss == "decoupled_top_k" ? 1.0 : 2.0);
    all.push_back(distillation_targets(batch, signal,
                                       {.loss = loss,
                                        .teacher_weight = 0.9,
                                        .temperature = loss == "labels" ? 1.0 : 2.0,
                                        .beta = 0.3,
                                        .z_loss = 1e-6}));
  }
  return all;
}

/// A loss with one of the mistakes that train quietly.
using Mistake =
    std::function<LinearLoss(const at::Tensor&, const at::Tensor&, const at::Tensor&, Targets, double, bool)>;
struct Bug {
  const char* name;
  Mistake loss;
};
const std::vector<Bug>& bugs() {
  static const std::vector<Bug> kBugs = {
      {"shift: the teacher's rows moved by one",
       [](const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& head_grad, Targets targets, double scale,
          bool argmax) {
         for (at::Tensor* tensor : {&targets.teacher_label_N, &targets.top.id_NK, &targets.top.logp_NK,
                                    &targets.top.tail_logp_N, &targets.teacher_hidden_NE})
           if (tensor->defined()) *tensor = tensor->roll(1, 0);
         return head_loss(hidden, head, head_grad, targets, scale, argmax);
       }},
      {"mask: ignored rows count",
       [](const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& head_grad, Targets targets, double scale,
          bool argmax) {
         targets.true_label_N = targets.true_label_N.clamp_min(0);
         return head_loss(hidden, head, head_grad, targets, scale, argmax);
       }},
      {"mask: the count is right, the gradient of ignored rows is not zero",
       [](const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& head_grad, Targets targets, double scale,
          bool argmax) {
         LinearLoss sums = head_loss(hidden, head, head_grad, targets, scale, argmax);
         if (sums.hidden_grad_ND.defined())
           sums.hidden_grad_ND = sums.hidden_grad_ND + targets.true_label_N.lt(0).unsqueeze(1) * 1e-6;
         return sums;
       }},
      {"weight: the shares are exchanged",
       [](const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& head_grad, Targets targets, double scale,
          bool argmax) {
         if (targets.has_teacher()) targets.teacher_weight = 1 - targets.teacher_weight;
         return head_loss(hidden, head, head_grad, targets, scale, argmax);
       }},
      {"temperature: its square is forgotten",
       [](const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& head_grad, Targets targets, double scale,
          bool argmax) {
         LinearLoss sums = head_loss(hidden, head, head_grad, targets, scale, argmax);
         sums.sum_S[kSumKd] /= targets.temperature * targets.temperature;
         return sums;
       }},
      {"temperature: the student's logits are not divided",
       [](const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& head_grad, Targets targets, double scale,
          bool argmax) {
         if (targets.teacher_hidden_NE.defined())
           targets.teacher_hidden_NE = targets.teacher_hidden_NE / targets.temperature;
         targets.temperature = 1;
         return head_loss(hidden, head, head_grad, targets, scale, argmax);
       }},
      {"draws: the most drawn id stands for all of them",
       [](const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& head_grad, Targets targets, double scale,
          bool argmax) {
         if (targets.loss == "sample") {
           targets.top.id_NK = targets.top.id_NK.narrow(1, 0, 1).contiguous();
           targets.top.logp_NK = at::zeros_like(targets.top.id_NK, at::kFloat);
         }
         return head_loss(hidden, head, head_grad, targets, scale, argmax);
       }},
      {"draws: what they weigh is divided by its sum",
       [](const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& head_grad, Targets targets, double scale,
          bool argmax) {
         if (targets.loss == "sample") {
           const at::Tensor given = targets.top.id_NK.ge(0), logp_NK = targets.top.logp_NK;
           targets.top.logp_NK = logp_NK - at::where(given, logp_NK, -1e30).logsumexp(1, /*keepdim=*/true);
         }
         return head_loss(hidden, head, head_grad, targets, scale, argmax);
       }},
      {"hybrid: what is drawn of the rest is left out",
       [](const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& head_grad, Targets targets, double scale,
          bool argmax) {
         if (targets.loss == "hybrid") {
           const int64_t head_ids = targets.top.id_NK.size(1) > 100 ? 4 : 6;
           targets.top.id_NK = targets.top.id_NK.narrow(1, 0, head_ids).contiguous();
           targets.top.logp_NK = targets.top.logp_NK.narrow(1, 0, head_ids).contiguous();
         }
         return head_loss(hidden, head, head_grad, targets, scale, argmax);
       }},
      {"decoupled: its temperature is that of the whole",
       [](const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& head_grad, Targets targets, double scale,
          bool argmax) {
         if (targets.loss == "decoupled_top_k") targets.loss = "top_k";
         return head_loss(hidden, head, head_grad, targets, scale, argmax);
       }},
      {"chunks: every chunk of logits meets the first chunk's labels",
       [](const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& head_grad, Targets targets, double scale,
          bool argmax) {
         const int64_t rows = hidden.size(0), chunk = targets.chunk_rows == 0 ? rows : targets.chunk_rows;
         for (at::Tensor* tensor : {&targets.true_label_N, &targets.teacher_label_N, &targets.top.id_NK,
                                    &targets.top.logp_NK, &targets.top.tail_logp_N})
           if (tensor->defined()) *tensor = tensor->index_select(0, at::arange(rows).remainder(chunk));
         return head_loss(hidden, head, head_grad, targets, scale, argmax);
       }},
      {"chunks: the last one is forgotten when it is short",
       [](const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& head_grad, Targets targets, double scale,
          bool argmax) {
         const int64_t rows = hidden.size(0),
                       whole = targets.chunk_rows == 0 ? rows : rows / targets.chunk_rows * targets.chunk_rows;
         targets.true_label_N = at::where(at::arange(rows).lt(whole), targets.true_label_N,
                                          at::full_like(targets.true_label_N, kIgnoredLabel));
         LinearLoss sums = head_loss(hidden, head, head_grad, targets, scale, argmax);
         sums.sum_S[kSumLive] += rows - whole;
         return sums;
       }},
      {"mean of means: every part is divided by its own rows",
       [](const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& head_grad, Targets targets, double scale,
          bool argmax) {
         return head_loss(hidden, head, head_grad, targets,
                          scale * 16.0 / std::max<double>(1.0, targets.true_label_N.ge(0).sum().item<double>()),
                          argmax);
       }},
  };
  return kBugs;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("self_test_loss: every loss passes, and every seeded bug is caught whatever loss the stage uses") {
    const Model model = random_model();
    const auto [batch, teacher_BT] = predictable_example();
    for (const Targets& targets : all_targets(batch, teacher_BT)) {
      CAPTURE(targets.loss);
      CHECK(complaint(model, batch, targets) == "");
      for (const Bug& bug : bugs()) {
        CAPTURE(bug.name);
        std::string caught;
        try {
          self_test_loss(model, batch, targets, bug.loss);
        } catch (const InternalError& error) {
          caught = error.what();
        }
        INFO(caught);
        CHECK(caught.find("loss self-test") != std::string::npos);
      }
    }
  }

  TEST_CASE("self_test_loss: in bfloat16 every loss passes within what it rounds, and what is wrong is still caught") {
    const Model model = random_model(at::kBFloat16);
    const auto [batch, teacher_BT] = predictable_example();
    for (const Targets& targets : all_targets(batch, teacher_BT, at::kBFloat16)) {
      if (targets.loss != "labels" && targets.loss != "kl") continue;  // every loss is tried whatever the stage's is
      CAPTURE(targets.loss);
      CHECK(complaint(model, batch, targets) == "");
      for (const size_t bug : {0, 3}) {  // of those that the first trial finds: another row's teacher, other shares
        CAPTURE(bugs()[bug].name);
        CHECK_THROWS_WITH_AS(self_test_loss(model, batch, targets, bugs()[bug].loss),
                             doctest::Contains("loss self-test"), InternalError);
      }
    }
  }

  TEST_CASE("self_test_loss: the losses of several teachers together, and what is wrong with one of them") {
    const Model model = random_model();
    const auto [batch, teacher_BT] = predictable_example();
    TestBatch test{.batch = batch, .targets = {}};
    for (const char* loss : {"labels", "kl"}) {
      CAPTURE(loss);
      test.targets.clear();
      for (const Targets& targets : all_targets(batch, teacher_BT))
        if (targets.loss == loss) test.targets = {targets, targets};
      test.targets[0].share = 0.25;
      test.targets[1].share = 0.75;
      if (test.targets[1].teacher_label_N.defined()) test.targets[1].teacher_label_N = test.targets[1].true_label_N;
      const SelfTestReport report = self_test_loss(model, std::span(&test, 1));
      REQUIRE(report.agreement.size() == 2);
      CHECK(report.compared >= kEnoughLabels);
      if (std::string(loss) == "labels") CHECK(report.agreement[0] == doctest::Approx(75.0 / 99));
      if (std::string(loss) == "labels") CHECK(report.agreement[1] == 1);
      // right alone, wrong together: the second call on the same rows forgets what the first has added
      int calls = 0;
      const HeadLoss forgetful = [&](const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& head_grad,
                                     const Targets& targets, double scale, bool argmax) {
        if (targets.share == 0.75 && targets.chunk_rows == 0 && head_grad.defined() && ++calls > 0 &&
            hidden.size(0) == 24)
          head_grad.zero_();
        return head_loss(hidden, head, head_grad, targets, scale, argmax);
      };
      std::string caught;
      try {
        self_test_loss(model, std::span(&test, 1), forgetful);
      } catch (const InternalError& error) {
        caught = error.what();
      }
      CHECK(caught.find("2 teachers together") != std::string::npos);
      CHECK(calls > 0);
    }
  }

  TEST_CASE("self_test_loss: small micro-batches are judged together; alone they are too few, and the text says so") {
    const Model model = random_model();
    const auto [batch, teacher_BT] = predictable_example();
    const auto row_of = [](const at::Tensor& value, int64_t row) {
      return value.defined() ? value.narrow(0, row, 1).contiguous() : value;
    };
    for (const int64_t shift : {0, 1}) {
      std::vector<TestBatch> tests;
      for (int64_t row = 0; row < 4; ++row) {
        Batch one{.token_BT = row_of(batch.token_BT, row),
                  .position_BT = row_of(batch.position_BT, row),
                  .document_BT = {},
                  .true_label_BT = row_of(batch.true_label_BT, row),
                  .spans = {},
                  .num_live = 99};
        const Targets targets = make_targets(one, row_of(teacher_BT, row).roll(shift, 1), {});
        tests.push_back({.batch = one, .targets = {targets}});
      }
      const SelfTestReport alone = self_test_loss(model, std::span(tests).first(1));
      CHECK(alone.compared == 99);
      CHECK(contains(self_test_text(alone), "too few to judge"));
      if (shift == 0) {
        const SelfTestReport together = self_test_loss(model, tests);
        CHECK(together.compared == 4 * 99);
        CHECK(together.agreement[0] == doctest::Approx(75.0 / 99));
        CHECK(contains(self_test_text(together), "agree on 75.8% of 396 tokens"));
      } else {
        CHECK_THROWS_WITH_AS(self_test_loss(model, tests), doctest::Contains("they are shifted"), InternalError);
      }
    }
  }

  TEST_CASE("self_test_loss: a mean of each micro-batch, right in every trial and wrong in the step itself, is named") {
    const Model model = random_model();
    const auto [batch, teacher_BT] = predictable_example();
    const HeadLoss mean = [&](const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& head_grad,
                              const Targets& targets, double scale, bool argmax) {
      const bool in_step =
          head_grad.defined() && head_grad.const_data_ptr() == output_head_gradient(model).const_data_ptr();
      return head_loss(hidden, head, head_grad, targets,
                       in_step ? 1 / targets.true_label_N.ge(0).sum().item<double>() : scale, argmax);
    };
    const DecoderMasks masks{{at::linspace(0.1, 1, 96), at::linspace(1, 0.1, 96)}};
    for (const Targets& targets : all_targets(batch, teacher_BT)) {
      CAPTURE(targets.loss);
      for (const DecoderMasks& some : {DecoderMasks{}, masks}) {
        const TestBatch test{.batch = batch, .targets = {targets}};
        CHECK(self_test_loss(model, std::span(&test, 1), head_loss, some).split_difference <= 1e-5);
        CHECK_THROWS_WITH_AS(self_test_loss(model, std::span(&test, 1), mean, some),
                             doctest::Contains("the gradient depends on how a batch is split: in 2 micro-batches"),
                             InternalError);
        model.arena->zero_gradient();
      }
    }
  }

  TEST_CASE("self_test_loss: under a document mask micro-batches are cut at the ends of documents, too") {
    const Model model = random_model();
    auto [batch, teacher_BT] = predictable_example();  // 4 rows of 100; documents of 10, 13 and the rest of a row
    const at::Tensor column = at::arange(100), document = column.ge(10).to(at::kInt) + column.ge(23).to(at::kInt);
    const at::Tensor begin = at::where(column.ge(23), 23, at::where(column.ge(10), 10, 0));
    batch.document_BT = document.repeat({4, 1});
    batch.position_BT = (column - begin).repeat({4, 1});
    batch.largest_position = 76;
    for (int32_t row = 0; row < 4; ++row)
      for (const int32_t end : {10, 23, 100}) batch.segment_end.push_back(100 * row + end);
    CHECK(complaint(model, batch, make_targets(batch, teacher_BT, {})) == "");
    Batch leaking = batch;
    leaking.document_BT = at::zeros_like(batch.document_BT);  // attention across documents
    CHECK(contains(complaint(model, leaking, make_targets(leaking, teacher_BT, {})),
                   "depends on how a batch is split: in 4 micro-batches"));
  }

  TEST_CASE("self_test_loss: a plain stage tries the teacher's losses as well") {
    const auto [batch, teacher_BT] = predictable_example();
    const Model model = random_model();
    const Targets plain = make_targets(batch, {}, {});
    for (const Bug& bug : bugs()) {
      CAPTURE(bug.name);
      CHECK_THROWS_AS(self_test_loss(model, batch, plain, bug.loss), InternalError);
    }
  }

  TEST_CASE("self_test_loss: rows of fewer ids than others, as labels from elsewhere have, pass") {
    const Model model = random_model();
    const auto [batch, teacher_BT] = predictable_example();
    for (Targets targets : all_targets(batch, teacher_BT)) {
      if (!targets.top.id_NK.defined()) continue;
      CAPTURE(targets.loss);
      targets.top.id_NK.select(0, 3).narrow(0, 2, targets.top.id_NK.size(1) - 2).fill_(kIgnoredLabel);
      targets.top.logp_NK.select(0, 3).narrow(0, 2, targets.top.logp_NK.size(1) - 2).fill_(-INFINITY);
      targets.top.id_NK[5].fill_(kIgnoredLabel);
      CHECK(complaint(model, batch, targets) == "");
    }
  }

  TEST_CASE("self_test_loss: right targets pass, and the agreement is that of the labels") {
    const Model model = random_model();
    const auto [batch, teacher_BT] = predictable_example();
    const at::Tensor before = whole_master(*model.arena).clone(),
                     generator = at::detail::getDefaultCPUGenerator().get_state();
    for (const double weight : {0.0, 0.5, 0.9, 1.0}) {
      const double agreement =
          self_test_loss(model, batch, make_targets(batch, teacher_BT, {.teacher_weight = weight, .z_loss = 1e-6}));
      CHECK(agreement ==
            doctest::Approx(75.0 / 99));  // columns 4, 8, ... are wrong, column 40 is ignored and one of them
    }
    CHECK(self_test_loss(model, batch, make_targets(batch, {}, {})) == -1);
    CHECK(whole_master(*model.arena).equal(before));
    CHECK(whole_gradient(*model.arena).abs().max().item<double>() == 0);
    CHECK(at::detail::getDefaultCPUGenerator().get_state().equal(generator));
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
      CHECK(contains(complaint(random_model(), batch, make_targets(batch, teacher_BT.roll(shift, 1), {})),
                     "they are shifted"));
  }

  TEST_CASE("self_test_loss: a wrong count of live labels is named") {
    auto [batch, teacher_BT] = predictable_example();
    batch.num_live += 1;
    CHECK(contains(complaint(random_model(), batch, make_targets(batch, teacher_BT, {})), "the batch says 397"));
  }
}
