// Each property that must hold is tried once. A few rows are enough.
#include "student/self_test.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "src/base/errors.h"
#include "src/base/log.h"
#include "src/tensors/ops.h"
#include "student/draws_check.h"
#include "student/plain_loss.h"
#include "student/split_check.h"

namespace coppice {
namespace {

// All of it costs in rows, ids and logits of live teachers, none of it in the size of the batch: at D = 768 and V =
// 49,152 it takes a fraction of a second.
constexpr int64_t kRows = 24;        // rows whose loss is worked out twice
constexpr int64_t kChunkRows = 7;    // of them in a chunk of logits: four chunks, the last one short
constexpr int64_t kVocab = 1024;     // of a larger vocabulary the first ids: the arithmetic is the same
constexpr int64_t kLiveRows = 256;   // tokens of which a live teacher's first choice is worked out from its logits
constexpr double kTolerance = 1e-4;  // float32 chunks against double
constexpr double kNarrowTolerance = 5e-2;  // bfloat16 ones, whose logits have eight bits: of 25, up to 0.05 is lost

[[noreturn]] void broken(const std::string& property) { throw InternalError("loss self-test: " + property); }

void check_close(double got, double expected, double unit, const std::string& what, double tolerance = kTolerance) {
  if (!(std::abs(got - expected) <= tolerance * std::max(std::abs(expected), unit)))
    broken(fmt::format("{}: got {}, expected {}", what, got, expected));
}

/// `unit` is what the gradient would be were nothing cancelled: a row that is predicted with certainty leaves only
/// rounding.
void check_close(const at::Tensor& got, const at::Tensor& expected, double unit, const std::string& what,
                 double tolerance) {
  const double error = (got.to(at::kDouble) - expected.to(at::kDouble)).abs().max().item<double>();
  if (!(error <= tolerance * unit)) broken(fmt::format("{}: off by {} of {}", what, error, unit));
}

/// Whether one row is not another.
bool is_varied(const at::Tensor& hidden_ND) {
  return hidden_ND.size(0) > 1 && hidden_ND.to(at::kFloat).std(0).max().item<double>() > 1e-3;
}

/// A gradient of the head to add to, float32 whatever the head is.
at::Tensor zero_gradient(const at::Tensor& head_VD) {
  return at::zeros(head_VD.sizes(), head_VD.options().dtype(at::kFloat));
}

/// How often the teacher's choice is the true label when it is moved by `shift` columns, over the rows of several
/// batches.
struct Agreement {
  double equal = 0, live = 0;
  double share() const { return equal / std::max(1.0, live); }
  void add(const at::Tensor& teacher_BT, const at::Tensor& true_BT, int64_t shift) {
    const int64_t kept = true_BT.size(1) - std::abs(shift);
    if (kept <= 0) return;
    const at::Tensor true_part = true_BT.narrow(1, std::max<int64_t>(shift, 0), kept),
                     teacher_part = teacher_BT.narrow(1, std::max<int64_t>(-shift, 0), kept);
    const at::Tensor live_part = true_part.ge(0).logical_and(teacher_part.ge(0));
    equal += teacher_part.eq(true_part).logical_and(live_part).sum().item<double>();
    live += live_part.sum().item<double>();
  }
};

/// True labels are the tokens one column on.
void check_true_labels(const Batch& batch, const Targets& targets) {
  const int64_t seq_len = batch.token_BT.size(1);
  const at::Tensor true_BT = targets.true_label_N.view_as(batch.token_BT);
  if (true_BT.ge(0).sum().item<int64_t>() != batch.num_live)
    broken(fmt::format("{} live labels, the batch says {}", true_BT.ge(0).sum().item<int64_t>(), batch.num_live));
  const at::Tensor label = true_BT.narrow(1, 0, seq_len - 1), next = batch.token_BT.narrow(1, 1, seq_len - 1);
  if (!label.eq(next).logical_or(label.lt(0)).all().item<bool>())
    broken("a true label is not the next token of the text");
}

/// The teacher's first choice for every token of the batch, of one that is read live for the first `live_tokens` at
/// most; undefined without a teacher.
at::Tensor first_choice(const Batch& batch, const Targets& targets, int64_t live_tokens) {
  at::Tensor label_N = targets.teacher_label_N;
  if (targets.top.id_NK.defined()) label_N = targets.top.id_NK.select(1, 0);
  if (targets.teacher_hidden_NE.defined()) {
    const int64_t known = std::clamp<int64_t>(live_tokens, 0, batch.token_BT.numel());
    label_N = at::full({batch.token_BT.numel()}, kIgnoredLabel, batch.token_BT.options());
    if (known > 0)
      label_N.narrow(0, 0, known).copy_(top_1(targets.teacher_hidden_NE.narrow(0, 0, known), targets.teacher_head_VE));
  }
  return label_N.defined() ? label_N.reshape(batch.token_BT.sizes()) : label_N;
}

/// Teacher labels fit their own column better than its neighbours. Returns how well.
Agreement check_alignment(std::span<const TestBatch> batches, size_t teacher) {
  Agreement at_shift[3];
  int64_t live_tokens = kLiveRows;
  for (const TestBatch& test : batches) {
    const at::Tensor teacher_BT = first_choice(test.batch, test.targets[teacher], live_tokens);
    if (!teacher_BT.defined()) return {};
    live_tokens -= test.batch.token_BT.numel();
    for (const int64_t shift : {-1, 0, 1})
      at_shift[shift + 1].add(teacher_BT, test.targets[teacher].true_label_N.view_as(test.batch.token_BT), shift);
  }
  const Agreement& here = at_shift[1];
  if (batches.front().labels_in_place || here.live < static_cast<double>(kEnoughLabels)) return here;
  const double noise = 3.0 / std::sqrt(here.live);
  for (const int64_t shift : {-1, 1})
    if (const double there = at_shift[shift + 1].share(); there > 1.5 * here.share() + noise)
      broken(
          fmt::format("teacher labels fit the text better when moved by {} ({:.3f} against {:.3f}): they are shifted",
                      -shift, there, here.share()));
  return here;
}

/// Rows [first, first + count).
Targets rows_of(const Targets& targets, int64_t first, int64_t count) {
  Targets part = targets;
  for (at::Tensor* tensor : {&part.true_label_N, &part.teacher_label_N, &part.top.id_NK, &part.top.logp_NK,
                             &part.top.tail_logp_N, &part.teacher_hidden_NE})
    if (tensor->defined()) *tensor = tensor->narrow(0, first, count).contiguous();
  return part;
}

/// The first ids of a larger vocabulary: labels beyond it wrap, stored ids beyond it are left out; without its first
/// one a row has no teacher.
void cut_vocabulary(Targets& targets, int64_t vocab) {
  const auto wrap = [&](at::Tensor& label_N) {
    if (label_N.defined()) label_N = at::where(label_N.lt(0), label_N, label_N.remainder(vocab));
  };
  wrap(targets.true_label_N);
  wrap(targets.teacher_label_N);
  if (targets.top.id_NK.defined()) {
    at::Tensor id = targets.top.id_NK.clone(), first = id.select(1, 0);
    first.copy_(at::where(first.lt(vocab), first, at::full_like(first, kIgnoredLabel)));
    targets.top.id_NK = at::where(id.lt(vocab), id, at::full_like(id, kIgnoredLabel));
  }
  if (targets.teacher_head_VE.defined()) targets.teacher_head_VE = targets.teacher_head_VE.narrow(0, 0, vocab);
}

/// A student that is its own teacher, in the form a loss asks for.
Targets own_targets(const Targets& like, const at::Tensor& hidden_ND, const at::Tensor& head_VD) {
  Targets own{.true_label_N = like.true_label_N,
              .teacher_weight = 1,
              .z_loss = 0,
              .loss = like.loss,
              .temperature = like.temperature,
              .beta = like.beta};
  if (like.loss == "labels") own.teacher_label_N = top_1(hidden_ND, head_VD);
  if (like.loss == "top_k" || like.loss == "decoupled_top_k")
    own.top = top_k(hidden_ND, head_VD, std::min<int64_t>(8, head_VD.size(0)),
                    label_temperature({.loss = like.loss, .temperature = like.temperature}));
  if (reads_draws(like.loss))  // weights, where the loss knows them, do not add up to 1
    own.top = many_draws(like.loss, hidden_ND, head_VD, like.temperature, /*proposal_temperature=*/1.5);
  if (like.loss == "kl" || like.loss == "reverse_kl" || like.loss == "jsd") {
    own.teacher_hidden_NE = hidden_ND;
    own.teacher_head_VE = head_VD;
  }
  return own;
}

/// The rows on which a loss is tried.
struct Trial {
  const HeadLoss& loss;
  at::Tensor hidden_ND, head_VD;
  double scale = 0.5;

  int64_t num_rows() const { return hidden_ND.size(0); }
  /// As the function above, within what the type of the hidden states rounds.
  template <class Value>
  void check_close(const Value& got, const Value& expected, double unit, const std::string& what) const {
    coppice::check_close(got, expected, unit, what,
                         hidden_ND.scalar_type() == at::kBFloat16 ? kNarrowTolerance : kTolerance);
  }

  /// Sums and gradients against the formula in double.
  void check_formula(const Targets& targets, const std::string& what) const {
    const at::Tensor head_grad_VD = zero_gradient(head_VD);
    Targets chunked = targets;
    chunked.chunk_rows = kChunkRows;
    const LinearLoss result = loss(hidden_ND, head_VD, head_grad_VD, chunked, scale, /*argmax=*/true);
    const LinearLossSums sums = result.read();
    const PlainLoss plain = plain_loss(hidden_ND, head_VD, targets, scale);
    const auto live = static_cast<double>(targets.true_label_N.ge(0).sum().item<int64_t>());
    const double tau = std::max(1.0, targets.temperature);
    if (static_cast<double>(sums.num_live) != live)
      broken(fmt::format("{}: {} live rows, expected {}", what, sums.num_live, live));
    check_close(sums.ce, plain.ce, live, what + ": chunked cross-entropy against the plain one");
    if (targets.teacher_weight > 0)
      check_close(sums.kd, plain.kd, live * tau * tau, what + ": chunked teacher term against the plain one");
    check_close(sums.z, plain.z, targets.z_loss * live, what + ": chunked z-loss against the plain one");
    check_close(result.hidden_grad_ND, plain.hidden_grad_ND, scale * tau * head_VD.abs().max().item<double>(),
                what + ": gradient of the hidden states");
    check_close(head_grad_VD, plain.head_grad_VD, scale * tau * hidden_ND.abs().max().item<double>(),
                what + ": gradient of the head");
    const at::Tensor ignored = targets.true_label_N.lt(0);
    if (ignored.any().item<bool>() && result.hidden_grad_ND.index({ignored}).abs().max().item<double>() != 0)
      broken(what + ": an ignored row has a gradient");

    // Ragged parts of a batch, each in one chunk, add up to it: nothing is averaged before it is whole.
    const int64_t cut = num_rows() / 3;
    if (cut == 0) return;
    const at::Tensor parts_grad_VD = zero_gradient(head_VD);
    LinearLossSums parts[2];
    for (const int part : {0, 1}) {
      const int64_t first = part == 0 ? 0 : cut, count = part == 0 ? cut : num_rows() - cut;
      parts[part] = loss(hidden_ND.narrow(0, first, count), head_VD, parts_grad_VD, rows_of(targets, first, count),
                         scale, /*argmax=*/false)
                        .read();
    }
    check_close(parts[0].ce + parts[1].ce, sums.ce, live, what + ": cross-entropy of two parts against the whole");
    check_close(parts[0].kd + parts[1].kd, sums.kd, live * tau * tau,
                what + ": teacher term of two parts against the whole");
    check_close(parts_grad_VD, head_grad_VD, scale * tau * hidden_ND.abs().max().item<double>(),
                what + ": gradient of two parts against the whole");
  }

  /// Several teachers are the mean of each alone by their shares.
  void check_shares(const std::vector<Targets>& targets) const {
    const at::Tensor head_grad_VD = zero_gradient(head_VD);
    const HeadStep step = head_step(hidden_ND, head_VD, head_grad_VD, targets, scale, loss);
    const auto live = static_cast<double>(targets[0].true_label_N.ge(0).sum().item<int64_t>());
    double ce = 0, kd = 0, tau = 1;
    at::Tensor hidden_grad_ND, plain_head_grad_VD;
    for (const Targets& target : targets) {
      const PlainLoss plain = plain_loss(hidden_ND, head_VD, target, scale * target.share);
      ce += target.share * plain.ce;
      kd += target.share * plain.kd;
      tau = std::max(tau, target.temperature);
      hidden_grad_ND = hidden_grad_ND.defined() ? hidden_grad_ND + plain.hidden_grad_ND : plain.hidden_grad_ND;
      plain_head_grad_VD = plain_head_grad_VD.defined() ? plain_head_grad_VD + plain.head_grad_VD : plain.head_grad_VD;
    }
    const std::string what = fmt::format("{} teachers together", targets.size());
    const LossSums sums = StepSums(step.sum_S, targets[0].teacher_weight).read();
    check_close(sums.ce, ce, live, what + ": cross-entropy against the plain one");
    check_close(sums.kd, kd, live * tau * tau, what + ": teacher term against the mean of the plain ones");
    check_close(step.hidden_grad_ND, hidden_grad_ND, scale * tau * head_VD.abs().max().item<double>(),
                what + ": gradient of the hidden states");
    check_close(head_grad_VD, plain_head_grad_VD, scale * tau * hidden_ND.abs().max().item<double>(),
                what + ": gradient of the head");
  }

  /// Weights 0 and 1 are the pure losses; a student that is its own teacher; labels moved by one.
  void check_properties(Targets targets, const std::string& what) const {
    const auto live = static_cast<double>(targets.true_label_N.ge(0).sum().item<int64_t>());
    const double weight = targets.teacher_weight, tau = std::max(1.0, targets.temperature),
                 unit = scale * tau * head_VD.abs().max().item<double>();
    for (const double pure : {0.0, 1.0}) {
      targets.teacher_weight = pure;
      check_formula(targets, fmt::format("{} at teacher_weight {}", what, pure));
    }
    targets.teacher_weight = 0;
    const at::Tensor pure_gradient =
        loss(hidden_ND, head_VD, zero_gradient(head_VD), targets, scale, false).hidden_grad_ND;
    const at::Tensor plain_gradient = mixed_cross_entropy_step({.hidden_ND = hidden_ND,
                                                                .head_VD = head_VD,
                                                                .head_grad_VD = zero_gradient(head_VD),
                                                                .true_label_N = targets.true_label_N,
                                                                .scale = scale},
                                                               {}, 0.0, targets.z_loss)
                                          .hidden_grad_ND;
    check_close(pure_gradient, plain_gradient, unit, what + ": teacher_weight 0 against plain cross-entropy");
    targets.teacher_weight = weight;
    if (reads_draws(targets.loss))  // what follows holds for the mean of its draws alone
      return check_draws(loss, hidden_ND, head_VD, targets, scale);

    const Targets own = own_targets(targets, hidden_ND, head_VD);
    const LinearLossSums with_itself = loss(hidden_ND, head_VD, {}, own, scale, /*argmax=*/true).read();
    // one row may sit on a tie that rounding breaks
    if (with_itself.agree < with_itself.num_live - 1)
      broken(fmt::format("{}: a model agrees with itself on {} of {} rows", what, with_itself.agree,
                         with_itself.num_live));
    if (targets.loss != "labels") {
      check_close(with_itself.kd, 0.0, 0.1 * live * tau * tau, what + ": a student that is its own teacher");
      const LinearLoss step = loss(hidden_ND, head_VD, zero_gradient(head_VD), own, scale, /*argmax=*/false);
      check_close(step.hidden_grad_ND, at::zeros_like(hidden_ND), unit,
                  what + ": the gradient of a student that is its own teacher");
    }
    // Moved by one, the same choices are another row's: dearer, unless all rows are alike.
    const bool varied = is_varied(hidden_ND) && head_VD.abs().max().item<double>() > 0;
    Targets moved = own;
    for (at::Tensor* tensor : {&moved.teacher_label_N, &moved.top.id_NK, &moved.top.logp_NK, &moved.top.tail_logp_N,
                               &moved.teacher_hidden_NE})
      if (tensor->defined()) *tensor = tensor->roll(1, 0);
    const bool differs =
        varied && !(moved.teacher_label_N.defined() && moved.teacher_label_N.equal(own.teacher_label_N));
    if (differs && !(loss(hidden_ND, head_VD, {}, moved, scale, false).read().kd > with_itself.kd))
      broken(what + ": labels moved by one do not raise the loss");
  }
};

/// Hidden-state losses: nothing against oneself, something against other rows, ragged parts add up, ignored rows have
/// no gradient.
void check_hidden_loss(const at::Tensor& hidden_ND, const at::Tensor& live_N) {
  const int64_t rows = hidden_ND.size(0);
  const bool varied = is_varied(hidden_ND);
  for (const char* kind : {"cosine", "mse"}) {
    const at::AutoGradMode with_gradient(true);
    const std::string what = std::string("hidden_loss ") + kind;
    const at::Tensor student_ND = hidden_ND.detach().clone().requires_grad_(), other_ND = hidden_ND.detach().roll(1, 0);
    const auto live = live_N.sum().item<double>();
    if (hidden_ND.norm(2, 1).min().item<double>() > 0)  // a state of zeros has no direction
      check_close(hidden_state_loss(kind, {student_ND}, {hidden_ND}, live_N).item<double>(), 0.0, live,
                  what + ": a student that is its own teacher");
    const at::Tensor whole = hidden_state_loss(kind, {student_ND}, {other_ND}, live_N);
    if (varied && !(whole.item<double>() > 0)) broken(what + ": states moved by one do not raise the loss");
    whole.backward();
    const at::Tensor ignored = live_N.logical_not();
    if (ignored.any().item<bool>() && student_ND.grad().index({ignored}).abs().max().item<double>() != 0)
      broken(what + ": an ignored row has a gradient");
    double parts = 0;
    for (const auto& [first, count] : {std::pair<int64_t, int64_t>{0, rows / 3}, {rows / 3, rows - rows / 3}})
      parts += hidden_state_loss(kind, {hidden_ND.narrow(0, first, count)}, {other_ND.narrow(0, first, count)},
                                 live_N.narrow(0, first, count))
                   .item<double>();
    check_close(parts, whole.item<double>(), live, what + ": two parts against the whole");
  }
}

}  // namespace

SelfTestReport self_test_loss(const Model& model, std::span<const TestBatch> batches, const HeadLoss& loss,
                              const DecoderMasks& masks) {
  const at::NoGradGuard no_grad;
  const double begin_s = monotonic_s();
  SelfTestReport report{.agreement = {}, .labels_in_place = batches.front().labels_in_place};
  for (const TestBatch& test : batches) check_true_labels(test.batch, test.targets.front());
  const Batch& batch = batches.front().batch;
  const std::vector<Targets>& targets = batches.front().targets;
  for (size_t teacher = 0; teacher < targets.size(); ++teacher) {
    if (!targets[teacher].has_teacher()) continue;
    const Agreement agreement = check_alignment(batches, teacher);
    report.agreement.push_back(agreement.share());
    report.compared = static_cast<int64_t>(agreement.live);
  }

  // The rows: the start of the first batch's first sequence, read alone; at least one ignored label among them.
  const int64_t rows = std::min(kRows, batch.token_BT.size(1)), vocab = std::min(kVocab, model.config.vocab_size);
  const at::Tensor hidden_ND = decoder_hidden(model, batch.input().part(0, 1, 0, rows));
  const Trial trial{.loss = loss, .hidden_ND = hidden_ND, .head_VD = output_head(model).detach().narrow(0, 0, vocab)};
  std::vector<Targets> all_tried;
  for (const Targets& target : targets) {
    Targets& tried = all_tried.emplace_back(rows_of(target, 0, rows));
    const at::Tensor token_N = batch.token_BT.reshape({-1}).narrow(0, 0, rows);
    tried.true_label_N = at::where(tried.true_label_N.lt(0), token_N, tried.true_label_N);
    tried.true_label_N.select(0, rows / 2).fill_(kIgnoredLabel);
    if (tried.teacher_label_N.defined())
      tried.teacher_label_N = at::where(tried.teacher_label_N.lt(0), token_N, tried.teacher_label_N);
    cut_vocabulary(tried, vocab);
    trial.check_formula(tried, "this stage's loss");
    if (tried.has_teacher()) trial.check_properties(tried, "this stage's loss");
  }
  if (all_tried.size() > 1) trial.check_shares(all_tried);

  // Every loss, whatever this stage uses, against another row's predictions of the same model, sharpened.
  for (const char* name : {"labels", "top_k", "decoupled_top_k", "sample", "hybrid", "kl", "reverse_kl", "jsd"}) {
    Targets like{.true_label_N = all_tried[0].true_label_N,
                 .loss = name,
                 .temperature = std::string(name) == "labels" ? 1.0 : 2.0,
                 .beta = 0.3};
    Targets made = own_targets(like, hidden_ND.roll(1, 0) * 1.5, trial.head_VD);
    made.teacher_weight = 0.7;
    made.z_loss = 1e-3;
    trial.check_formula(made, fmt::format("loss {}", name));
    trial.check_properties(made, fmt::format("loss {}", name));
  }
  check_hidden_loss(hidden_ND, all_tried[0].true_label_N.ge(0));
  report.split_difference = check_split(model, batches.front(), masks, loss);
  report.seconds = monotonic_s() - begin_s;
  return report;
}

double self_test_loss(const Model& model, const Batch& batch, const Targets& targets, const HeadLoss& loss,
                      const DecoderMasks& masks) {
  const TestBatch test{.batch = batch, .targets = {targets}};
  const SelfTestReport report = self_test_loss(model, std::span(&test, 1), loss, masks);
  return report.agreement.empty() ? -1 : report.agreement[0];
}

std::string self_test_text(const SelfTestReport& report) {
  std::string text = fmt::format("the loss passed its self-test in {:.2f} s", report.seconds);
  for (size_t i = 0; i < report.agreement.size(); ++i)
    text +=
        fmt::format("{}{:.1f}%", i == 0 ? "; teacher and true label agree on " : " and ", 100 * report.agreement[i]);
  if (report.agreement.empty()) return text;
  text += fmt::format(" of {} tokens", report.compared);
  if (!report.labels_in_place && report.compared < kEnoughLabels)
    text += fmt::format(": too few to judge whether the teacher's labels are shifted, the first step has no {}",
                        kEnoughLabels);
  return text;
}

}  // namespace coppice
