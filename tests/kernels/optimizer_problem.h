// Parameters in an arena, their gradient and the optimizer's state, for kernels and in double for the reference.
// Torch-free.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "src/tensors/kernels/optimizer_step.h"
#include "src/tensors/kernels/split_master.h"
#include "tests/executor/outputs.h"

namespace coppice {

inline constexpr int64_t kCell = 2048;
inline constexpr double kLr = 0.3, kWeightDecay = 0.01, kBeta1 = 0.9, kBeta2 = 0.95;
inline constexpr float kSentinel = -77.5f;

enum class Rule { adastar, adamw };
enum class Master { alone, with_copy, split };

/// Where parameters lie, as the kernels and as the reference are told it.
struct Layout {
  std::vector<OptimizerPiece> pieces;
  std::vector<OptimizerBlockRow> rows;
  std::vector<OptimizerBlock> blocks;
  int64_t size = 0;

  /// A block of entries one after the other, at a multiple of 16 elements unless it follows the one before it at once.
  void add(const std::vector<int64_t>& entries, bool follows = false) {
    if (!follows) size = (size + 15) / 16 * 16;
    const auto block = static_cast<int64_t>(rows.size());
    OptimizerBlockRow row{.first_piece = static_cast<int64_t>(pieces.size()),
                          .multiplier = 1.0 / static_cast<double>(block + 1),
                          .decay = static_cast<double>(block % 2)};
    const int64_t begin = size;
    for (const int64_t entry : entries) {
      append_pieces(pieces, size, entry, kCell, ++num_entries, block);
      size += entry;
    }
    row.num_pieces = static_cast<int64_t>(pieces.size()) - row.first_piece;
    row.size = size - begin;
    rows.push_back(row);
    blocks.push_back(
        {.offset = begin, .size = row.size, .move = kLr * row.multiplier, .decay = kWeightDecay * row.decay});
  }
  int64_t num_entries = 0;
};

/// All that a step reads and writes, gradient aside; sentinels wherever no parameter is.
struct Training {
  Training(const Layout& layout, Master master) : layout(layout), master(master) {
    const auto size = static_cast<size_t>(layout.size + 16);
    theta.assign(size, kSentinel), v = m = gradient = theta;
    inside.assign(size, false);
    for (size_t b = 0; b < layout.blocks.size(); ++b)
      for (int64_t i = layout.blocks[b].offset; i < layout.blocks[b].offset + layout.blocks[b].size; ++i) {
        const auto at = static_cast<size_t>(i);
        inside[at] = true;
        theta[at] = number(i, 1);
        v[at] = i % 97 == 0 ? 0.0f : std::fabs(number(i, 2)) * (b % 3 == 0 ? 1.0f : 1e-3f);  // the last: u is cut
        m[at] = number(i, 3);
      }
    working.assign(size, Bf16{0x1234}), remainder.assign(size, 0x1234);
    for (size_t i = 0; i < size; ++i)
      if (master == Master::split && inside[i]) {
        const SplitMaster split = split_master(theta[i]);
        working[i] = split.working, remainder[i] = split.remainder;
      }
    sums.resize(layout.pieces.size()), block_values.resize(layout.rows.size());
    theta64 = {theta.begin(), theta.end()}, v64 = {v.begin(), v.end()}, m64 = {m.begin(), m.end()};
  }

  /// Gradients of step t; NaN where no parameter is.
  void draw_gradient() {
    for (size_t i = 0; i < gradient.size(); ++i) {
      const auto at = static_cast<int64_t>(i);
      gradient[i] = !inside[i]     ? std::numeric_limits<float>::quiet_NaN()
                    : at % 97 == 0 ? 0.0f
                                   : number(at, 10 + static_cast<uint32_t>(t));
    }
  }

  OptimizerKernelParams params() {
    scalars = {.lr = kLr,
               .weight_decay = kWeightDecay,
               .inverse_bias_1 = 1.0 / (1.0 - std::pow(kBeta1, t + 1)),
               .inverse_bias_2 = 1.0 / (1.0 - std::pow(kBeta2, t + 1)),
               .max_grad_norm = 40.0,
               .drop_grad_norm = drop_grad_norm,
               .clip = std::nan("")};
    return {.pieces = layout.pieces.data(),
            .num_pieces = static_cast<int64_t>(layout.pieces.size()),
            .blocks = layout.rows.data(),
            .num_blocks = static_cast<int64_t>(layout.rows.size()),
            .theta = master == Master::split ? nullptr : theta.data(),
            .gradient = gradient.data(),
            .v = v.data(),
            .m = m.data(),
            .working = master == Master::alone ? nullptr : working.data(),
            .remainder = master == Master::split ? remainder.data() : nullptr,
            .sums = sums.data(),
            .block_values = block_values.data(),
            .scalars = &scalars,
            .not_finite = &vote[0],
            .grad_norm = &vote[1],
            .applied = &vote[2],
            .beta_1 = kBeta1,
            .beta_2 = kBeta2};
  }

  void step_reference(Rule rule) {
    double squares = 0.0;
    for (size_t i = 0; i < gradient.size(); ++i)
      if (inside[i]) squares += double{gradient[i]} * gradient[i];
    norm64 = std::sqrt(squares);
    const std::vector<double> gradient64(gradient.begin(), gradient.end());
    const OptimizerStepReference reference{.theta = theta64.data(),
                                           .gradient = gradient64.data(),
                                           .v = v64.data(),
                                           .m = m64.data(),
                                           .blocks = layout.blocks,
                                           .clip = std::min(1.0, 40.0 / (norm64 + 1e-8)),
                                           .beta_1 = kBeta1,
                                           .beta_2 = kBeta2,
                                           .t = t + 1};
    rule == Rule::adastar ? adastar_step_reference(reference) : adamw_step_reference(reference);
  }

  /// theta, v and m of all parameters. `theta64`: of the reference.
  template <class T>
  Outputs parameters(const std::vector<T>& theta, const std::vector<T>& v, const std::vector<T>& m) const {
    Outputs outputs;
    for (const std::vector<T>* values : {&theta, &v, &m})
      for (size_t i = 0; i < inside.size(); ++i)
        if (inside[i]) outputs.push_back(static_cast<float>((*values)[i]));
    return outputs;
  }

  /// Nothing but parameters was written, gradients are zero, and the copy is what it has to be; a split master is
  /// joined into theta.
  void check_buffers() {
    bool intact = true, zero = true, copied = true;
    for (size_t i = 0; i < inside.size(); ++i) {
      if (!inside[i]) {
        intact = intact && theta[i] == kSentinel && v[i] == kSentinel && m[i] == kSentinel && std::isnan(gradient[i]) &&
                 working[i].bits == 0x1234 && remainder[i] == 0x1234;
        continue;
      }
      zero = zero && gradient[i] == 0.0f;
      if (master == Master::split) theta[i] = join_master({working[i], remainder[i]});
      if (master == Master::with_copy) copied = copied && working[i].bits == split_master(theta[i]).working.bits;
    }
    CHECK(intact);
    CHECK(zero);
    CHECK(copied);
  }

  Layout layout;
  Master master;
  int64_t t = 4;  // steps so far: u can exceed 1 from the second on
  double drop_grad_norm = 1000.0, norm64 = 0.0;
  std::vector<bool> inside;
  std::vector<float> theta, v, m, gradient;
  std::vector<double> theta64, v64, m64, sums, block_values;
  std::vector<Bf16> working;
  std::vector<int16_t> remainder;
  OptimizerScalars scalars;
  std::array<double, 3> vote{0.0, -1.0, -1.0};
};

}  // namespace coppice
