// The update of the parameters in phases, torch-free. Each phase works on the pieces that it is given, of one unit of
// the arena, so that a rank may own some of them, and returns before the next begins, so that sums can be exchanged
// between.
//   square_sums:            sum of g^2 of each piece; they make the global norm, and with it clip
//   adastar: second moments v = b2 v + (1-b2)(g^2 + 1e-30), u = g / sqrt(v / (1 - b2^t)); sum of u^2 of each piece
//            clip_blocks    shrink = max(1, rms(u)) of each block
//            move           m = b1 m + (1-b1) u / shrink;  theta -= move m + decay theta
//   adamw:   move           m = b1 m + (1-b1) g, v = b2 v + (1-b2) g^2, u = m / (1-b1^t) / (sqrt(v / (1-b2^t)) + 1e-8);
//                           theta -= move u + decay theta
// g is the gradient times clip; move = sched(t) lr multiplier and decay = sched(t) weight_decay of the block. The last
// phase zeroes the gradient. A piece's sum is double and a function of the piece alone; pieces are added in their order
// by one function, whoever made their sums: results depend neither on threads nor on owners.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace coppice {

/// What one entry has of one cell: the grain of all sums. Cells are counted from the unit's begin.
struct OptimizerPiece {
  int64_t offset = 0, size = 0;  // elements, from the unit's begin
  int64_t entry = 0, block = 0;  // places in the arena's lists
  int64_t index = 0;             // among all pieces of the model: where its sum goes
};

/// Cuts elements [offset, offset + size) of a unit at its cells and appends them: consecutive pieces of one entry.
void append_pieces(std::vector<OptimizerPiece>& pieces, int64_t offset, int64_t size, int64_t cell, int64_t entry,
                   int64_t block);
/// Adds `sums` (by index) of `pieces` in their order, one result an entry: all that add pieces go through here.
struct EntrySum {
  int64_t entry = 0, block = 0;
  double sum = 0;
};
std::vector<EntrySum> entry_sums(std::span<const OptimizerPiece> pieces, std::span<const double> sums);

struct OptimizerBlock {
  int64_t offset = 0, size = 0;  // elements
  double move = 0, decay = 0;
  double shrink = 1;  // adastar's divisor of u, found by clip_blocks
};

struct OptimizerStepParams {
  float* theta = nullptr;  // one unit's master weights, gradient (zeroed by the last phase) and slots
  float* gradient = nullptr;
  float* v = nullptr;
  float* m = nullptr;
  std::span<const OptimizerBlock> blocks;  // by OptimizerPiece::block
  double clip = 1;                         // factor on the gradient
  double beta_1 = 0, beta_2 = 0;
  int64_t t = 1;  // applied steps, this one included
};

/// sums[index] = sum of squares of each piece; not finite exactly when an element is not finite.
void square_sums_cpu(const float* gradient, std::span<const OptimizerPiece> pieces, std::span<double> sums);
/// v of each piece; sums[index] = sum of u^2.
void adastar_second_moments_cpu(const OptimizerStepParams& params, std::span<const OptimizerPiece> pieces,
                                std::span<double> sums);
/// Sets `shrink` of the blocks whose pieces these are: whole blocks, with the sums of all their pieces.
void clip_blocks(std::span<OptimizerBlock> blocks, std::span<const OptimizerPiece> pieces,
                 std::span<const double> sums);
void adastar_move_cpu(const OptimizerStepParams& params, std::span<const OptimizerPiece> pieces);
void adamw_move_cpu(const OptimizerStepParams& params, std::span<const OptimizerPiece> pieces);

/// The same steps written to be read: double arithmetic in the stated order, state kept in double.
struct OptimizerStepReference {
  double* theta = nullptr;
  const double* gradient = nullptr;
  double* v = nullptr;
  double* m = nullptr;
  std::span<const OptimizerBlock> blocks;
  double clip = 1;
  double beta_1 = 0, beta_2 = 0;
  int64_t t = 1;
};
void adastar_step_reference(const OptimizerStepReference& params);
void adamw_step_reference(const OptimizerStepReference& params);

}  // namespace coppice
