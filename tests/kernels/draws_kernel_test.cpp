#include "src/tensors/kernels/draws.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <functional>

#include "tests/executor/outputs.h"
#include "tests/kernels/every_schedule.h"
#include "tests/kernels/last_row.h"
#include "tests/kernels/table_bytes.h"

using namespace coppice;

namespace {

struct Problem {
  int64_t num_rows;
  int64_t num_vocab;
  int64_t num_draws;
  double temperature = 1.0;
  std::function<float(int64_t i)> logit = [](int64_t i) { return 6.0f * number(i, 1); };
  std::function<double(int64_t i)> number_of = [](int64_t i) {
    return (double{number(i, 2)} + 1.0) / 2.0 * (1 - 0x1p-30);
  };
  double proposal_temperature = 0;  // 0: plain draws, without weights

  bool weighted() const { return proposal_temperature > 0; }
  double temperature_of_draws() const { return weighted() ? temperature * proposal_temperature : temperature; }
  std::vector<float> logits() const { return values_of(num_rows * num_vocab, logit); }
  std::vector<double> uniform() const { return values_of(num_rows * num_draws, number_of); }
};

/// The ids, with a sentinel behind them, the facts, and the weights where there are some.
template <class Run>
Outputs draw(const Problem& problem, const Run& run) {
  std::vector<float> logits = problem.logits();
  const std::vector<double> uniform = problem.uniform();
  std::vector<int64_t> id(static_cast<size_t>(problem.num_rows * problem.num_draws) + 1, -7);
  std::vector<TopFact> fact(static_cast<size_t>(problem.num_rows));
  std::vector<float> log_weight(problem.weighted() ? id.size() - 1 : 0);
  run(DrawParams{.logits = logits.data(),
                 .num_rows = problem.num_rows,
                 .num_vocab = problem.num_vocab,
                 .num_draws = problem.num_draws,
                 .temperature = problem.temperature,
                 .proposal_temperature = problem.weighted() ? problem.proposal_temperature : 1,
                 .uniform = uniform.data(),
                 .id = id.data(),
                 .log_weight = problem.weighted() ? log_weight.data() : nullptr,
                 .fact = fact.data()});
  Outputs outputs(id.begin(), id.end());
  for (const TopFact of_row : fact) outputs.push_back(static_cast<float>(of_row));
  outputs.insert(outputs.end(), log_weight.begin(), log_weight.end());
  return outputs;
}
void run_kernel(const DrawParams& params) { REQUIRE(emulated::draw_ids(params, nullptr) == 0); }

/// The log-probabilities of a row in double.
std::vector<double> log_shares(const Problem& problem, int64_t row, double temperature) {
  const std::vector<float> logits = problem.logits();
  const auto begin = logits.begin() + row * problem.num_vocab;
  const double largest = *std::max_element(begin, begin + problem.num_vocab);
  double sum = 0;
  for (int64_t v = 0; v < problem.num_vocab; ++v) sum += std::exp((double{begin[v]} - largest) / temperature);
  std::vector<double> log_share;
  for (int64_t v = 0; v < problem.num_vocab; ++v)
    log_share.push_back((double{begin[v]} - largest) / temperature - std::log(sum));
  return log_share;
}

/// The distribution function of a row in double: share of ids up to each.
std::vector<double> shares_upto(const Problem& problem, int64_t row) {
  std::vector<double> upto;
  double sum = 0;
  for (const double log_share : log_shares(problem, row, problem.temperature_of_draws()))
    upto.push_back(sum += std::exp(log_share));
  return upto;
}

constexpr double kRounding = 1e-6;  // of a share: what exponentials in float leave

/// Each draw is the id that the distribution function in double says, or, within rounding of a boundary, one beside it.
/// Returns how many lie so near.
int64_t check_draws(const Problem& problem, const Outputs& ids) {
  const std::vector<double> uniform = problem.uniform();
  int64_t near = 0;
  for (int64_t row = 0; row < problem.num_rows; ++row) {
    const std::vector<double> upto = shares_upto(problem, row);
    for (int64_t i = row * problem.num_draws; i < (row + 1) * problem.num_draws; ++i) {
      const double number = uniform[static_cast<size_t>(i)];
      const auto id_of = [&](double share) {
        return std::upper_bound(upto.begin(), upto.end() - 1, share) - upto.begin();
      };
      const auto lowest = id_of(number - kRounding), highest = id_of(number + kRounding);
      const auto id = static_cast<int64_t>(ids[static_cast<size_t>(i)]);
      CHECK((id >= lowest && id <= highest));
      near += lowest != highest;
    }
  }
  return near;
}

}  // namespace

TEST_SUITE("kernel") {
  TEST_CASE("draw_ids: the first id whose share exceeds the number, with equal bits under every schedule") {
    for (const Problem& problem : std::initializer_list<Problem>{{1, 1, 3},
                                                                 {2, 2, 5},
                                                                 {3, 31, 9},
                                                                 {2, 127, 9, 0.5},
                                                                 {2, 128, 9},
                                                                 {2, 129, 9, 3.0},
                                                                 {2, 300, 40},
                                                                 {1, 4097, 33},
                                                                 {1, 49152, 50},
                                                                 {1, 50257, 16, 2.0},
                                                                 {1, 300000, 5}}) {
      if (kUnderRaceCheck && problem.num_vocab > 300) continue;
      CAPTURE(problem.num_vocab);
      const Outputs ids = draw(problem, run_kernel), on_cpu = draw(problem, draw_ids_cpu);
      check_every_schedule<float>([&] { return draw(problem, run_kernel); }, ids);
      check_draws(problem, ids);
      check_draws(problem, on_cpu);
      CHECK(std::equal(ids.end() - problem.num_rows, ids.end(), on_cpu.end() - problem.num_rows));  // facts
    }
  }

  TEST_CASE("draw_ids: at a proposal's temperature a draw weighs what its probability is of the proposal's") {
    for (Problem problem : std::initializer_list<Problem>{
             {1, 1, 3}, {3, 31, 9}, {2, 129, 40, 0.5}, {2, 300, 40, 2.0}, {1, 4097, 33}, {1, 49152, 50, 0.3}})
      for (const double proposal_temperature : {1.0, 1.1, 3.0}) {
        if (kUnderRaceCheck && problem.num_vocab > 300) continue;
        CAPTURE(problem.num_vocab);
        CAPTURE(proposal_temperature);
        problem.proposal_temperature = proposal_temperature;
        const Outputs ids = draw(problem, run_kernel), on_cpu = draw(problem, draw_ids_cpu);
        check_every_schedule<float>([&] { return draw(problem, run_kernel); }, ids);
        const auto count = static_cast<size_t>(problem.num_rows * problem.num_draws);
        for (const Outputs& drawn : {ids, on_cpu}) check_draws(problem, drawn);
        for (int64_t row = 0; row < problem.num_rows; ++row) {
          const std::vector<double> log_q = log_shares(problem, row, problem.temperature),
                                    log_r = log_shares(problem, row, problem.temperature_of_draws());
          for (const Outputs& drawn : {ids, on_cpu})
            for (int64_t i = row * problem.num_draws; i < (row + 1) * problem.num_draws; ++i) {
              const auto id = static_cast<size_t>(drawn[static_cast<size_t>(i)]);
              CHECK(drawn[drawn.size() - count + static_cast<size_t>(i)] ==
                    doctest::Approx(log_q[id] - log_r[id]).epsilon(2e-5));
            }
        }
        if (proposal_temperature > 1) continue;  // at 1 they are the plain ones
        Problem plain = problem;
        plain.proposal_temperature = 0;
        const Outputs of_plain = draw(plain, run_kernel);
        CHECK(std::equal(of_plain.begin(), of_plain.end(), ids.begin()));
      }
  }

#ifndef COPPICE_RACE_CHECK  // too wide for it
  TEST_CASE("draw_ids: only a draw within rounding of a boundary may be another id than on the CPU") {
    // half of the numbers are boundaries themselves, as exactly as a double tells
    const Problem plain{2, 1000, 400, 0.7};
    Problem problem = plain;
    const std::vector<double> upto[] = {shares_upto(plain, 0), shares_upto(plain, 1)};
    problem.number_of = [&](int64_t i) {
      return i % 2 == 0 ? upto[i / 400][static_cast<size_t>(i % 400)] : plain.number_of(i);
    };
    const Outputs ids = draw(problem, run_kernel), on_cpu = draw(problem, draw_ids_cpu);
    const int64_t near = check_draws(problem, ids);
    CHECK(near >= 400);
    CHECK(near < 410);
    int64_t others = 0;
    for (size_t i = 0; i < 800; ++i) others += ids[i] != on_cpu[i];
    CHECK(others <= near);
  }
#endif

  TEST_CASE("draw_ids: the ends of the range, ids without probability, rows that are not finite") {
    const auto ends = [](int64_t i) { return i % 2 == 0 ? 0.0 : 1 - 0x1p-53; };
    // of 600 ids only 130, 131 and 400 have anything, as the CPU counts; id 129 is 88 below the largest
    const auto sparse = [](int64_t i) {
      i %= 600;
      return i == 129 ? -82.0f : i == 130 ? 5.0f : i == 131 ? 6.0f : i == 400 ? -80.0f : -200.0f;
    };
    const Outputs ids = draw({2, 600, 2, 1.0, sparse, ends}, run_kernel);
    CHECK(ids == Outputs{130, 131, 130, 131, -7, 0, 0});
    CHECK(ids == draw({2, 600, 2, 1.0, sparse, ends}, draw_ids_cpu));
    // rows that a choice of k ids has left, and all of them
    const auto set_aside = [](int64_t i) { return i % 300 == 9 ? 3.0f : -std::numeric_limits<float>::max(); };
    CHECK(draw({1, 300, 2, 1.0, set_aside, ends}, run_kernel) == Outputs{9, 9, -7, 0});
    for (const float value : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                              -std::numeric_limits<float>::infinity()}) {
      const auto broken = [value](int64_t i) { return i == 17 || std::isinf(value) ? value : number(i, 1); };
      const Outputs drawn = draw({1, 300, 2, 1.0, broken, ends}, run_kernel);
      for (const size_t i : {0, 1}) CHECK((drawn[i] >= 0.0f && drawn[i] < 300.0f));
      CHECK(drawn.back() == static_cast<float>(TopFact::not_finite));
    }
  }

#ifndef COPPICE_RACE_CHECK  // too wide for it
  TEST_CASE("draw_ids: no number, however near to a boundary, draws an id without probability") {
    // Of 160 tiles of 128 ids every fifth, the last of a lane's share of the sums, has something, and in it every
    // seventh id. Shares grow by e^60 over the row, with up to e^24 between neighbours, so that numbers are as fine as
    // the sums that they are held against, of which hardly any is exact. For each id that has something, the first
    // number that draws an id behind it, to the last bit of a double; ids ascend with numbers.
    constexpr int64_t kVocab = 160 * 128 - 17;
    const auto has_some = [](int64_t v) { return v / 128 % 5 == 4 && v % 7 == 3; };
    const auto logit = [&](int64_t v) {
      return has_some(v) ? 60.0f * static_cast<float>(v) / kVocab + 12.0f * number(v, 1) : -200.0f;
    };
    std::vector<int64_t> ids;
    for (int64_t v = 0; v < kVocab; ++v)
      if (has_some(v)) ids.push_back(v);
    const auto draws = static_cast<int64_t>(ids.size());
    for (const auto run : {+run_kernel, draw_ids_cpu}) {
      std::vector<uint64_t> low(ids.size(), 0), high(ids.size(), std::bit_cast<uint64_t>(1 - 0x1p-53));  // of doubles
      int64_t without = 0, descents = 0;
      for (int step = 0; step < 63; ++step) {
        const auto middle = [&](int64_t i) {
          const auto draw = static_cast<size_t>(i);
          return std::bit_cast<double>(low[draw] + (high[draw] - low[draw]) / 2);
        };
        const Outputs drawn = draw({1, kVocab, draws, 1.0, logit, middle}, run);
        for (size_t i = 0; i < ids.size(); ++i) {
          without += !has_some(static_cast<int64_t>(drawn[i]));
          descents += i > 0 && middle(static_cast<int64_t>(i)) >= middle(static_cast<int64_t>(i) - 1) &&
                      drawn[i] < drawn[i - 1];
        }
        for (size_t i = 0; i < ids.size(); ++i) {
          const uint64_t at = low[i] + (high[i] - low[i]) / 2;
          if (static_cast<int64_t>(drawn[i]) > ids[i])
            high[i] = at;
          else
            low[i] = at;
        }
      }
      CHECK(without == 0);
      CHECK(descents == 0);
    }
  }
#endif

  TEST_CASE("draw_ids: bytes of a row") {
    constexpr int64_t kRows = 2, kVocab = kUnderRaceCheck ? 256 : 8192, kDraws = 12;
    check_table_bytes(Kernel::draw_rows, {.rows = kRows, .vocab_size = kVocab, .ids = kDraws}, [] {
      draw({kRows, kVocab, kDraws}, run_kernel);
    });
    CHECK(executor::counts().launches == 1);
    Problem weighted{kRows, kVocab, kDraws};
    weighted.proposal_temperature = 1.2;
    check_table_bytes(Kernel::weighted_draw_rows, {.rows = kRows, .vocab_size = kVocab, .ids = kDraws},
                      [&] { draw(weighted, run_kernel); });
  }

#ifndef COPPICE_RACE_CHECK  // too wide for it
  TEST_CASE("draw_ids: offsets beyond 32 bits") {
    constexpr int64_t kRows = 50'000, kVocab = 49'152, kDraws = 3;
    static_assert(kRows * kVocab > int64_t{1} << 31);
    const Problem problem{1, kVocab, kDraws};
    const LastRow<float> logits(kRows, kVocab);
    logits.write_row(problem.logits());
    std::vector<double> uniform(kRows * kDraws);
    const std::vector<double> numbers = problem.uniform();
    std::copy(numbers.begin(), numbers.end(), uniform.end() - kDraws);
    std::vector<int64_t> id(kRows * kDraws, -1);
    executor::run_only_last_block(true);
    emulated::draw_ids({.logits = logits.data(),
                        .num_rows = kRows,
                        .num_vocab = kVocab,
                        .num_draws = kDraws,
                        .uniform = uniform.data(),
                        .id = id.data()},
                       nullptr);
    executor::run_only_last_block(false);
    const Outputs alone = draw(problem, run_kernel);
    for (size_t i = 0; i < kDraws; ++i) CHECK(static_cast<float>(id[(kRows - 1) * kDraws + i]) == alone[i]);
    CHECK(id.front() == -1);
  }
#endif
}
