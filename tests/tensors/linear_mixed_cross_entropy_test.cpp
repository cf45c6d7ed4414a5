// The loss layer: golden values (tests/golden/mixed_loss.json, made by make_vectors.py), finite differences, parity
// with the double reference, chunks, edges.
#include "src/tensors/kernels/linear_mixed_cross_entropy.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <vector>

#include "src/base/errors.h"
#include "src/tensors/ops.h"
#include "tests/tensors/loss_problem.h"

using namespace coppice;
using nlohmann::json;

namespace {

/// The whole loss in double from the row reference, mean over live rows.
struct Reference {
  double loss = 0;
  at::Tensor logits_grad_NV;
};
Reference reference_loss(const at::Tensor& logits_NV, const at::Tensor& true_label, const at::Tensor& teacher_label,
                         double teacher_weight, double z_loss) {
  const at::Tensor logits = logits_NV.to(at::kDouble).contiguous();
  const int64_t rows = logits.size(0), vocab = logits.size(1),
                live = true_label.ne(kIgnoredLabel).sum().item<int64_t>();
  Reference result{.logits_grad_NV = at::zeros({rows, vocab}, at::kDouble)};
  for (int64_t n = 0; n < rows; ++n) {
    double* gradient = result.logits_grad_NV.data_ptr<double>() + n * vocab;
    const LossRow row = mixed_cross_entropy_reference(
        {logits.data_ptr<double>() + n * vocab, static_cast<size_t>(vocab)}, true_label[n].item<int64_t>(),
        teacher_label[n].item<int64_t>(), teacher_weight, z_loss, {gradient, static_cast<size_t>(vocab)});
    result.loss += (1.0 - teacher_weight) * row.ce + teacher_weight * row.kd + row.z;
  }
  if (live > 0) {
    result.loss /= static_cast<double>(live);
    result.logits_grad_NV /= static_cast<double>(live);
  }
  return result;
}

void check_against_reference(const OpPlacement& on) {
  const LossBounds bounds = bounds_on(on, {.loss = 1e-6, .gradient = 1e-6});
  for (const auto& [rows, width, vocab] :
       {std::tuple<int64_t, int64_t, int64_t>{5000, 12, 512}, {700, 16, 5003}, {3, 8, 1}, {65, 33, 257}}) {
    CAPTURE(rows);
    CAPTURE(vocab);
    const LossProblem p = rounded(make_problem(rows_on(on, rows), width, vocab), on), there = placed(p, on);
    const LossGradients ours = differentiate_loss(p, on, [&](const at::Tensor& hidden, const at::Tensor& head) {
      return linear_mixed_cross_entropy(hidden, head, there.true_label_N, there.teacher_label_N, 0.9, 1e-4);
    });
    const at::Tensor hidden64 = p.hidden_ND.to(at::kDouble), head64 = p.head_VD.to(at::kDouble);
    const Reference reference =
        reference_loss(stored(hidden64.matmul(head64.t()), on), p.true_label_N, p.teacher_label_N, 0.9, 1e-4);
    CHECK(ours.loss == doctest::Approx(reference.loss).epsilon(bounds.loss));
    if (vocab == 1) continue;  // gradients are zero but for z
    CHECK(relative(ours.hidden_ND, reference.logits_grad_NV.matmul(head64)) <= bounds.gradient);
    CHECK(relative(ours.head_VD, reference.logits_grad_NV.t().matmul(hidden64)) <= bounds.gradient);
  }
}

/// The step: sums and gradients do not depend on chunks, what is not trained has float32 logits, what is has those of
/// the element type or, asked for, float32.
void check_step(const OpPlacement& on) {
  const LossProblem p = rounded(make_problem(40, 16, 50), on), there = placed(p, on);
  const at::Tensor hidden_ND = p.hidden_ND.to(on.device, on.compute), head_VD = p.head_VD.to(on.device, on.compute);
  struct Step {
    ReadLoss loss;
    at::Tensor head_grad_VD;
  };
  const auto step = [&](int64_t chunk_rows, bool float_logits, bool trains = true) {
    Step result;
    if (trains) result.head_grad_VD = at::full({50, 16}, 2.0f, at::TensorOptions(on.device));
    result.loss = read(mixed_cross_entropy_step({.hidden_ND = hidden_ND,
                                                 .head_VD = head_VD,
                                                 .head_grad_VD = result.head_grad_VD,
                                                 .true_label_N = there.true_label_N,
                                                 .scale = 0.125,
                                                 .argmax = true,
                                                 .chunk_rows = chunk_rows,
                                                 .float_logits = float_logits},
                                                there.teacher_label_N, 0.9, 1e-3));
    return result;
  };
  const at::Tensor logits64 = p.hidden_ND.to(at::kDouble).matmul(p.head_VD.to(at::kDouble).t());
  const at::Tensor live = p.true_label_N.ne(kIgnoredLabel), best = logits64.argmax(1);
  const auto check_against = [&](const Step& ours, const at::Tensor& logits_NV) {
    const Reference reference = reference_loss(logits_NV, p.true_label_N, p.teacher_label_N, 0.9, 1e-3);
    CHECK(ours.loss.num_live == 32);
    CHECK((0.1 * ours.loss.ce + 0.9 * ours.loss.kd + ours.loss.z) / 32 ==
          doctest::Approx(reference.loss).epsilon(bounds_on(on, {.loss = 1e-6, .gradient = 0}).loss));
    if (!ours.head_grad_VD.defined()) return;
    const LossBounds bounds = bounds_on(on, {.loss = 0, .gradient = 2e-6});
    const at::Tensor logits_grad = reference.logits_grad_NV * (32 * 0.125);
    CHECK((ours.loss.hidden_grad_ND.scalar_type() == on.compute));
    CHECK(relative(ours.loss.hidden_grad_ND.cpu(), logits_grad.matmul(p.head_VD.to(at::kDouble))) <= bounds.gradient);
    CHECK(relative(ours.head_grad_VD.cpu() - 2.0, logits_grad.t().matmul(p.hidden_ND.to(at::kDouble))) <=
          bounds.gradient);
  };
  const Step whole = step(0, false), in_chunks = step(7, false), wide = step(0, true), forward = step(0, false, false);
  check_against(whole, stored(logits64, on));
  check_against(wide, logits64);
  check_against(forward, logits64);
  CHECK(forward.loss.correct == (best.eq(p.true_label_N) & live).sum().item<int64_t>());
  CHECK(forward.loss.agree == (best.eq(p.teacher_label_N) & live).sum().item<int64_t>());
  // a device's library multiplies other shapes in another order
  const double of_sums = on.execution == Execution::device ? bounds_on(on, {.loss = 1e-6, .gradient = 0}).loss : 0;
  CHECK(std::abs(in_chunks.loss.ce / whole.loss.ce - 1) <= of_sums);
  CHECK(std::abs(in_chunks.loss.kd / whole.loss.kd - 1) <= of_sums);
  CHECK(relative(in_chunks.loss.hidden_grad_ND.cpu(), whole.loss.hidden_grad_ND.cpu()) <=
        bounds_on(on, {.loss = 0, .gradient = 1e-6}).gradient);
  CHECK(relative(in_chunks.head_grad_VD.cpu(), whole.head_grad_VD.cpu()) <= std::max(1e-6, of_sums));
  CHECK(wide.loss.ce == forward.loss.ce);
  CHECK(wide.loss.kd == forward.loss.kd);
}

/// What a teacher chooses is that of float32 logits.
void check_choices(const OpPlacement& on) {
  const LossProblem p = rounded(make_problem(60, 12, 515), on);
  const at::Tensor hidden_ND = p.hidden_ND.to(on.device, on.compute), head_VD = p.head_VD.to(on.device, on.compute);
  const at::Tensor logits64 = p.hidden_ND.to(at::kDouble).matmul(p.head_VD.to(at::kDouble).t());
  TopFacts facts;
  CHECK(at::equal(top_1(hidden_ND, head_VD, &facts).cpu(), logits64.argmax(1)));
  CHECK(facts.not_finite_N().sum().item<int64_t>() == 0);
  for (const double tau : {1.0, 2.0}) {
    const TopK top = top_k(hidden_ND, head_VD, 5, tau);
    const auto [value, id] = logits64.topk(5, 1);
    CHECK(at::equal(top.id_NK.cpu(), id));
    const at::Tensor log_p = (logits64 / tau).log_softmax(1);
    CHECK(error(top.logp_NK.cpu(), log_p.gather(1, id)) <= 3e-6);
    CHECK(error(top.tail_logp_N.cpu().exp(), log_p.exp().scatter(1, id, 0.0).sum(1)) <= 3e-6);
  }
  at::Tensor spoilt_VD = head_VD.clone();
  spoilt_VD[3].fill_(std::numeric_limits<float>::quiet_NaN());
  top_1(hidden_ND, spoilt_VD, &facts);
  CHECK(facts.not_finite_N().sum().item<int64_t>() == 60);
}

}  // namespace

TEST_SUITE("golden") {
  TEST_CASE("mixed_cross_entropy: loss and gradient of every weight and z") {
    const json golden = read_golden();
    const int64_t rows = golden["rows"], vocab = golden["vocab"];
    const at::Tensor logits = at::tensor(golden["logits"].get<Doubles>(), at::kDouble).reshape({rows, vocab});
    const at::Tensor true_label = labels(golden["true_label"]), teacher_label = labels(golden["teacher_label"]);
    CHECK(golden["cases"].size() == 12);
    for (const json& c : golden["cases"]) {
      const double weight = c["weight"], z_loss = c["z"], loss = c["loss"];
      CAPTURE(weight);
      CAPTURE(z_loss);
      const at::Tensor grad = at::tensor(c["grad"].get<Doubles>(), at::kDouble).reshape({rows, vocab});
      const Reference reference = reference_loss(logits, true_label, teacher_label, weight, z_loss);
      CHECK(std::abs(reference.loss - loss) <= 1e-12 * std::max(1.0, std::abs(loss)));
      CHECK(error(reference.logits_grad_NV, grad) <= 1e-12);

      at::Tensor hidden = logits.to(at::kFloat).set_requires_grad(true);  // the identity as head: logits = hidden
      const at::Tensor ours =
          linear_mixed_cross_entropy(hidden, at::eye(vocab), true_label, teacher_label, weight, z_loss);
      ours.backward();
      CHECK(std::abs(ours.item<double>() - loss) <= 2e-6 * std::max(1.0, std::abs(loss)));
      CHECK(error(hidden.grad(), grad) <= 2e-6);
      CHECK(hidden.grad()[3].eq(0).all().item<bool>());  // the ignored row
    }
  }

  TEST_CASE("mixed_cross_entropy: logits of 1e4") {
    const json golden = read_golden();
    const json& c = golden["large_logits"];
    const int64_t rows = golden["rows"], vocab = golden["vocab"];
    const at::Tensor logits =
        at::tensor(golden["logits"].get<Doubles>(), at::kDouble).reshape({rows, vocab}) * c["factor"].get<double>();
    const at::Tensor true_label = labels(golden["true_label"]), teacher_label = labels(golden["teacher_label"]);
    const at::Tensor grad = at::tensor(c["grad"].get<Doubles>(), at::kDouble).reshape({rows, vocab});
    const Reference reference = reference_loss(logits, true_label, teacher_label, c["weight"], c["z"]);
    CHECK(reference.loss == doctest::Approx(c["loss"].get<double>()).epsilon(1e-12));
    CHECK(error(reference.logits_grad_NV, grad) <= 1e-12);
    at::Tensor hidden = logits.to(at::kFloat).set_requires_grad(true);
    const at::Tensor loss =
        linear_mixed_cross_entropy(hidden, at::eye(vocab), true_label, teacher_label, c["weight"], c["z"]);
    loss.backward();
    CHECK(loss.item<double>() == doctest::Approx(c["loss"].get<double>()).epsilon(2e-6));
    CHECK(error(hidden.grad(), grad) <= 2e-6);
  }
}

TEST_SUITE("unit") {
  TEST_CASE("mixed_cross_entropy: a row worked out by hand") {
    // logits (0, ln 3): p = (1/4, 3/4). true 0, teacher 1, w = 0.9: loss = 0.1 ln 4 + 0.9 ln(4/3); d = (1/4 - 0.1, 3/4
    // - 0.9).
    std::vector<float> logits{0.0f, std::log(3.0f)};
    const std::vector<int64_t> true_label{0}, teacher_label{1};
    LossRow row;
    mixed_cross_entropy_cpu({.logits = logits.data(),
                             .true_label = true_label.data(),
                             .teacher_label = teacher_label.data(),
                             .rows = &row,
                             .num_rows = 1,
                             .num_vocab = 2,
                             .teacher_weight = 0.9,
                             .z_loss = 0.5,
                             .scale = 1.0,
                             .write_gradient = true,
                             .argmax = true});
    CHECK(row.ce == doctest::Approx(std::log(4.0)).epsilon(1e-6));
    CHECK(row.kd == doctest::Approx(std::log(4.0 / 3.0)).epsilon(1e-6));
    CHECK(row.z == doctest::Approx(0.5 * std::log(4.0) * std::log(4.0)).epsilon(1e-6));
    CHECK(row.top_1 == 1);
    const double more = 1.0 + 2.0 * 0.5 * std::log(4.0);
    CHECK(logits[0] == doctest::Approx(0.25 * more - 0.1).epsilon(1e-6));
    CHECK(logits[1] == doctest::Approx(0.75 * more - 0.9).epsilon(1e-6));
  }

  TEST_CASE("mixed_cross_entropy: teacher_weight 0 is CE on true labels, 1 is CE on teacher labels") {
    const LossProblem p = make_problem(37, 24, 301);
    const auto run = [&](const at::Tensor& true_label, const at::Tensor& teacher_label, double weight) {
      at::Tensor hidden = p.hidden_ND.clone().set_requires_grad(true), head = p.head_VD.clone().set_requires_grad(true);
      const at::Tensor loss = linear_mixed_cross_entropy(hidden, head, true_label, teacher_label, weight, 1e-4);
      loss.backward();
      return std::vector<at::Tensor>{loss.detach(), hidden.grad(), head.grad()};
    };
    const auto equal = [](const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
      return at::equal(a[0], b[0]) && at::equal(a[1], b[1]) && at::equal(a[2], b[2]);
    };
    const auto plain = run(p.true_label_N, p.true_label_N, 0.0);
    CHECK(equal(run(p.true_label_N, p.teacher_label_N, 0.0), plain));  // bit for bit
    CHECK(equal(run(p.true_label_N, p.true_label_N, 0.9), plain));     // both agree
    CHECK(equal(run(p.true_label_N, at::full_like(p.teacher_label_N, kIgnoredLabel), 0.9),
                plain));  // no teacher label: the true one
    const at::Tensor swapped = at::where(p.true_label_N.eq(kIgnoredLabel), p.true_label_N, p.teacher_label_N);
    const auto teacher_only = run(p.true_label_N, p.teacher_label_N, 1.0), on_teacher = run(swapped, swapped, 0.0);
    CHECK(error(teacher_only[0], on_teacher[0]) <= 1e-6);
    CHECK(error(teacher_only[1], on_teacher[1]) <= 1e-6);
    CHECK(error(teacher_only[2], on_teacher[2]) <= 1e-6);
    CHECK(!at::equal(teacher_only[1], plain[1]));
  }

  TEST_CASE("mixed_cross_entropy: no live row gives loss 0 and gradient 0") {
    const LossProblem p = make_problem(6, 8, 11);
    at::Tensor hidden = p.hidden_ND.clone().set_requires_grad(true), head = p.head_VD.clone().set_requires_grad(true);
    const at::Tensor loss =
        linear_mixed_cross_entropy(hidden, head, at::full({6}, kIgnoredLabel, at::kLong), p.teacher_label_N, 0.9, 1e-3);
    loss.backward();
    CHECK(loss.item<float>() == 0.0f);
    CHECK(hidden.grad().eq(0).all().item<bool>());
    CHECK(head.grad().eq(0).all().item<bool>());
    CHECK(linear_mixed_cross_entropy(at::empty({0, 8}), p.head_VD, labels({}), labels({}), 0.9, 0.0).item<float>() ==
          0.0f);
  }

  TEST_CASE("mixed_cross_entropy_step: counts, sums, scale, accumulation") {
    const LossProblem p = make_problem(40, 16, 50);
    at::Tensor head_grad = at::full_like(p.head_VD, 2.0);
    const ReadLoss sums = read(mixed_cross_entropy_step({.hidden_ND = p.hidden_ND,
                                                         .head_VD = p.head_VD,
                                                         .head_grad_VD = head_grad,
                                                         .true_label_N = p.true_label_N,
                                                         .scale = 0.125,
                                                         .argmax = true},
                                                        p.teacher_label_N, 0.9, 1e-3));
    const at::Tensor logits = p.hidden_ND.to(at::kDouble).matmul(p.head_VD.to(at::kDouble).t());
    const at::Tensor live = p.true_label_N.ne(kIgnoredLabel), best = logits.argmax(1), log_p = logits.log_softmax(1);
    const at::Tensor safe_label = p.true_label_N.clamp_min(0);
    const auto picked = [&](const at::Tensor& label) {
      return -log_p.gather(1, label.unsqueeze(1)).squeeze(1).masked_select(live).sum().item<double>();
    };
    CHECK(sums.num_live == 32);
    CHECK(sums.ce == doctest::Approx(picked(safe_label)).epsilon(1e-6));
    CHECK(sums.kd == doctest::Approx(picked(p.teacher_label_N)).epsilon(1e-6));
    CHECK(sums.z ==
          doctest::Approx(1e-3 * logits.logsumexp(1).square().masked_select(live).sum().item<double>()).epsilon(1e-6));
    CHECK(sums.correct == best.eq(p.true_label_N).sum().item<int64_t>());
    CHECK(sums.agree == (best.eq(p.teacher_label_N) & live).sum().item<int64_t>());

    const Reference reference = reference_loss(logits, p.true_label_N, p.teacher_label_N, 0.9, 1e-3);
    const at::Tensor logits_grad = reference.logits_grad_NV * (32 * 0.125);
    CHECK(error(sums.hidden_grad_ND, logits_grad.matmul(p.head_VD.to(at::kDouble))) <= 2e-6);
    CHECK(error(head_grad, logits_grad.t().matmul(p.hidden_ND.to(at::kDouble)) + 2.0) <= 2e-6);

    const ReadLoss forward = read(mixed_cross_entropy_step(
        {.hidden_ND = p.hidden_ND, .head_VD = p.head_VD, .true_label_N = p.true_label_N}, {}, 0.0, 0.0));
    CHECK(!forward.hidden_grad_ND.defined());
    CHECK(forward.ce == sums.ce);  // the same bits with and without the gradient
    CHECK(forward.kd == 0.0);
    CHECK(forward.correct == 0);
    CHECK(forward.agree == 0);
  }

  TEST_CASE("mixed_cross_entropy_step: hidden and head that require gradients are left alone") {
    const LossProblem p = make_problem(4, 8, 9);
    const at::Tensor hidden = p.hidden_ND.clone().set_requires_grad(true),
                     head = p.head_VD.clone().set_requires_grad(true);
    at::Tensor head_grad = at::zeros_like(p.head_VD);
    const ReadLoss sums = read(mixed_cross_entropy_step(
        {.hidden_ND = hidden, .head_VD = head, .head_grad_VD = head_grad, .true_label_N = p.true_label_N},
        p.teacher_label_N, 0.5, 0.0));
    CHECK(!sums.hidden_grad_ND.requires_grad());
    CHECK(!hidden.grad().defined());
    CHECK(head_grad.abs().sum().item<double>() > 0.0);
  }

  TEST_CASE("top_1: the lowest id wins a tie, in every block of a row") {
    for (const int64_t vocab : {1, 7, 511, 512, 513, 1500}) {
      at::Tensor hidden = at::zeros({4, vocab});
      hidden[1][vocab - 1] = 3.0f;
      hidden[2][vocab / 2] = 1.0f;
      hidden[2][vocab - 1] = 1.0f;
      hidden[3].fill_(-2.0f);
      const at::Tensor best = top_1(hidden, at::eye(vocab));
      CHECK((best.scalar_type() == at::kLong));
      CHECK(at::equal(best, labels({0, vocab - 1, vocab / 2, 0})));
    }
    const at::Tensor hidden = at::randn({300, 16}), head = at::randn({700, 16});
    CHECK(at::equal(top_1(hidden, head), hidden.mm(head.t()).argmax(1)));
  }

  TEST_CASE("top_1 and top_k: near ties and logits that are not finite are counted, wherever they stand") {
    constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInfinity = std::numeric_limits<float>::infinity();
    for (const int64_t vocab : {7, 513, 1500})
      for (const int64_t second : {int64_t{1}, vocab / 2, vocab - 1}) {
        CAPTURE(vocab);
        CAPTURE(second);
        at::Tensor logits = at::full({10, vocab}, -1.0f);
        logits.select(1, 0).fill_(8.0f);
        logits[0][second] = 8.0f;                            // equal
        logits[1][second] = 8.0f - 0.9f * 8e-5f;             // within 1e-5 of the best
        logits[2][second] = 8.0f - 1.2f * 8e-5f;             // not within
        logits[3] = -logits[3], logits[3][second] = -7.99f;  // below zero: the best is 1, everywhere
        logits[4].fill_(-3.0f), logits[4][second] = -2.0f;   // one best below zero
        logits[5].fill_(0.0f);                               // all equal, and zero
        logits[6][second] = kNan;
        logits[7][second] = kInfinity;
        logits[8].fill_(-kInfinity);
        logits[9][0] = kNan;
        const at::Tensor eye = at::eye(vocab), hidden = logits.narrow(0, 0, 6);
        TopFacts facts;
        top_1(hidden, eye, &facts);
        CHECK(facts.count_near_ties() == 4);  // rows 0, 1, 3, 5
        CHECK(facts.not_finite_N().sum().item<int64_t>() == 0);
        for (const int64_t k : {1, 2, 5}) {
          TopFacts of_k;
          top_k(hidden, eye, k, 2.0, &of_k);
          CHECK(of_k.count_near_ties() == facts.count_near_ties());
          CHECK(of_k.not_finite_N().sum().item<int64_t>() == 0);
        }
        for (int64_t row = 6; row < 10;
             ++row) {  // a product with the identity would spread them over the row: the kernel itself
          CAPTURE(row);
          TopFact fact = TopFact::clear, fact_of_k = TopFact::clear;
          int64_t id = 0;
          float logp = 0, tail = 0;
          at::Tensor copy = logits[row].clone();
          top_1_cpu(copy.const_data_ptr<float>(), 1, vocab, &id, &fact);
          top_k_cpu({.logits = copy.mutable_data_ptr<float>(),
                     .num_rows = 1,
                     .num_vocab = vocab,
                     .k = 1,
                     .id = &id,
                     .logp = &logp,
                     .tail = &tail,
                     .fact = &fact_of_k});
          CHECK((fact == TopFact::not_finite));
          CHECK((fact_of_k == TopFact::not_finite));
        }
      }
  }

  TEST_CASE("mixed_cross_entropy: what does not fit is refused") {
    const LossProblem p = make_problem(4, 8, 9);
    const auto run = [&](const at::Tensor& hidden, const at::Tensor& true_label, const at::Tensor& teacher_label,
                         double weight) {
      return linear_mixed_cross_entropy(hidden, p.head_VD, true_label, teacher_label, weight, 0.0);
    };
    CHECK_THROWS_AS(run(at::zeros({4, 7}), p.true_label_N, p.teacher_label_N, 0.9), InternalError);
    CHECK_THROWS_AS(run(p.hidden_ND.to(at::kDouble), p.true_label_N, p.teacher_label_N, 0.9), InternalError);
    CHECK_THROWS_AS(run(p.hidden_ND, labels({1, 2, 3}), p.teacher_label_N, 0.9), InternalError);
    CHECK_THROWS_AS(run(p.hidden_ND, labels({1, 2, 3, 9}), p.teacher_label_N, 0.9), InternalError);
    CHECK_THROWS_AS(run(p.hidden_ND, labels({1, 2, 3, -1}), p.teacher_label_N, 0.9), InternalError);
    CHECK_THROWS_AS(run(p.hidden_ND, p.true_label_N, labels({0, 1, 2, 65535}), 0.9), InternalError);
    CHECK_THROWS_AS(run(p.hidden_ND, p.true_label_N, p.teacher_label_N, 1.5), InternalError);
  }

  TEST_CASE("mixed_cross_entropy: a NaN in the hidden states reaches loss and gradient") {
    const LossProblem p = make_problem(4, 8, 600);
    at::Tensor hidden = p.hidden_ND.clone();
    hidden[2][3] = std::nanf("");
    hidden.set_requires_grad(true);
    const at::Tensor loss = linear_mixed_cross_entropy(hidden, p.head_VD, p.true_label_N, p.teacher_label_N, 0.9, 0.0);
    loss.backward();
    CHECK(std::isnan(loss.item<float>()));
    CHECK(hidden.grad()[2].isnan().all().item<bool>());
    CHECK(hidden.grad()[1].isfinite().all().item<bool>());
  }
}

TEST_SUITE("parity") {
  TEST_CASE("mixed_cross_entropy: many chunks equal the reference in double") {
    on_each(host_placements(), check_against_reference);
  }

  TEST_CASE("mixed_cross_entropy_step: chunks, logits of either element type, forward alone") {
    on_each(host_placements(), check_step);
  }

  TEST_CASE("top_1 and top_k: choices of float32 logits") { on_each(host_placements(), check_choices); }

  TEST_CASE("mixed_cross_entropy: repeats bit for bit") {
    const LossProblem p = make_problem(900, 64, 3000);
    at::Tensor first = at::zeros_like(p.head_VD), second = at::zeros_like(p.head_VD);
    const ReadLoss a = read(mixed_cross_entropy_step({.hidden_ND = p.hidden_ND,
                                                      .head_VD = p.head_VD,
                                                      .head_grad_VD = first,
                                                      .true_label_N = p.true_label_N,
                                                      .argmax = true},
                                                     p.teacher_label_N, 0.9, 1e-4));
    const ReadLoss b = read(mixed_cross_entropy_step({.hidden_ND = p.hidden_ND,
                                                      .head_VD = p.head_VD,
                                                      .head_grad_VD = second,
                                                      .true_label_N = p.true_label_N,
                                                      .argmax = true},
                                                     p.teacher_label_N, 0.9, 1e-4));
    CHECK(a.ce == b.ce);
    CHECK(a.kd == b.kd);
    CHECK(at::equal(a.hidden_grad_ND, b.hidden_grad_ND));
    CHECK(at::equal(first, second));
  }
}

TEST_SUITE("grad") {
  TEST_CASE("mixed_cross_entropy: gradient of the reference by central differences") {
    at::manual_seed(3);
    const at::Tensor logits = at::randn({5, 9}, at::kDouble) * 2;
    const at::Tensor true_label = labels({1, 2, -100, 8, 0}), teacher_label = labels({1, 5, 3, -100, 7});
    for (const double weight : {0.0, 0.9, 1.0})
      for (const double z_loss : {0.0, 0.1}) {
        const Reference at_point = reference_loss(logits, true_label, teacher_label, weight, z_loss);
        for (int64_t n = 0; n < 5; ++n)
          for (int64_t v = 0; v < 9; ++v) {
            const auto moved = [&](double step) {
              at::Tensor shifted = logits.clone();
              shifted[n][v] += step;
              return reference_loss(shifted, true_label, teacher_label, weight, z_loss).loss;
            };
            const double slope = (moved(1e-6) - moved(-1e-6)) / 2e-6;
            CHECK(std::abs(at_point.logits_grad_NV[n][v].item<double>() - slope) <= 1e-8);
          }
      }
  }

  TEST_CASE("mixed_cross_entropy: the op's gradients by central differences of the op's own loss") {
    const LossProblem p = make_problem(6, 4, 9);
    for (const double w : {0.0, 0.9, 1.0}) {
      CAPTURE(w);
      check_op_differences(p, [&](const at::Tensor& hidden, const at::Tensor& head) {
        return linear_mixed_cross_entropy(hidden, head, p.true_label_N, p.teacher_label_N, w, 1e-2);
      });
    }
  }

  TEST_CASE("mixed_cross_entropy: an upstream factor scales both gradients") {
    const LossProblem p = make_problem(20, 8, 30);
    const auto grads = [&](double factor) {
      at::Tensor hidden = p.hidden_ND.clone().set_requires_grad(true), head = p.head_VD.clone().set_requires_grad(true);
      (linear_mixed_cross_entropy(hidden, head, p.true_label_N, p.teacher_label_N, 0.9, 0.0) * factor).backward();
      return std::pair{hidden.grad(), head.grad()};
    };
    const auto one = grads(1.0), four = grads(4.0);
    CHECK(at::equal(one.first * 4.0, four.first));
    CHECK(at::equal(one.second * 4.0, four.second));
  }
}

TEST_SUITE("gpu") {
  TEST_CASE("mixed_cross_entropy: many chunks equal the reference in double: on a device") {
    on_each(device_placements(), [](const OpPlacement& on) {
      check_against_reference(on);
      check_step(on);
      check_choices(on);
    });
  }
}
