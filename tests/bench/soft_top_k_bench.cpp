// Soft-Top-K on one core: ours beside the published coordinate descent (20 rounds) written with the same vectorised
// exponential, one fused pass a round. The check compares lambda with the sorted double reference and the sum with k.
//   soft_top_k_bench --threads 1 --repeats 101                       # 24,576 gates, four epsilons
//   soft_top_k_bench --threads 1 --rows 26 --n 23296 --k 8064
//   ATEN_CPU_CAPABILITY=avx2 soft_top_k_bench --threads 1 --repeats 101   # the same without AVX-512
// ratio_to_cd20 is the ratio of medians, with the 20th and 80th percentile of the ratios turn by turn.
#include <cmath>

#include "src/tensors/kernels/soft_top_k.h"
#include "src/tensors/kernels/vector_math.h"
#include "tests/bench/bench.h"

using namespace coppice;
using namespace coppice::bench;

namespace {

/// One round of lambda = exp((min(s, -a) + a) / epsilon): the sum that corrects a.
COPPICE_INLINE double round_sum_loop(const float* s, int64_t n, float a, float inverse_epsilon) {
  double sum = 0;
  for (int64_t begin = 0; begin < n; begin += 512) {
    const int64_t end = std::min(n, begin + 512);
    float block = 0;
#pragma omp simd reduction(+ : block)
    for (int64_t i = begin; i < end; ++i) {
      const float x = (s[i] + a) * inverse_epsilon;
      block += vector_exp_flushed(x > 0.0f ? 0.0f : x);
    }
    sum += block;
  }
  return sum;
}
constexpr auto round_sum = per_instruction_set<round_sum_loop>;

COPPICE_INLINE void write_mask_loop(const float* s, float* soft_mask, int64_t n, float a, float inverse_epsilon) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const float x = (s[i] + a) * inverse_epsilon;
    soft_mask[i] = vector_exp_flushed(x > 0.0f ? 0.0f : x);
  }
}
constexpr auto write_mask = per_instruction_set<write_mask_loop>;

/// CoDA's dual loop from b = -s: a <- epsilon (log k - logsumexp((s + b) / epsilon)), b <- min(-(s + a), 0), so s + b =
/// min(s, -a).
void coordinate_descent(const float* s, float* soft_mask, int64_t n, double k, double epsilon, int rounds) {
  const auto inverse_epsilon = static_cast<float>(1.0 / epsilon);
  double a = epsilon * (std::log(k) - std::log(static_cast<double>(n)));  // the first round sees s + b = 0
  for (int round = 1; round < rounds; ++round)
    a += epsilon * (std::log(k) - std::log(round_sum(s, n, static_cast<float>(a), inverse_epsilon)));
  write_mask(s, soft_mask, n, static_cast<float>(a), inverse_epsilon);
}

}  // namespace

int main(int argc, char** argv) {
  const Flags flags(argc, argv, {{"rows", 1}, {"n", 24576}, {"k", 8192}});
  const int64_t L = flags["rows"], n = flags["n"];
  const auto k = static_cast<double>(flags["k"]);
  at::manual_seed(0);
  measure_ceilings(flags);
  const at::Tensor scores = at::randn({L, n}), grad = at::randn({L, n});
  at::Tensor soft_mask = at::empty({L, n}), free_mask = at::empty({L, n}), scores_grad = at::empty({L, n}),
             descent = at::empty({L, n});
  for (const double epsilon : {1.0, 0.1, 0.02, 0.002}) {
    const auto forward = [&] {
      soft_top_k_cpu({.scores = scores.const_data_ptr<float>(),
                      .soft_mask = soft_mask.mutable_data_ptr<float>(),
                      .free_mask = free_mask.mutable_data_ptr<float>(),
                      .num_rows = L,
                      .num_channels = n,
                      .scores_row_stride = n,
                      .k = k,
                      .epsilon = epsilon});
    };
    const auto backward = [&] {
      soft_top_k_backward_cpu({.free_mask = free_mask.const_data_ptr<float>(),
                               .soft_mask_grad = grad.const_data_ptr<float>(),
                               .scores_grad = scores_grad.mutable_data_ptr<float>(),
                               .num_rows = L,
                               .num_channels = n,
                               .epsilon = epsilon});
    };
    const auto rounds = [&] {
      for (int64_t row = 0; row < L; ++row)
        coordinate_descent(scores.const_data_ptr<float>() + row * n, descent.mutable_data_ptr<float>() + row * n, n, k,
                           epsilon, 20);
    };

    forward(), backward(), rounds();
    double error = 0, descent_error = 0, descent_sum_error = 0;
    for (int64_t row = 0; row < L; ++row) {
      const at::Tensor row64 = scores[row].to(at::kDouble);
      const SoftTopKSolution wanted =
          soft_top_k_reference({row64.const_data_ptr<double>(), static_cast<size_t>(n)}, k, epsilon);
      const at::Tensor exact = at::tensor(wanted.soft_mask, at::kDouble);
      const auto distance = [&](const at::Tensor& mask) {
        return (mask[row].to(at::kDouble) - exact).abs().max().item<double>();
      };
      const auto sum_error = [&](const at::Tensor& mask) {
        return std::abs(mask[row].to(at::kDouble).sum().item<double>() - k);
      };
      error = std::max({error, distance(soft_mask), sum_error(soft_mask) / k});
      descent_error = std::max(descent_error, distance(descent)),
      descent_sum_error = std::max(descent_sum_error, sum_error(descent));
    }
    emit_check(flags, error, 1e-6);

    std::vector<double> turn_ratio;
    const auto turn = [&] {  // both in one turn, so that the ratio has a spread
      const double ours = seconds(forward);
      turn_ratio.push_back(seconds(rounds) / ours);
    };
    for (int64_t i = 0; i < flags["warmup"] + flags["repeats"]; ++i) turn();
    const auto readings = measure(flags, {forward, backward, rounds});
    const double ours = readings[0][0].second, peer = readings[2][0].second;
    const auto gates = static_cast<double>(L * n) / 1e6;
    for (size_t i = 0; i < 3; ++i) {
      Readings line = readings[i];
      line.insert(line.begin(), {"epsilon", epsilon});
      line.push_back({"mgates_per_s", gates / readings[i][0].second});
      if (i == 0)
        line.insert(line.end(), {{"ratio_to_cd20", peer / ours},
                                 {"ratio_p20", quantile(turn_ratio, 0.2)},
                                 {"ratio_p80", quantile(turn_ratio, 0.8)}});
      if (i == 2) line.insert(line.end(), {{"max_error", descent_error}, {"sum_error", descent_sum_error}});
      emit(std::vector<std::string>{"soft_top_k_forward", "soft_top_k_backward", "cd20_forward"}[i], flags, line);
    }
  }
}
