// Reference first, then the quick path: pieces of kPieceSize elements shared out among threads. AdaStar needs rms(u) of
// a whole block before it may move the block, hence two passes; blocks are taken in groups that fit into the caches, so
// that the second pass finds g and v there. rms needs no square root: u^2 = g^2 / (v / (1 - b2^t)).
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "src/optim/optimizer_step.h"
#include "src/tensors/kernels/parallel_rows.h"
#include "src/tensors/kernels/vector_math.h"

namespace coppice {

void adastar_step_reference(const OptimizerStepReference& params) {
  const double bias = 1.0 - std::pow(params.beta_2, static_cast<double>(params.t));
  for (const OptimizerBlock& block : params.blocks) {
    std::vector<double> u(static_cast<size_t>(block.size));
    double square_sum = 0;
    for (int64_t i = 0; i < block.size; ++i) {
      const double g = params.gradient[block.offset + i] * params.clip;
      double& v = params.v[block.offset + i];
      v = params.beta_2 * v + (1.0 - params.beta_2) * (g * g + 1e-30);
      u[i] = g / std::sqrt(v / bias);
      square_sum += u[i] * u[i];
    }
    const double shrink = std::max(1.0, std::sqrt(square_sum / static_cast<double>(block.size)));
    for (int64_t i = 0; i < block.size; ++i) {
      double &m = params.m[block.offset + i], &theta = params.theta[block.offset + i];
      m = params.beta_1 * m + (1.0 - params.beta_1) * (u[i] / shrink);
      theta -= block.move * m + block.decay * theta;
    }
  }
}

void adamw_step_reference(const OptimizerStepReference& params) {
  const double bias_1 = 1.0 - std::pow(params.beta_1, static_cast<double>(params.t));
  const double bias_2 = 1.0 - std::pow(params.beta_2, static_cast<double>(params.t));
  for (const OptimizerBlock& block : params.blocks) {
    for (int64_t i = block.offset; i < block.offset + block.size; ++i) {
      const double g = params.gradient[i] * params.clip;
      params.m[i] = params.beta_1 * params.m[i] + (1.0 - params.beta_1) * g;
      params.v[i] = params.beta_2 * params.v[i] + (1.0 - params.beta_2) * g * g;
      const double u = (params.m[i] / bias_1) / (std::sqrt(params.v[i] / bias_2) + 1e-8);
      params.theta[i] -= block.move * u + block.decay * params.theta[i];
    }
  }
}

namespace {

constexpr int64_t kPieceSize = 8192;
constexpr int64_t kGroupSize = int64_t{1} << 18;  // g and v of a group: 2 MiB, the second-level caches of two cores
constexpr int64_t kBlockSum = 512;                // elements summed in float before a double takes over

struct Piece {
  int64_t block, offset, size;
};

std::vector<Piece> cut_into_pieces(std::span<const OptimizerBlock> blocks) {
  std::vector<Piece> pieces;
  for (size_t b = 0; b < blocks.size(); ++b)
    for (int64_t begin = 0; begin < blocks[b].size; begin += kPieceSize)
      pieces.push_back(
          {static_cast<int64_t>(b), blocks[b].offset + begin, std::min(kPieceSize, blocks[b].size - begin)});
  return pieces;
}

int64_t total_size(std::span<const OptimizerBlock> blocks) {
  return std::accumulate(blocks.begin(), blocks.end(), int64_t{0},
                         [](int64_t sum, const OptimizerBlock& block) { return sum + block.size; });
}

COPPICE_INLINE double square_sum_loop(const float* g, int64_t n) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(g[i]) * static_cast<double>(g[i]);
  return sum;
}
constexpr auto square_sum = per_instruction_set<square_sum_loop>;

/// v of one piece, and the sum of u^2.
COPPICE_INLINE double adastar_second_moment_loop(const float* gradient, float* v, int64_t n, float clip, float beta_2,
                                                 float rest_2, float inverse_bias) {
  double sum = 0;
  for (int64_t begin = 0; begin < n; begin += kBlockSum) {
    const int64_t end = std::min(n, begin + kBlockSum);
    float block_sum = 0;
#pragma omp simd reduction(+ : block_sum)
    for (int64_t i = begin; i < end; ++i) {
      const float g = gradient[i] * clip;
      const float square = g * g;
      v[i] = beta_2 * v[i] + rest_2 * (square + 1e-30f);
      block_sum += square / (v[i] * inverse_bias);
    }
    sum += block_sum;
  }
  return sum;
}
constexpr auto adastar_second_moment = per_instruction_set<adastar_second_moment_loop>;

struct AdastarMove {
  float clip, beta_1, update_share, inverse_bias, move, decay;  // update_share = (1 - b1) / shrink
};
COPPICE_INLINE void adastar_move_loop(float* theta, float* gradient, const float* v, float* m, int64_t n,
                                      const AdastarMove c) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const float u = gradient[i] * c.clip / std::sqrt(v[i] * c.inverse_bias);
    m[i] = c.beta_1 * m[i] + c.update_share * u;
    theta[i] -= c.move * m[i] + c.decay * theta[i];
    gradient[i] = 0.0f;
  }
}
constexpr auto adastar_move = per_instruction_set<adastar_move_loop>;

struct AdamwMove {
  float clip, beta_1, rest_1, beta_2, rest_2, inverse_bias_1, inverse_bias_2, move, decay;
};
COPPICE_INLINE void adamw_move_loop(float* theta, float* gradient, float* v, float* m, int64_t n, const AdamwMove c) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const float g = gradient[i] * c.clip;
    m[i] = c.beta_1 * m[i] + c.rest_1 * g;
    v[i] = c.beta_2 * v[i] + c.rest_2 * (g * g);
    const float u = m[i] * c.inverse_bias_1 / (std::sqrt(v[i] * c.inverse_bias_2) + 1e-8f);
    theta[i] -= c.move * u + c.decay * theta[i];
    gradient[i] = 0.0f;
  }
}
constexpr auto adamw_move = per_instruction_set<adamw_move_loop>;

}  // namespace

double gradient_square_sum_cpu(const float* gradient, std::span<const OptimizerBlock> blocks) {
  const std::vector<Piece> pieces = cut_into_pieces(blocks);
  std::vector<double> sums(pieces.size());
  parallel_rows(static_cast<int64_t>(pieces.size()), threads_for(total_size(blocks)),
                [&](int64_t begin, int64_t end, int) {
                  for (int64_t p = begin; p < end; ++p)
                    sums[p] = square_sum(gradient + pieces[p].offset, pieces[p].size);
                });
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

void adastar_step_cpu(const OptimizerStepParams& params) {
  const std::vector<Piece> pieces = cut_into_pieces(params.blocks);
  const auto clip = static_cast<float>(params.clip);
  const auto inverse_bias = static_cast<float>(1.0 / (1.0 - std::pow(params.beta_2, static_cast<double>(params.t))));
  std::vector<double> piece_sums(pieces.size());
  std::vector<AdastarMove> moves(params.blocks.size());

  for (size_t first = 0; first < pieces.size();) {
    size_t last = first;  // one past the group: whole blocks, at least one
    int64_t size = 0;
    while (last < pieces.size() && (size == 0 || size + params.blocks[pieces[last].block].size <= kGroupSize)) {
      const int64_t block = pieces[last].block;
      size += params.blocks[block].size;
      while (last < pieces.size() && pieces[last].block == block) ++last;
    }
    const int threads = threads_for(size);
    parallel_rows(static_cast<int64_t>(last - first), threads, [&](int64_t begin, int64_t end, int) {
      for (int64_t p = first + begin; p < static_cast<int64_t>(first) + end; ++p)
        piece_sums[p] = adastar_second_moment(params.gradient + pieces[p].offset, params.v + pieces[p].offset,
                                              pieces[p].size, clip, static_cast<float>(params.beta_2),
                                              static_cast<float>(1.0 - params.beta_2), inverse_bias);
    });
    for (size_t p = first; p < last;) {
      const int64_t b = pieces[p].block;
      double sum = 0;
      for (; p < last && pieces[p].block == b; ++p) sum += piece_sums[p];
      const OptimizerBlock& block = params.blocks[b];
      const double shrink = std::max(1.0, std::sqrt(sum / static_cast<double>(block.size)));
      moves[b] = {.clip = clip,
                  .beta_1 = static_cast<float>(params.beta_1),
                  .update_share = static_cast<float>((1.0 - params.beta_1) / shrink),
                  .inverse_bias = inverse_bias,
                  .move = static_cast<float>(block.move),
                  .decay = static_cast<float>(block.decay)};
    }
    parallel_rows(static_cast<int64_t>(last - first), threads, [&](int64_t begin, int64_t end, int) {
      for (int64_t p = first + begin; p < static_cast<int64_t>(first) + end; ++p) {
        const int64_t at = pieces[p].offset;
        adastar_move(params.theta + at, params.gradient + at, params.v + at, params.m + at, pieces[p].size,
                     moves[pieces[p].block]);
      }
    });
    first = last;
  }
}

void adamw_step_cpu(const OptimizerStepParams& params) {
  const std::vector<Piece> pieces = cut_into_pieces(params.blocks);
  AdamwMove shared{};
  shared.clip = static_cast<float>(params.clip);
  shared.beta_1 = static_cast<float>(params.beta_1);
  shared.rest_1 = static_cast<float>(1.0 - params.beta_1);
  shared.beta_2 = static_cast<float>(params.beta_2);
  shared.rest_2 = static_cast<float>(1.0 - params.beta_2);
  shared.inverse_bias_1 = static_cast<float>(1.0 / (1.0 - std::pow(params.beta_1, static_cast<double>(params.t))));
  shared.inverse_bias_2 = static_cast<float>(1.0 / (1.0 - std::pow(params.beta_2, static_cast<double>(params.t))));
  parallel_rows(static_cast<int64_t>(pieces.size()), threads_for(total_size(params.blocks)),
                [&](int64_t begin, int64_t end, int) {
                  for (int64_t p = begin; p < end; ++p) {
                    const int64_t at = pieces[p].offset;
                    AdamwMove move = shared;
                    move.move = static_cast<float>(params.blocks[pieces[p].block].move);
                    move.decay = static_cast<float>(params.blocks[pieces[p].block].decay);
                    adamw_move(params.theta + at, params.gradient + at, params.v + at, params.m + at, pieces[p].size,
                               move);
                  }
                });
}

}  // namespace coppice
