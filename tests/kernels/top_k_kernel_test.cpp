#include "src/tensors/kernels/top_k.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cfloat>
#include <functional>
#include <numeric>

#include "tests/executor/outputs.h"
#include "tests/kernels/every_schedule.h"
#include "tests/kernels/last_row.h"
#include "tests/kernels/table_bytes.h"

using namespace coppice;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();

struct Problem {
  int64_t num_rows;
  int64_t num_vocab;
  int64_t k;
  double temperature = 1.0;
  std::function<float(int64_t i)> logit = [](int64_t i) { return 8.0f * number(i, 1); };

  std::vector<float> logits() const { return values_of(num_rows * num_vocab, logit); }
};

Outputs as_outputs(const std::vector<int64_t>& ids) { return {ids.begin(), ids.end()}; }
Outputs as_outputs(const std::vector<TopFact>& facts) {
  Outputs outputs;
  for (const TopFact fact : facts) outputs.push_back(static_cast<float>(fact));
  return outputs;
}

/// Ids, log-probabilities, tails, what is left of the logits, facts; each with a sentinel behind it.
template <class Run>
Outputs top_k_of(const Problem& problem, const Run& run) {
  const auto rows = static_cast<size_t>(problem.num_rows), kept = static_cast<size_t>(problem.num_rows * problem.k);
  std::vector<float> logits = problem.logits(), logp(kept + 1, -7.0f), tail(rows + 1, -7.0f);
  std::vector<int64_t> id(kept + 1, -7);
  std::vector<TopFact> fact(rows);
  logits.push_back(-7.0f);
  run(TopKParams{.logits = logits.data(),
                 .num_rows = problem.num_rows,
                 .num_vocab = problem.num_vocab,
                 .k = problem.k,
                 .temperature = problem.temperature,
                 .id = id.data(),
                 .logp = logp.data(),
                 .tail = tail.data(),
                 .fact = fact.data()});
  Outputs outputs = as_outputs(id);
  append(outputs, logp);
  for (const float value : tail) outputs.push_back(std::isinf(value) ? -FLT_MAX : value);
  append(outputs, logits);
  append(outputs, as_outputs(fact));
  return outputs;
}

Outputs top_1_of(const Problem& problem) {
  const std::vector<float> logits = problem.logits();
  std::vector<int64_t> id(static_cast<size_t>(problem.num_rows));
  std::vector<TopFact> fact(static_cast<size_t>(problem.num_rows));
  REQUIRE(emulated::top_1({.logits = logits.data(),
                           .num_rows = problem.num_rows,
                           .num_vocab = problem.num_vocab,
                           .id = id.data(),
                           .fact = fact.data()},
                          nullptr) == 0);
  Outputs outputs = as_outputs(id);
  append(outputs, as_outputs(fact));
  return outputs;
}

TopFact fact_of(const float* logits, int64_t count, double largest) {
  int64_t near = 0;
  for (int64_t i = 0; i < count; ++i) near += logits[i] < largest - 1e-5 * std::fabs(largest) ? 0 : 1;
  return near == 1 ? TopFact::clear : TopFact::near_tie;
}

/// A stable sort, in double; of rows that are finite.
void top_k_reference(const TopKParams& params) {
  for (int64_t row = 0; row < params.num_rows; ++row) {
    float* const logits = params.logits + row * params.num_vocab;
    std::vector<int64_t> order(static_cast<size_t>(params.num_vocab));
    std::iota(order.begin(), order.end(), int64_t{0});
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return logits[a] > logits[b]; });
    const double largest = logits[order.front()];
    params.fact[row] = fact_of(logits, params.num_vocab, largest);
    double all = 0, tail = 0;
    for (int64_t rank = params.num_vocab - 1; rank >= 0; --rank) {
      const double under = (logits[order[static_cast<size_t>(rank)]] - largest) / params.temperature;
      const double e = under < -87.0 ? 0.0 : std::exp(under);
      all += e;
      if (rank >= params.k) tail += e;
    }
    params.tail[row] = static_cast<float>(std::log(tail) - std::log(all));
    for (int64_t rank = 0; rank < params.k; ++rank) {
      const int64_t id = order[static_cast<size_t>(rank)];
      params.id[row * params.k + rank] = id;
      params.logp[row * params.k + rank] =
          static_cast<float>((logits[id] - largest) / params.temperature - std::log(all));
      logits[id] = -FLT_MAX;
    }
  }
}

void run_kernel(const TopKParams& params) { REQUIRE(emulated::top_k(params, nullptr) == 0); }

void check(const Problem& problem) {
  CAPTURE(problem.num_vocab);
  CAPTURE(problem.k);
  CAPTURE(problem.temperature);
  const Outputs reference = top_k_of(problem, top_k_reference);
  check_every_schedule<float>([&] { return top_k_of(problem, run_kernel); }, reference);
  const auto ids = static_cast<int64_t>(problem.num_rows * problem.k);
  const Outputs on_cpu = top_k_of(problem, top_k_cpu), kernel = top_k_of(problem, run_kernel);
  CHECK(std::equal(kernel.begin(), kernel.begin() + ids, on_cpu.begin()));

  Outputs top_1;
  for (int64_t row = 0; row < problem.num_rows; ++row) top_1.push_back(reference[static_cast<size_t>(row * problem.k)]);
  top_1.insert(top_1.end(), reference.end() - problem.num_rows, reference.end());
  check_every_schedule<float>([&] { return top_1_of(problem); }, top_1);
}

}  // namespace

TEST_SUITE("kernel") {
  TEST_CASE("top_k: ids, log-probabilities and tail are those of a sort, with equal bits under every schedule") {
    for (const Problem& problem : std::initializer_list<Problem>{{1, 1, 1},
                                                                 {3, 2, 1},
                                                                 {2, 31, 31, 0.5},
                                                                 {3, 33, 5, 2.0},
                                                                 {2, 128, 16},
                                                                 {2, 300, 17, 3.0},
                                                                 {1, 2047, 100},
                                                                 {1, 4100, 600},  // more than threads
                                                                 {1, 49152, 64},
                                                                 {1, 49152, 1, 4.0},
                                                                 {1, 50257, 256}}) {
      if (kUnderRaceCheck && problem.num_vocab > 300) continue;
      check(problem);
    }
  }

  TEST_CASE("top_k: ties, sorted rows, and candidates that do not fit the list") {
    const auto equal = [](int64_t) { return 1.5f; };
    const auto tied = [](int64_t i) { return static_cast<float>(i % 5); };
    const auto zeros = [](int64_t i) { return i % 2 == 0 ? -0.0f : 0.0f; };
    const auto falling = [](int64_t i) { return -1e-3f * static_cast<float>(i); };
    // three threads of 512 have nearly all of what is large, each of the others has one large entry
    const auto crowded = [](int64_t i) {
      const int64_t thread = i / 4 % 512;
      if (thread >= 3 && thread < 6) return 5.0f + number(i, 2);
      return i < 2048 && i % 4 == 0 ? 4.0f + 0.1f * number(i, 2) : number(i, 2) - 5.0f;
    };
    // a tail of a millionth, and one of nothing at all
    const auto peaked = [](int64_t i) { return i == 7 ? 20.0f : number(i, 3); };
    const auto lonely = [](int64_t i) { return i == 7 ? 20.0f : -300.0f; };
    for (const Problem& problem : std::initializer_list<Problem>{{2, 300, 20, 1.0, equal},
                                                                 {2, 300, 100, 1.0, tied},
                                                                 {2, 60, 9, 1.0, zeros},
                                                                 {2, 300, 300, 1.0, falling},
                                                                 {1, 300, 1, 1.0, peaked},
                                                                 {1, 300, 1, 1.0, lonely},
                                                                 {1, 20000, 3000, 1.0, tied},
                                                                 {1, 20000, 30, 1.0, falling},
                                                                 {1, 400000, 500, 1.0, crowded}}) {
      if (kUnderRaceCheck && problem.num_vocab > 300) continue;
      check(problem);
    }
    CHECK(top_k_of({1, 300, 1, 1.0, lonely}, run_kernel)[4] == -FLT_MAX);
  }

  TEST_CASE("top_k: near ties and logits that are not finite, as the CPU judges them") {
    for (const int64_t vocab : {3, 5, 32, 100}) {
      const auto second = static_cast<size_t>(vocab / 2);
      std::vector<std::vector<float>> rows(11, std::vector<float>(static_cast<size_t>(vocab), -1.0f));
      for (auto& row : rows) row[0] = 8.0f;
      rows[0][second] = 8.0f;
      rows[1][second] = 8.0f - 0.9f * 8e-5f;
      rows[2][second] = 8.0f - 1.2f * 8e-5f;
      for (float& value : rows[3]) value = -8.0f;
      rows[3][second] = -7.9999f;
      for (float& value : rows[4]) value = -3.0f;
      rows[4][second] = -2.0f;
      for (float& value : rows[5]) value = 0.0f;
      rows[6][second] = kNan;
      rows[7][second] = kInfinity;
      for (float& value : rows[8]) value = -kInfinity;
      rows[9][0] = kNan;
      for (float& value : rows[10]) value = kNan;
      for (size_t row = 0; row < rows.size(); ++row) {
        CAPTURE(row);
        std::vector<float> on_cpu = rows[row], on_kernel = rows[row];
        int64_t cpu_id = 0, id = 0, id_of_k[2] = {-1, -1};
        TopFact cpu_fact{}, fact{}, fact_of_k{};
        top_1_cpu(on_cpu.data(), 1, vocab, &cpu_id, &cpu_fact);
        emulated::top_1({.logits = on_kernel.data(), .num_rows = 1, .num_vocab = vocab, .id = &id, .fact = &fact},
                        nullptr);
        float logp[2], tail = 0;
        emulated::top_k({.logits = on_kernel.data(),
                         .num_rows = 1,
                         .num_vocab = vocab,
                         .k = 2,
                         .id = id_of_k,
                         .logp = logp,
                         .tail = &tail,
                         .fact = &fact_of_k},
                        nullptr);
        CHECK((fact == cpu_fact));
        CHECK((fact_of_k == cpu_fact));
        for (const int64_t any : {id, id_of_k[0], id_of_k[1]}) CHECK((any >= 0 && any < vocab));
        if (cpu_fact != TopFact::not_finite) CHECK(id == cpu_id);
        if (row == 6 || row == 9) CHECK((std::isnan(logp[0]) && std::isnan(tail)));  // it does not get lost
      }
    }
  }

  TEST_CASE("top_k: bytes of a row") {
    // each of the k ids is in another thread, which then has every 512th group of the row
    constexpr int64_t kRows = 2, kVocab = kUnderRaceCheck ? 256 : 8192, kIds = 20;
    constexpr int64_t kThreads = std::min<int64_t>(kVocab / 4, kTopKThreads), kOfThread = 4 * kVocab / kThreads;
    const Problem problem{kRows, kVocab, kIds, 1.0, [](int64_t i) {
                            return i % kVocab % 4 == 0 && i % kVocab < 4 * kIds ? 20.0f : 2.0f * number(i, 1);
                          }};
    executor::reset_counts();
    top_k_of(problem, run_kernel);
    CHECK(executor::counts().launches == 1);
    CHECK(executor::counts().bytes_loaded == kRows * (4 * kVocab + 3 * kIds * kOfThread + 4 * kIds));
    CHECK(executor::counts().bytes_stored == kRows * (20 * kIds + 5));
    for (const int64_t vocab : {kVocab, kVocab + 1}) {
      check_table_bytes(Kernel::top_1_rows, {.rows = kRows, .vocab_size = vocab}, [&] { top_1_of({kRows, vocab, 1}); });
      CHECK(executor::counts().launches == 1);
    }
  }

#ifndef COPPICE_RACE_CHECK  // too wide for it
  TEST_CASE("top_k: offsets beyond 32 bits") {
    constexpr int64_t kRows = 50'000, kVocab = 49'152, kIds = 4;
    static_assert(kRows * kVocab > int64_t{1} << 31);
    const Problem problem{1, kVocab, kIds};
    const LastRow<float> logits(kRows, kVocab);
    logits.write_row(problem.logits());
    std::vector<int64_t> id(kRows * kIds, -1), top_1(kRows, -1);
    std::vector<float> logp(kRows * kIds), tail(kRows);
    std::vector<TopFact> fact(kRows, TopFact::not_finite);
    executor::run_only_last_block(true);
    emulated::top_1({.logits = logits.data(), .num_rows = kRows, .num_vocab = kVocab, .id = top_1.data()}, nullptr);
    emulated::top_k({.logits = logits.data(),
                     .num_rows = kRows,
                     .num_vocab = kVocab,
                     .k = kIds,
                     .id = id.data(),
                     .logp = logp.data(),
                     .tail = tail.data(),
                     .fact = fact.data()},
                    nullptr);
    executor::run_only_last_block(false);
    const Outputs alone = top_k_of(problem, run_kernel);
    for (int64_t i = 0; i < kIds; ++i) {
      CHECK(static_cast<float>(id[static_cast<size_t>((kRows - 1) * kIds + i)]) == alone[static_cast<size_t>(i)]);
      CHECK(logp[static_cast<size_t>((kRows - 1) * kIds + i)] == alone[static_cast<size_t>(kIds + 1 + i)]);
    }
    CHECK(tail.back() == alone[2 * (kIds + 1)]);
    CHECK((fact.back() == TopFact::clear));
    CHECK(static_cast<float>(top_1.back()) == alone[0]);
    CHECK(top_1.front() == -1);
  }
#endif
}
