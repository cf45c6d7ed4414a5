// Blocks of ids are passed over whole until one holds the draw: a draw costs V / 128 + 128 additions.
#include "src/tensors/kernels/draws.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "src/tensors/kernels/parallel_rows.h"
#include "src/tensors/kernels/vector_math.h"

namespace coppice {

namespace {

/// e in place of the logits, and the sum of every block of kSumBlock ids.
COPPICE_INLINE void exponentiate_loop(float* z, int64_t n, float largest, float inverse_temperature, double* block) {
  for (int64_t begin = 0; begin < n; begin += kSumBlock, ++block) {
    const int64_t end = std::min(n, begin + kSumBlock);
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = begin; i < end; ++i) {
      const float value = vector_exp_flushed((z[i] - largest) * inverse_temperature);
      z[i] = value;
      sum += value;
    }
    *block = sum;
  }
}
constexpr auto exponentiate = per_instruction_set<exponentiate_loop>;

int64_t find_draw(const float* e, int64_t n, const std::vector<double>& block, double wanted) {
  size_t b = 0;
  while (b + 1 < block.size() && wanted >= block[b]) wanted -= block[b++];
  int64_t id = static_cast<int64_t>(b) * kSumBlock;
  const int64_t last = std::min(n, id + kSumBlock) - 1;
  while (id < last && wanted >= e[id]) wanted -= e[id++];
  while (id > 0 && e[id] == 0) --id;  // rounding may carry a draw past the last id that there is anything of
  return id;
}

}  // namespace

void draw_ids_cpu(const DrawParams& params) {
  const int64_t n = params.num_vocab;
  const double t = params.proposal_temperature;
  const auto inverse = static_cast<float>(1.0 / params.temperature),
             inverse_of_draws = static_cast<float>(1.0 / (params.temperature * t));
  parallel_rows(params.num_rows, threads_for(params.num_rows * n), [&](int64_t begin, int64_t end, int) {
    std::vector<double> block(static_cast<size_t>((n + kSumBlock - 1) / kSumBlock));
    for (int64_t row = begin; row < end; ++row) {
      float* z = params.logits + row * n;
      const float largest = find_largest(z, n).value;
      if (params.fact != nullptr) params.fact[row] = judge_top(z, n, largest);
      const double sum_q = params.log_weight == nullptr ? 1.0 : sum_exponentials(z, n, largest, inverse);
      exponentiate(z, n, largest, inverse_of_draws, block.data());
      double sum = 0;
      for (const double of_block : block) sum += of_block;
      const double log_ratio = std::log(sum / sum_q);
      for (int64_t i = row * params.num_draws; i < (row + 1) * params.num_draws; ++i) {
        params.id[i] = find_draw(z, n, block, params.uniform[i] * sum);
        if (params.log_weight != nullptr)
          params.log_weight[i] = static_cast<float>((t - 1) * std::log(double{z[params.id[i]]}) + log_ratio);
      }
    }
  });
}

}  // namespace coppice
