// The linear losses over parts of a vocabulary: put together they are the whole. Parts run as threads that exchange
// their row statistics. Golden values: tests/golden/vocabulary_loss.json (made by make_vocabulary_loss.py).
#include <barrier>
#include <thread>

#include "src/base/errors.h"
#include "src/tensors/decoupled_top_k.h"
#include "src/tensors/ops.h"
#include "tests/tensors/loss_problem.h"

using namespace coppice;

namespace {

using Step = std::function<LinearLoss(const HeadRows& rows, int64_t first, int64_t count)>;

/// What the parts leave together: sums of each, the gradient of the hidden states summed, that of the head end to end.
struct Whole {
  std::vector<LinearLossSums> sums;
  at::Tensor hidden_grad_ND, head_grad_VD;
  int64_t exchanges = 0;
};

/// `begin`: the first id of every part, and V.
Whole run_parts(const HeadRows& whole, const std::vector<int64_t>& begin, const Step& step) {
  const auto num_parts = std::ssize(begin) - 1;
  std::barrier<> meet(num_parts);
  std::vector<at::Tensor> posted(static_cast<size_t>(num_parts));
  std::vector<LinearLoss> losses(static_cast<size_t>(num_parts));
  std::vector<int64_t> exchanges(static_cast<size_t>(num_parts));
  Whole result{.head_grad_VD = at::zeros_like(whole.head_VD)};
  std::vector<std::thread> threads;
  for (int64_t part = 0; part < num_parts; ++part)
    threads.emplace_back([&, part] {
      const auto at = static_cast<size_t>(part);
      const int64_t first = begin[at], count = begin[at + 1] - first;
      HeadRows rows = whole;
      rows.head_VD = whole.head_VD.narrow(0, first, count);
      if (whole.head_grad_VD.defined()) rows.head_grad_VD = result.head_grad_VD.narrow(0, first, count);
      rows.shard = {.first = first, .total = whole.head_VD.size(0), .exchange = [&](const at::Tensor& rows_CX) {
                      ++exchanges[at];
                      posted[at] = rows_CX;
                      meet.arrive_and_wait();
                      at::Tensor all_RCX = at::stack(posted);
                      meet.arrive_and_wait();
                      return all_RCX;
                    }};
      losses[at] = step(rows, first, count);
    });
  for (std::thread& thread : threads) thread.join();
  for (size_t part = 0; part < losses.size(); ++part) {
    result.sums.push_back(losses[part].read());
    if (!whole.head_grad_VD.defined()) continue;
    result.hidden_grad_ND =
        part == 0 ? losses[part].hidden_grad_ND.clone() : result.hidden_grad_ND + losses[part].hidden_grad_ND;
  }
  result.exchanges = exchanges[0];
  for (const int64_t count : exchanges) CHECK(count == result.exchanges);
  return result;
}

std::vector<int64_t> even_parts(int64_t vocab, int64_t parts) {
  std::vector<int64_t> begin;
  for (int64_t part = 0; part <= parts; ++part) begin.push_back(vocab * part / parts);
  return begin;
}

struct Loss {
  std::string name;
  int64_t exchanges;  // a chunk
  Step step;
};

std::vector<Loss> all_losses(const LossProblem& p) {
  std::vector<Loss> losses;
  for (const double weight : {0.0, 0.9})
    losses.push_back({"labels " + std::to_string(weight), 1, [&p, weight](const HeadRows& rows, int64_t, int64_t) {
                        return mixed_cross_entropy_step(rows, p.teacher_label_N, weight, 1e-3);
                      }});
  for (const double tau : {1.0, 2.0}) {
    TopK top = top_k(p.teacher_hidden_NE, p.teacher_head_VE, 7, tau);
    top.id_NK[3].fill_(kIgnoredLabel);  // a row without a teacher
    top.id_NK[5][6].fill_(kIgnoredLabel);
    losses.push_back({"top_k " + std::to_string(tau), 1, [top, tau](const HeadRows& rows, int64_t, int64_t) {
                        return top_k_cross_entropy_step(rows, top, 0.8, tau, 1e-3);
                      }});
    losses.push_back({"decoupled_top_k " + std::to_string(tau), 1, [top, tau](const HeadRows& rows, int64_t, int64_t) {
                        return decoupled_top_k_step(rows, top, 0.8, tau, 1e-3);
                      }});
    for (const char* name : {"kl", "reverse_kl", "jsd"})
      losses.push_back({std::string(name) + " " + std::to_string(tau), std::string(name) == "jsd" ? 2 : 1,
                        [&p, name, tau](const HeadRows& rows, int64_t first, int64_t count) {
                          return distillation_step(
                              rows, p.teacher_hidden_NE, p.teacher_head_VE.narrow(0, first, count),
                              {.loss = name, .teacher_weight = 0.8, .temperature = tau, .beta = 0.3, .z_loss = 1e-3});
                        }});
  }
  return losses;
}

}  // namespace

TEST_SUITE("parity") {
  TEST_CASE("vocabulary_shard: two and four parts of 515 ids are the whole, in every loss") {
    LossProblem p = make_problem(40, 16, 515);
    p.hidden_ND[1].mul_(8);  // parts of very different largest logits
    for (const Loss& loss : all_losses(p)) {
      CAPTURE(loss.name);
      for (const bool gradient : {true, false}) {
        CAPTURE(gradient);
        HeadRows rows{.hidden_ND = p.hidden_ND,
                      .head_VD = p.head_VD,
                      .true_label_N = p.true_label_N,
                      .scale = 0.125,
                      .argmax = true,
                      .chunk_rows = 13};
        if (gradient) rows.head_grad_VD = at::zeros_like(p.head_VD);
        const ReadLoss whole = read(loss.step(rows, 0, 515));
        for (const int64_t parts : {1, 2, 4}) {
          CAPTURE(parts);
          const Whole together = run_parts(rows, even_parts(515, parts), loss.step);
          CHECK(together.exchanges == 4 * loss.exchanges);    // of four chunks
          for (const LinearLossSums& sums : together.sums) {  // every part knows the whole's
            CHECK(sums.num_live == whole.num_live);
            CHECK(sums.ce == doctest::Approx(whole.ce).epsilon(1e-6));
            CHECK(sums.kd == doctest::Approx(whole.kd).epsilon(1e-6));
            CHECK(sums.z == doctest::Approx(whole.z).epsilon(1e-6));
            CHECK(sums.correct == whole.correct);
            CHECK(sums.agree == whole.agree);
          }
          if (!gradient) continue;
          CHECK(relative(together.hidden_grad_ND, whole.hidden_grad_ND.to(at::kDouble)) <= 1e-6);
          CHECK(relative(together.head_grad_VD, rows.head_grad_VD.to(at::kDouble)) <= 1e-6);
        }
      }
    }
  }
}

TEST_SUITE("golden") {
  TEST_CASE("vocabulary_shard: labels and kl of vocabulary_loss.json over one, two and three parts") {
    const auto golden = nlohmann::json::parse(std::ifstream(COPPICE_SOURCE_DIR "/tests/golden/vocabulary_loss.json"));
    const auto table = [&](const char* name) {
      std::vector<at::Tensor> rows;
      for (const auto& row : golden.at(name)) rows.push_back(at::tensor(row.get<Doubles>(), at::kDouble));
      return at::stack(rows);
    };
    const auto ids = [&](const char* name) { return labels(golden.at(name).get<std::vector<int64_t>>()); };
    const at::Tensor eye = at::eye(11), teacher_logits = table("teacher_logits").to(at::kFloat),
                     teacher_label = ids("teacher_label");
    HeadRows rows{.hidden_ND = table("logits").to(at::kFloat),  // times the identity: logits as they are
                  .head_VD = eye,
                  .head_grad_VD = at::zeros_like(eye),
                  .true_label_N = ids("true_label"),
                  .scale = golden.at("scale").get<double>()};
    const double tolerance = golden.at("tolerance").at("float32").get<double>();
    for (const auto& one : golden.at("cases")) {
      std::vector<int64_t> begin{0};
      for (const auto& shard : one.at("shards")) begin.push_back(shard[1].get<int64_t>());
      CAPTURE(begin.size());
      const double weight = golden.at("teacher_weight").get<double>();
      const Whole mix = run_parts(rows, begin, [&](const HeadRows& part, int64_t, int64_t) {
        return mixed_cross_entropy_step(part, teacher_label, weight, golden.at("z_loss").get<double>());
      });
      for (const LinearLossSums& sums : mix.sums)
        CHECK((1 - weight) * sums.ce + weight * sums.kd + sums.z ==
              doctest::Approx(golden.at("loss_sum").get<double>()).epsilon(tolerance));
      CHECK(error(mix.hidden_grad_ND, table("gradient")) <= tolerance);
      const Whole kl = run_parts(rows, begin, [&](const HeadRows& part, int64_t first, int64_t count) {
        return distillation_step(
            part, teacher_logits, eye.narrow(0, first, count),
            {.loss = "kl", .teacher_weight = 1, .temperature = golden.at("kl_temperature").get<double>(), .z_loss = 0});
      });
      for (const LinearLossSums& sums : kl.sums)
        CHECK(sums.kd == doctest::Approx(golden.at("kl_sum").get<double>()).epsilon(tolerance));
      CHECK(error(kl.hidden_grad_ND, table("kl_gradient")) <= tolerance);
    }
  }
}

TEST_SUITE("unit") {
  TEST_CASE("vocabulary_shard: ties go to the lowest id whatever part has it; what does not fit is refused") {
    const at::Tensor hidden = at::ones({2, 1}), head = at::tensor({1.0f, 3.0f, 2.0f, 3.0f, 3.0f}).unsqueeze(1);
    HeadRows rows{.hidden_ND = hidden, .head_VD = head, .true_label_N = labels({1, 3}), .argmax = true};
    const Step step = [](const HeadRows& part, int64_t, int64_t) { return mixed_cross_entropy_step(part, {}, 0, 0); };
    for (const std::vector<int64_t>& begin : {std::vector<int64_t>{0, 5}, {0, 2, 5}, {0, 1, 3, 5}})
      for (const LinearLossSums& sums : run_parts(rows, begin, step).sums) CHECK(sums.correct == 1);
    rows.shard = {.first = 4, .total = 8, .exchange = [](const at::Tensor& own) { return own.unsqueeze(0); }};
    CHECK_THROWS_WITH_AS(step(rows, 0, 0), doctest::Contains("shard: ids 4 to 8 of 8"), InternalError);
    rows.shard.total = 9;
    rows.true_label_N = labels({9, 3});
    CHECK_THROWS_WITH_AS(step(rows, 0, 0), doctest::Contains("expected -100 or 0 to 8"), InternalError);
  }
}
