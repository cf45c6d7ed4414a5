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
// phase zeroes the gradient. A piece's sum is double and a function of the piece alone; pieces are added in an order of
// their own by one function, on the CPU, and one kernel, on a device, whoever made their sums: results depend neither
// on threads nor on owners.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "src/tensors/kernels/bf16.h"

struct CUstream_st;  // cudaStream_t points to one

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
/// Adds `sums` (by index) of `pieces` in their order, one result an entry: all of the CPU that add pieces go through
/// here.
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

/// What the kernels know of an optimizer block; constant.
struct OptimizerBlockRow {
  int64_t first_piece = 0, num_pieces = 0;  // of all pieces of the model, by their index
  int64_t size = 0;                         // elements
  double multiplier = 1;                    // of the learning rate
  double decay = 1;                         // of the weight decay: 0 where the block does not decay
};

/// Numbers of one step in the device's memory, so that a launch is the same in every step.
struct OptimizerScalars {
  double lr = 0, weight_decay = 0;                // both times sched(t), t counting this step
  double inverse_bias_1 = 1, inverse_bias_2 = 1;  // 1 / (1 - beta^t)
  double max_grad_norm = 1, drop_grad_norm = 100;
  double clip = 1;  // found by optimizer_vote
};

/// The same update on a device, over the pieces of one unit or of several that lie in one buffer. Everything that
/// pointers point to is in the device's memory. The master is theta, or, where that is null, split into working and
/// remainder (split_master.h).
struct OptimizerKernelParams {
  const OptimizerPiece* pieces = nullptr;  // num_pieces, those to be worked on; offsets are from the pointers below
  int64_t num_pieces = 0;
  const OptimizerBlockRow* blocks = nullptr;  // num_blocks, all of the model, by OptimizerPiece::block
  int64_t num_blocks = 0;
  float* theta = nullptr;
  float* gradient = nullptr;  // zeroed by the move
  float* v = nullptr;
  float* m = nullptr;
  Bf16* working = nullptr;       // theta rounded as split_master.h has it, overwritten by the move; null: none is kept
  int16_t* remainder = nullptr;  // of a split master
  double* sums = nullptr;        // of all pieces of the model, by OptimizerPiece::index
  double* block_values = nullptr;  // (num_blocks): sums for the norm, then 1 / max(1, rms(u))
  OptimizerScalars* scalars = nullptr;
  const double* not_finite = nullptr;  // of the vote: above 0, and the step is skipped
  double* grad_norm = nullptr;         // of the vote: overwritten by optimizer_vote
  double* applied = nullptr;           // of the vote: 1 or 0, overwritten by optimizer_vote, obeyed by all that follows
  double beta_1 = 0, beta_2 = 0;
};

// The phases, in this order; sums can be exchanged before each phase that reads them. A skipped step leaves everything
// but the gradient, which is zeroed, as it was. Each enqueues and returns the launch's error, 0 for none.
//   optimizer_square_sums  sums = squares of the gradient of each piece
//   optimizer_vote         from all pieces' sums: grad_norm, applied, clip
//   adastar_square_sums    sums = squares of u of each piece; v is not written
//   adastar_inverse_rms    from all pieces' sums: block_values
//   adastar_move, adamw_move
namespace device {
int optimizer_square_sums(const OptimizerKernelParams& params, CUstream_st* stream);
int optimizer_vote(const OptimizerKernelParams& params, CUstream_st* stream);
int adastar_square_sums(const OptimizerKernelParams& params, CUstream_st* stream);
int adastar_inverse_rms(const OptimizerKernelParams& params, CUstream_st* stream);
int adastar_move(const OptimizerKernelParams& params, CUstream_st* stream);
int adamw_move(const OptimizerKernelParams& params, CUstream_st* stream);
}  // namespace device
namespace emulated {
int optimizer_square_sums(const OptimizerKernelParams& params, CUstream_st* stream);
int optimizer_vote(const OptimizerKernelParams& params, CUstream_st* stream);
int adastar_square_sums(const OptimizerKernelParams& params, CUstream_st* stream);
int adastar_inverse_rms(const OptimizerKernelParams& params, CUstream_st* stream);
int adastar_move(const OptimizerKernelParams& params, CUstream_st* stream);
int adamw_move(const OptimizerKernelParams& params, CUstream_st* stream);
}  // namespace emulated

}  // namespace coppice
