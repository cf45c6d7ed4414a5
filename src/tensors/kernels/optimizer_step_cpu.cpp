// Reference first, then the quick path: pieces shared out among threads. rms needs no square root: u^2 = g^2 / (v /
// (1 - b2^t)).
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "src/tensors/kernels/optimizer_step.h"
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

constexpr int64_t kBlockSum = 512;  // elements summed in float before a double takes over

int64_t total_size(std::span<const OptimizerPiece> pieces) {
  return std::accumulate(pieces.begin(), pieces.end(), int64_t{0},
                         [](int64_t sum, const OptimizerPiece& piece) { return sum + piece.size; });
}

/// Calls body(piece) for every piece, shared out among threads.
template <class Body>
void for_each_piece(std::span<const OptimizerPiece> pieces, const Body& body) {
  parallel_rows(static_cast<int64_t>(pieces.size()), threads_for(total_size(pieces)),
                [&](int64_t begin, int64_t end, int) {
                  for (int64_t p = begin; p < end; ++p) body(pieces[static_cast<size_t>(p)]);
                });
}

/// 1 / (1 - beta^t): what an average lacks of its weights after t steps.
float inverse_bias(double beta, int64_t t) {
  return static_cast<float>(1.0 / (1.0 - std::pow(beta, static_cast<double>(t))));
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

void append_pieces(std::vector<OptimizerPiece>& pieces, int64_t offset, int64_t size, int64_t cell, int64_t entry,
                   int64_t block) {
  const int64_t stop = offset + size;
  for (int64_t begin = offset; begin < stop;) {
    const int64_t end = std::min(stop, (begin / cell + 1) * cell);
    pieces.push_back({.offset = begin,
                      .size = end - begin,
                      .entry = entry,
                      .block = block,
                      .index = static_cast<int64_t>(pieces.size())});
    begin = end;
  }
}

std::vector<EntrySum> entry_sums(std::span<const OptimizerPiece> pieces, std::span<const double> sums) {
  std::vector<EntrySum> entries;
  for (const OptimizerPiece& piece : pieces) {
    if (entries.empty() || entries.back().entry != piece.entry)
      entries.push_back({.entry = piece.entry, .block = piece.block});
    entries.back().sum += sums[static_cast<size_t>(piece.index)];
  }
  return entries;
}

void square_sums_cpu(const float* gradient, std::span<const OptimizerPiece> pieces, std::span<double> sums) {
  for_each_piece(pieces, [&](const OptimizerPiece& piece) {
    sums[static_cast<size_t>(piece.index)] = square_sum(gradient + piece.offset, piece.size);
  });
}

void adastar_second_moments_cpu(const OptimizerStepParams& params, std::span<const OptimizerPiece> pieces,
                                std::span<double> sums) {
  const auto clip = static_cast<float>(params.clip), beta_2 = static_cast<float>(params.beta_2),
             rest_2 = static_cast<float>(1.0 - params.beta_2);
  const float bias = inverse_bias(params.beta_2, params.t);
  for_each_piece(pieces, [&](const OptimizerPiece& piece) {
    sums[static_cast<size_t>(piece.index)] = adastar_second_moment(
        params.gradient + piece.offset, params.v + piece.offset, piece.size, clip, beta_2, rest_2, bias);
  });
}

void clip_blocks(std::span<OptimizerBlock> blocks, std::span<const OptimizerPiece> pieces,
                 std::span<const double> sums) {
  const std::vector<EntrySum> entries = entry_sums(pieces, sums);
  for (size_t i = 0; i < entries.size();) {
    OptimizerBlock& block = blocks[static_cast<size_t>(entries[i].block)];
    double sum = 0;
    for (const int64_t b = entries[i].block; i < entries.size() && entries[i].block == b; ++i) sum += entries[i].sum;
    block.shrink = std::max(1.0, std::sqrt(sum / static_cast<double>(block.size)));
  }
}

void adastar_move_cpu(const OptimizerStepParams& params, std::span<const OptimizerPiece> pieces) {
  AdastarMove shared{};
  shared.clip = static_cast<float>(params.clip);
  shared.beta_1 = static_cast<float>(params.beta_1);
  shared.inverse_bias = inverse_bias(params.beta_2, params.t);
  for_each_piece(pieces, [&](const OptimizerPiece& piece) {
    const OptimizerBlock& block = params.blocks[static_cast<size_t>(piece.block)];
    AdastarMove move = shared;
    move.update_share = static_cast<float>((1.0 - params.beta_1) / block.shrink);
    move.move = static_cast<float>(block.move);
    move.decay = static_cast<float>(block.decay);
    const int64_t at = piece.offset;
    adastar_move(params.theta + at, params.gradient + at, params.v + at, params.m + at, piece.size, move);
  });
}

void adamw_move_cpu(const OptimizerStepParams& params, std::span<const OptimizerPiece> pieces) {
  AdamwMove shared{};
  shared.clip = static_cast<float>(params.clip);
  shared.beta_1 = static_cast<float>(params.beta_1);
  shared.rest_1 = static_cast<float>(1.0 - params.beta_1);
  shared.beta_2 = static_cast<float>(params.beta_2);
  shared.rest_2 = static_cast<float>(1.0 - params.beta_2);
  shared.inverse_bias_1 = inverse_bias(params.beta_1, params.t);
  shared.inverse_bias_2 = inverse_bias(params.beta_2, params.t);
  for_each_piece(pieces, [&](const OptimizerPiece& piece) {
    const OptimizerBlock& block = params.blocks[static_cast<size_t>(piece.block)];
    AdamwMove move = shared;
    move.move = static_cast<float>(block.move);
    move.decay = static_cast<float>(block.decay);
    const int64_t at = piece.offset;
    adamw_move(params.theta + at, params.gradient + at, params.v + at, params.m + at, piece.size, move);
  });
}

}  // namespace coppice
