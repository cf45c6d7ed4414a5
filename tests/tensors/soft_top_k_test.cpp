// Soft-Top-K: golden values (tests/golden/soft_top_k.json, made by make_vectors.py), the sorted double reference as
// oracle of the quick path, edges.
#include "src/tensors/kernels/soft_top_k.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>
#include <vector>

#include "src/base/errors.h"
#include "src/tensors/ops.h"
#include "tests/tensors/placements.h"

using namespace coppice;
using nlohmann::json;

namespace {

using Doubles = std::vector<double>;

json read_golden() { return json::parse(std::ifstream(COPPICE_SOURCE_DIR "/tests/golden/soft_top_k.json")); }

/// The generator that the golden file describes.
struct Lcg {
  uint64_t state;
  double uniform() {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    return static_cast<double>(state >> 11) * 0x1p-53;
  }
  double bell() {
    const double u1 = uniform(), u2 = uniform(), u3 = uniform(), u4 = uniform();
    return ((u1 + u2) + (u3 + u4) - 2.0) * 1.7320508075688772;
  }
};

Doubles bells(Lcg& lcg, int64_t n, double scale) {
  Doubles values(n);
  for (double& value : values) value = scale * lcg.bell();
  return values;
}

/// Largest |a - b| / max(1, |b|); infinite where either side is NaN or the sizes differ.
double error(const Doubles& got, const Doubles& wanted) {
  if (got.size() != wanted.size()) return std::numeric_limits<double>::infinity();
  double worst = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double distance = std::abs(got[i] - wanted[i]) / std::max(1.0, std::abs(wanted[i]));
    if (!(distance <= worst)) worst = std::isnan(distance) ? std::numeric_limits<double>::infinity() : distance;
  }
  return worst;
}

double sum(const Doubles& values) { return std::accumulate(values.begin(), values.end(), 0.0L); }

/// The best `count` by (score, then lower index), ascending.
template <class Score>
std::vector<int64_t> kept(const std::vector<Score>& scores, int64_t count) {
  std::vector<int64_t> order(scores.size());
  std::iota(order.begin(), order.end(), int64_t{0});
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return scores[a] > scores[b]; });
  order.resize(count);
  std::sort(order.begin(), order.end());
  return order;
}

/// The quick path over one row, backward included.
struct QuickRow {
  std::vector<float> soft_mask, free_mask, scores_grad;
  int64_t num_saturated = 0;
  int64_t bad_row = -1;
};
QuickRow solve_quick(const std::vector<float>& scores, const std::vector<float>& grad, double k, double epsilon) {
  const auto n = static_cast<int64_t>(scores.size());
  QuickRow row{.soft_mask = std::vector<float>(n, -7.0f),
               .free_mask = std::vector<float>(n, -7.0f),
               .scores_grad = std::vector<float>(n, -7.0f)};
  row.bad_row = soft_top_k_cpu({.scores = scores.data(),
                                .soft_mask = row.soft_mask.data(),
                                .free_mask = row.free_mask.data(),
                                .num_rows = 1,
                                .num_channels = n,
                                .scores_row_stride = n,
                                .k = k,
                                .epsilon = epsilon});
  for (int64_t i = 0; i < n; ++i) row.num_saturated += row.soft_mask[i] == 1.0f && row.free_mask[i] == 0.0f;
  if (grad.empty()) return row;
  soft_top_k_backward_cpu({.free_mask = row.free_mask.data(),
                           .soft_mask_grad = grad.data(),
                           .scores_grad = row.scores_grad.data(),
                           .num_rows = 1,
                           .num_channels = n,
                           .epsilon = epsilon});
  return row;
}

std::vector<float> to_float(const Doubles& values) { return {values.begin(), values.end()}; }
Doubles to_double(const std::vector<float>& values) { return {values.begin(), values.end()}; }

double largest_magnitude(const Doubles& values) {
  double largest = 0;
  for (const double value : values) largest = std::max(largest, std::abs(value));
  return largest;
}

std::vector<float> random_scores(int64_t n, double scale, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> scores(n);
  for (float& score : scores) score = static_cast<float>(scale) * normal(generator);
  return scores;
}

/// Quick path against the reference on the very same float scores: lambda, sum, saturation, gradient.
void check_against_reference(const std::vector<float>& scores, double k, double epsilon) {
  CAPTURE(scores.size());
  CAPTURE(k);
  CAPTURE(epsilon);
  const std::vector<float> grad = random_scores(static_cast<int64_t>(scores.size()), 1.0, 77);
  const SoftTopKSolution wanted = soft_top_k_reference(to_double(scores), k, epsilon);
  const QuickRow got = solve_quick(scores, grad, k, epsilon);
  CHECK(got.bad_row == -1);
  CHECK(error(to_double(got.soft_mask), wanted.soft_mask) <= 5e-7);
  CHECK(std::abs(sum(to_double(got.soft_mask)) - k) <= 3e-7 * k);  // 1e-6 is promised
  const Doubles slope = soft_top_k_backward_reference(wanted, to_double(grad), epsilon);
  double worst = 0;  // lambda / epsilon is the slope of one entry: the gradient is as good as lambda is
  for (size_t i = 0; i < slope.size(); ++i) worst = std::max(worst, std::abs(got.scores_grad[i] - slope[i]));
  CHECK(worst <= 2e-6 * largest_magnitude(to_double(grad)) / epsilon);
}

void check_op(const OpPlacement& on) {
  if (on.compute == at::kBFloat16) {  // a run in bfloat16 has its scores in float32
    CHECK_THROWS_AS(soft_top_k(at::zeros({2, 3}, at::TensorOptions(on.device).dtype(on.compute)), 1, 0.1),
                    InternalError);
    return;
  }
  const at::Tensor given = at::randn({2, 300}), weight = at::randn({2, 300});
  const at::Tensor scores = given.to(on.device, false, /*copy=*/true).requires_grad_();
  const at::Tensor mask = soft_top_k(scores, 100, 0.1);
  (mask * weight.to(on.device)).sum().backward();
  for (int64_t row = 0; row < 2; ++row) {
    const auto as_doubles = [&](const at::Tensor& all) {
      const at::Tensor line = all.detach()[row].cpu().to(at::kDouble).contiguous();
      return Doubles(line.data_ptr<double>(), line.data_ptr<double>() + 300);
    };
    const SoftTopKSolution solution = soft_top_k_reference(as_doubles(given), 100, 0.1);
    CHECK(error(as_doubles(mask), solution.soft_mask) <= 2e-6);
    const Doubles wanted = soft_top_k_backward_reference(solution, as_doubles(weight), 0.1);
    CHECK(error(as_doubles(scores.grad()), wanted) <= 2e-6 * largest_magnitude(wanted));
    CHECK(std::abs(sum(as_doubles(scores.grad()))) <= 1e-5 * largest_magnitude(wanted));
  }
  CHECK(!soft_top_k(scores.detach(), 100, 0.1).requires_grad());
  CHECK(at::equal(soft_top_k(scores.detach().t().contiguous().t(), 100, 0.1), mask));
  at::Tensor spoilt = scores.detach().clone();
  spoilt[1].narrow(0, 7, 2).fill_(std::numeric_limits<float>::quiet_NaN());
  if (on.device.is_cpu())
    CHECK_THROWS_WITH_AS(soft_top_k(spoilt, 100, 0.1), doctest::Contains("row 1: 2 of 300 scores are not finite"),
                         DivergedError);
  else
    CHECK(soft_top_k(spoilt, 100, 0.1)[1].isnan().all().item<bool>());
}

}  // namespace

TEST_SUITE("golden") {
  TEST_CASE("soft_top_k: explicit cases") {
    const json golden = read_golden();
    const double tolerance = golden["tolerance"]["double"], float_tolerance = golden["tolerance"]["float32_lambda"];
    CHECK(golden["explicit"].size() == 18);
    for (const json& c : golden["explicit"]) {
      CAPTURE(c["name"].get<std::string>());
      const auto scores = c["s"].get<Doubles>(), grad = c["g"].get<Doubles>(), lambda = c["lambda"].get<Doubles>(),
                 ds = c["ds"].get<Doubles>();
      const double k = c["k"], epsilon = c["eps"];
      const SoftTopKSolution solution = soft_top_k_reference(scores, k, epsilon);
      CHECK(error(solution.soft_mask, lambda) <= tolerance);
      CHECK(solution.num_saturated == c["saturated"]);
      if (c["a"].is_null())
        CHECK(std::isnan(solution.threshold));
      else
        CHECK(error({-solution.threshold}, {c["a"].get<double>()}) <= tolerance);
      CHECK(error(soft_top_k_backward_reference(solution, grad, epsilon), ds) <= tolerance);
      CHECK(kept(scores, static_cast<int64_t>(k)) == c["kept"].get<std::vector<int64_t>>());

      const QuickRow quick = solve_quick(to_float(scores), to_float(grad), k, epsilon);
      CHECK(error(to_double(quick.soft_mask), lambda) <= float_tolerance);
      CHECK(quick.num_saturated == c["saturated"]);
      CHECK(error(to_double(quick.scores_grad), ds) <= 5e-6 * largest_magnitude(grad) / epsilon);
    }
  }

  TEST_CASE("soft_top_k: generated cases") {
    const json golden = read_golden();
    const double tolerance = golden["tolerance"]["double"], float_tolerance = golden["tolerance"]["float32_lambda"];
    CHECK(golden["generated"].size() == 9);
    for (const json& c : golden["generated"]) {
      CAPTURE(c["name"].get<std::string>());
      Lcg lcg{c["seed"].get<uint64_t>()};
      const int64_t n = c["n"];
      const double k = c["k"], epsilon = c["eps"], scale = c["scale"];
      const Doubles scores = bells(lcg, n, scale), grad = bells(lcg, n, 1.0);
      CHECK(Doubles(scores.begin(), scores.begin() + 3) == c["s_first"].get<Doubles>());
      CHECK(Doubles(grad.begin(), grad.begin() + 3) == c["g_first"].get<Doubles>());
      CHECK(sum(scores) == doctest::Approx(c["s_sum"].get<double>()).epsilon(1e-12));
      CHECK(sum(grad) == doctest::Approx(c["g_sum"].get<double>()).epsilon(1e-12));

      const auto probe = c["probe"].get<std::vector<int64_t>>();
      const auto probe_lambda = c["probe_lambda"].get<Doubles>(), probe_ds = c["probe_ds"].get<Doubles>();
      const auto at_probes = [&](const Doubles& values) {
        Doubles picked;
        for (const int64_t i : probe) picked.push_back(values[i]);
        return picked;
      };
      const SoftTopKSolution solution = soft_top_k_reference(scores, k, epsilon);
      CHECK(error(at_probes(solution.soft_mask), probe_lambda) <= tolerance);
      double square_sum = 0, index_sum = 0, kept_index_sum = 0;
      for (int64_t i = 0; i < n; ++i) {
        square_sum += solution.soft_mask[i] * solution.soft_mask[i];
        index_sum += static_cast<double>(i + 1) * solution.soft_mask[i];
      }
      for (const int64_t i : kept(scores, static_cast<int64_t>(k))) kept_index_sum += static_cast<double>(i + 1);
      CHECK(error({square_sum, index_sum}, {c["lambda_square_sum"], c["lambda_index_sum"]}) <= tolerance);
      CHECK(kept_index_sum == c["kept_index_sum"]);
      if (c["seed"] == 9) continue;  // compares lambda and kept only: scores of 1e6 at epsilon 0.002
      CHECK(solution.num_saturated == c["saturated"]);
      CHECK(error({-solution.threshold}, {c["a"].get<double>()}) <= tolerance);
      const Doubles ds = soft_top_k_backward_reference(solution, grad, epsilon);
      CHECK(error(at_probes(ds), probe_ds) <= tolerance);
      double abs_sum = 0, ds_square_sum = 0;
      for (const double d : ds) abs_sum += std::abs(d), ds_square_sum += d * d;
      CHECK(error({abs_sum, ds_square_sum}, {c["ds_abs_sum"], c["ds_square_sum"]}) <= tolerance);

      // float32: lambda within its tolerance and what rounding the scores to float does to it, |d lambda| <= lambda |d
      // s| / epsilon twice (entry, threshold).
      const QuickRow quick = solve_quick(to_float(scores), to_float(grad), k, epsilon);
      double moved = 0;
      for (const double score : scores)
        moved = std::max(moved, std::abs(static_cast<double>(static_cast<float>(score)) - score));
      const Doubles quick_lambda = to_double(quick.soft_mask);
      CHECK(error(at_probes(quick_lambda), probe_lambda) <= float_tolerance + 2.0 * moved / epsilon);
      CHECK(quick.num_saturated == c["saturated"]);
      CHECK(std::abs(sum(quick_lambda) - k) <= 1e-6 * k);
      CHECK(error(to_double(quick.soft_mask),
                  soft_top_k_reference(to_double(to_float(scores)), k, epsilon).soft_mask) <= float_tolerance);
    }
  }

  TEST_CASE("soft_top_k: scores of 1e6 at epsilon 0.002 in float32") {
    const json golden = read_golden();
    const json& c = golden["generated"][8];
    REQUIRE(c["seed"] == 9);
    Lcg lcg{9};
    const std::vector<float> scores = to_float(bells(lcg, c["n"], c["scale"]));
    const QuickRow quick = solve_quick(scores, {}, c["k"], c["eps"]);
    const auto probe = c["probe"].get<std::vector<int64_t>>();
    const auto probe_lambda = c["probe_lambda"].get<Doubles>();
    for (size_t i = 0; i < probe.size(); ++i)
      CHECK(quick.soft_mask[probe[i]] == doctest::Approx(probe_lambda[i]).epsilon(2e-6));
    double kept_index_sum = 0;
    for (const int64_t i : kept(scores, c["k"])) kept_index_sum += static_cast<double>(i + 1);
    CHECK(kept_index_sum == c["kept_index_sum"]);
  }

  TEST_CASE("soft_top_k: of standardised scores, through the op and autograd") {
    const json golden = read_golden();
    CHECK(golden["standardised"]["cases"].size() == 3);
    for (const json& c : golden["standardised"]["cases"]) {
      const auto raw = c["raw"].get<Doubles>(), grad = c["g"].get<Doubles>(), d_raw = c["d_raw"].get<Doubles>();
      const auto n = static_cast<int64_t>(raw.size());
      at::Tensor raw_LF = at::tensor(raw, at::kDouble).reshape({1, n}).set_requires_grad(true);
      const at::Tensor centred = raw_LF - raw_LF.mean(1, true);
      const at::Tensor scores = centred / (centred.square().mean(1, true).sqrt() + 1e-6);
      const at::Tensor soft_mask = soft_top_k(scores.to(at::kFloat), c["k"], c["eps"]);
      (soft_mask.to(at::kDouble) * at::tensor(grad, at::kDouble)).sum().backward();
      const auto as_vector = [&](const at::Tensor& row) {
        return Doubles(row.data_ptr<double>(), row.data_ptr<double>() + n);
      };
      CHECK(error(as_vector(scores.detach().contiguous()), c["s"].get<Doubles>()) <= 1e-12);
      CHECK(error(as_vector(soft_mask.detach().to(at::kDouble)), c["lambda"].get<Doubles>()) <= 2e-6);
      CHECK(error(as_vector(raw_LF.grad()), d_raw) <= 1e-5 * std::max(1.0, largest_magnitude(d_raw)));
    }
  }
}

TEST_SUITE("parity") {
  TEST_CASE("soft_top_k: the quick path agrees with the sorted reference") {
    uint32_t seed = 1;
    for (const int64_t n : {1, 2, 15, 16, 17, 31, 32, 33, 257, 511, 513, 4096, 24576})
      for (const double epsilon : {10.0, 1.0, 0.1, 0.05, 0.02, 0.002})
        for (const double share : {0.001, 1.0 / 3.0, 0.5, 0.77, 0.999}) {
          const double k = std::max(0.5, share * static_cast<double>(n));
          const std::vector<float> scores = random_scores(n, 1.0, seed++);
          check_against_reference(scores, k, epsilon);
          if (n > 1) check_against_reference(scores, std::max(1.0, std::floor(k)), epsilon);
        }
  }

  TEST_CASE("soft_top_k: skewed, clustered and equal scores") {
    std::vector<float> scores = random_scores(2000, 1.0, 5);
    for (size_t i = 0; i < scores.size(); ++i) scores[i] = std::exp(3.0f * scores[i]);  // a long tail
    for (const double k : {1.0, 10.0, 700.0, 1999.0}) check_against_reference(scores, k, 0.5);
    for (size_t i = 0; i < scores.size(); ++i) scores[i] = static_cast<float>(i % 7);  // large ties
    for (const double k : {1.0, 300.0, 1000.0, 1999.5}) check_against_reference(scores, k, 0.01);
    std::fill(scores.begin(), scores.end(), 0.25f);
    for (const double k : {1e-3, 1.0, 666.0, 1999.0}) check_against_reference(scores, k, 0.002);
    scores[17] = 1e38f;  // the bisection has a wide way to go
    scores[18] = -1e38f;
    for (const double k : {1.0, 2.0, 666.0, 1999.0}) check_against_reference(scores, k, 0.002);
    std::vector<float> alone(
        100000, 0.0f);  // one entry far above the ceil(k)-th that still does not saturate: t is 11.2 epsilon above it
    alone[99] = 11.0f;
    check_against_reference(alone, 1.5, 1.0);
    std::vector<float> geometric(120);  // each entry on its own scale: the longest way for Newton
    for (size_t i = 0; i < geometric.size(); ++i) geometric[i] = -0.7f * static_cast<float>(i);
    for (const double k : {1.0, 40.0, 80.5, 119.0}) check_against_reference(geometric, k, 0.3);
  }
}

TEST_SUITE("unit") {
  TEST_CASE("soft_top_k: sums to k, lies in [0, 1], keeps the order of scores") {
    for (uint32_t seed = 100; seed < 120; ++seed) {
      const std::vector<float> scores = random_scores(777, seed % 2 ? 1.0 : 30.0, seed);
      for (const double k : {1.0, 77.7, 259.0, 776.0}) {
        const QuickRow row = solve_quick(scores, {}, k, 0.3);
        CHECK(std::abs(sum(to_double(row.soft_mask)) - k) <= 1e-6 * k);
        for (size_t i = 0; i < scores.size(); ++i) {
          CHECK((row.soft_mask[i] >= 0.0f && row.soft_mask[i] <= 1.0f));
          if (i > 0 && scores[i] > scores[i - 1]) CHECK(row.soft_mask[i] >= row.soft_mask[i - 1]);
          if (i > 0 && scores[i] < scores[i - 1]) CHECK(row.soft_mask[i] <= row.soft_mask[i - 1]);
        }
      }
    }
  }

  TEST_CASE("soft_top_k: a value worked out by hand") {
    // k = 1, epsilon = 1: the softmax of (ln 1, ln 2, ln 5) is (1, 2, 5) / 8.
    const QuickRow row = solve_quick({0.0f, std::log(2.0f), std::log(5.0f)}, {}, 1.0, 1.0);
    CHECK(row.soft_mask[0] == doctest::Approx(0.125).epsilon(1e-6));
    CHECK(row.soft_mask[1] == doctest::Approx(0.25).epsilon(1e-6));
    CHECK(row.soft_mask[2] == doctest::Approx(0.625).epsilon(1e-6));
    // k = 2: the third saturates, the others share the remaining 1 as 1 : 2.
    const QuickRow two = solve_quick({0.0f, std::log(2.0f), std::log(50.0f)}, {}, 2.0, 1.0);
    CHECK(two.soft_mask[0] == doctest::Approx(1.0 / 3.0).epsilon(1e-6));
    CHECK(two.soft_mask[1] == doctest::Approx(2.0 / 3.0).epsilon(1e-6));
    CHECK(two.soft_mask[2] == 1.0f);
    CHECK(two.num_saturated == 1);
  }

  TEST_CASE("soft_top_k: scores so large that no threshold in double is near enough") {
    // two equal scores share k = 1.5; t = 1e17 + ln(4/3) rounds to 1e17, where both would be 1
    const QuickRow row = solve_quick({1e17f, 0.0f, 1e17f}, {1.0f, 0.0f, -1.0f}, 1.5, 1.0);
    CHECK(row.soft_mask[0] == 0.75f);
    CHECK(row.soft_mask[1] == 0.0f);
    CHECK(row.soft_mask[2] == 0.75f);
    CHECK(row.num_saturated == 0);
    CHECK(row.scores_grad[0] == 0.75f);  // lambda / epsilon (g - mean of g)
    CHECK(row.scores_grad[2] == -0.75f);
    at::manual_seed(3);
    for (const double k : {1e-6, 0.3, 7.5, 500.5}) {
      const at::Tensor spread = at::randn({1, 1000}).mul(10).exp();  // 1e-12 to 1e13
      CHECK(std::abs(soft_top_k(spread, k, 0.1).to(at::kDouble).sum().item<double>() - k) <= 1e-6 * k);
    }
  }

  TEST_CASE("soft_top_k: equal scores give bit-equal masks wherever they stand") {
    for (const int64_t n : {31, 257, 1000}) {
      std::vector<float> scores = random_scores(n, 1.0, 9);
      std::vector<float> grad(n, 0.5f);
      for (int64_t i = 0; i < n; i += 3) scores[i] = 0.125f, grad[i] = -1.5f;
      for (const double epsilon : {1.0, 0.05, 0.002}) {
        const QuickRow row = solve_quick(scores, grad, 0.4 * static_cast<double>(n), epsilon);
        for (int64_t i = 0; i < n; i += 3) {
          CHECK(row.soft_mask[i] == row.soft_mask[0]);
          CHECK(row.scores_grad[i] == row.scores_grad[0]);
        }
      }
    }
  }

  TEST_CASE("soft_top_k: k = F is all ones without gradient") {
    const QuickRow row = solve_quick({3.0f, -1e4f, 0.0f}, {1.0f, -2.0f, 3.0f}, 3.0, 0.1);
    CHECK(row.soft_mask == std::vector<float>{1.0f, 1.0f, 1.0f});
    CHECK(row.scores_grad == std::vector<float>{0.0f, 0.0f, 0.0f});
  }

  TEST_CASE("soft_top_k: an entry just below the threshold rounds to 1 and keeps its gradient") {
    // k = 2 of (5, x, -x', ...): two entries at distance 1e-9 of the border, not saturated, would round to 1 in float.
    const std::vector<float> scores{40.0f, 1.0f, -24.0f, -24.0f};
    const QuickRow row = solve_quick(scores, {0.0f, 1.0f, -1.0f, -1.0f}, 2.0, 1.0);
    const SoftTopKSolution wanted = soft_top_k_reference(to_double(scores), 2.0, 1.0);
    REQUIRE(wanted.num_saturated == 1);
    CHECK(row.soft_mask[1] == 1.0f);
    CHECK(row.num_saturated == 1);
    const Doubles slope = soft_top_k_backward_reference(wanted, Doubles{0.0, 1.0, -1.0, -1.0}, 1.0);
    REQUIRE(slope[2] < 0.0);
    CHECK(row.scores_grad[2] == doctest::Approx(slope[2]).epsilon(1e-5));
  }

  TEST_CASE("soft_top_k: rows apart, NaN between them, outputs within their bounds") {
    constexpr int64_t kRows = 3, kChannels = 33, kStride = 40;
    const float nan = std::nanf(""), sentinel = -123.0f;
    std::vector<float> scores(kRows * kStride + 1, nan), soft_mask(kRows * kChannels + 2, sentinel),
        free_mask(kRows * kChannels + 2, sentinel);
    const std::vector<float> values = random_scores(kRows * kChannels, 1.0, 3);
    for (int64_t row = 0; row < kRows; ++row)
      std::copy_n(values.begin() + row * kChannels, kChannels,
                  scores.begin() + 1 + row * kStride);  // off by one element from alignment
    CHECK(soft_top_k_cpu({.scores = scores.data() + 1,
                          .soft_mask = soft_mask.data() + 1,
                          .free_mask = free_mask.data() + 1,
                          .num_rows = kRows,
                          .num_channels = kChannels,
                          .scores_row_stride = kStride,
                          .k = 11,
                          .epsilon = 0.1}) == -1);
    for (const std::vector<float>& output : {soft_mask, free_mask}) {
      CHECK(output.front() == sentinel);
      CHECK(output.back() == sentinel);
    }
    for (int64_t row = 0; row < kRows; ++row) {
      const std::vector<float> alone(values.begin() + row * kChannels, values.begin() + (row + 1) * kChannels);
      const QuickRow wanted = solve_quick(alone, {}, 11, 0.1);
      for (int64_t i = 0; i < kChannels; ++i) {
        CHECK(soft_mask[1 + row * kChannels + i] == wanted.soft_mask[i]);
        CHECK(free_mask[1 + row * kChannels + i] == wanted.free_mask[i]);
      }
    }
  }

  TEST_CASE("soft_top_k: what cannot be solved is refused") {
    const at::Tensor scores = at::arange(10, at::kFloat).reshape({2, 5});
    CHECK_THROWS_AS(soft_top_k(scores, 0.0, 0.1), InternalError);
    CHECK_THROWS_AS(soft_top_k(scores, 5.5, 0.1), InternalError);
    CHECK_THROWS_AS(soft_top_k(scores, 2.0, 0.0), InternalError);
    CHECK_THROWS_AS(soft_top_k(scores, std::nan(""), 0.1), InternalError);
    CHECK_THROWS_AS(soft_top_k(scores.to(at::kDouble), 2.0, 0.1), InternalError);
    at::Tensor broken = scores.clone();
    broken[1][3] = std::numeric_limits<float>::infinity();
    broken[1][4] = std::nanf("");
    CHECK_THROWS_WITH_AS(soft_top_k(broken, 2.0, 0.1),
                         "soft_top_k: row 1: 2 of 5 scores are not finite or above 1e+38 in size", DivergedError);
    at::Tensor large = scores.clone();
    large[0][2] = -2e38f;
    CHECK_THROWS_WITH_AS(soft_top_k(large, 2.0, 0.1),
                         "soft_top_k: row 0: 1 of 5 scores are not finite or above 1e+38 in size", DivergedError);
  }

  TEST_CASE("soft_top_k: a transposed view is read as what it shows") {
    const at::Tensor scores_FL = at::randn({50, 3});
    CHECK(at::equal(soft_top_k(scores_FL.t(), 10, 0.2), soft_top_k(scores_FL.t().contiguous(), 10, 0.2)));
  }

  TEST_CASE("soft_top_k: many rows on threads equal single rows") {
    const at::Tensor scores = at::randn({26, 4096});
    const at::Tensor together = soft_top_k(scores, 1365, 0.05);
    for (int64_t row = 0; row < scores.size(0); ++row)
      CHECK(at::equal(soft_top_k(scores.narrow(0, row, 1), 1365, 0.05), together.narrow(0, row, 1)));
  }
}

TEST_SUITE("grad") {
  TEST_CASE("soft_top_k: backward is the derivative of the reference") {
    Lcg lcg{321};
    const int64_t n = 40;
    Doubles scores = bells(lcg, n, 1.0);
    const Doubles grad = bells(lcg, n, 1.0);
    for (const double k : {1.0, 7.0, 13.3, 39.0})
      for (const double epsilon : {1.0, 0.3, 0.05}) {
        CAPTURE(k);
        CAPTURE(epsilon);
        const auto loss = [&] {
          const SoftTopKSolution solution = soft_top_k_reference(scores, k, epsilon);
          return std::inner_product(grad.begin(), grad.end(), solution.soft_mask.begin(), 0.0);
        };
        const Doubles slope = soft_top_k_backward_reference(soft_top_k_reference(scores, k, epsilon), grad, epsilon);
        const double step = 1e-6 * epsilon;
        for (int64_t i = 0; i < n; ++i) {
          const double kept_score = scores[i];
          scores[i] = kept_score + step;
          const double up = loss();
          scores[i] = kept_score - step;
          const double down = loss();
          scores[i] = kept_score;
          CHECK(slope[i] == doctest::Approx((up - down) / (2 * step)).epsilon(1e-6).scale(1.0 / epsilon));
        }
        CHECK(std::abs(sum(slope)) <= 1e-11 / epsilon);
      }
  }

  TEST_CASE("soft_top_k: mask and gradient through the op are the reference's") {
    on_each(host_placements(), check_op);
  }
}

TEST_SUITE("gpu") {
  TEST_CASE("soft_top_k: mask and gradient through the op are the reference's: on a device") {
    on_each(device_placements(), check_op);
  }
}
