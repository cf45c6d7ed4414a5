// What each kernel moves and computes, as functions of the shape, and the time that follows on a device: one table for
// benchmarks, for plans and for the tests that count bytes. Nothing here has been measured on a device.
//   t = max(bytes / bandwidth, instructions / issue rate, special functions / their rate) / share,
//   share = 0.92, or 0.85 where the second of the three exceeds 0.6 of the first
// Torch-free.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace coppice {

/// Those that a kernel does not depend on are not looked at. Matrices start at multiples of 16 bytes, and so do all
/// their rows but those of logits; no row is ignored, and all that can be asked for is wanted.
struct KernelShape {
  int64_t rows = 0;             // N: tokens, rows of logits or of scores
  int64_t hidden_size = 0;      // D
  int64_t query_size = 0;       // Dq: heads times head size
  int64_t key_value_size = 0;   // Dkv
  int64_t head_size = 0;        // K
  int64_t ffn_size = 0;         // F; scores of a row
  int64_t vocab_size = 0;       // V
  int64_t ids = 0;              // of a row: stored, or drawn
  int64_t distinct_tokens = 0;  // among the rows
  int64_t long_pieces = 0;      // of tokens that the embedding's backward takes in more than one piece
  int64_t parameters = 0;
  int64_t pieces = 0;     // of the optimizer's sums
  int64_t blocks = 0;     // of the optimizer
  int element_bytes = 2;  // of activations and of the working copy; 4: the master is the working copy
  bool ffn_mask = true;   // and, backward, its gradient
};

/// Bytes that a kernel moves by load_pack, store_pack and copy_pack, its second launch included: labels, positions and
/// other single numbers that are read without them are not among these.
struct KernelBytes {
  int64_t loaded = 0, stored = 0;
  int64_t cached = 0;  // of those loaded: read again, out of a cache
  int64_t of_memory() const { return loaded - cached + stored; }
};

struct KernelCost {
  const char* name;
  KernelBytes (*bytes)(const KernelShape&);
  int64_t (*elements)(const KernelShape&);
  double instructions;   // an element, of the main loop
  double specials;       // of them, special functions: exponential, reciprocal, root
  double latency_s = 0;  // of a chain of reductions that no bandwidth shortens
};

/// Places in kKernelCosts. A teacher's top-k has none: what it moves depends on where the largest logits are.
enum class Kernel {
  residual_rms_norm,
  residual_rms_norm_backward,
  qk_norm_rope,
  qk_norm_rope_backward,
  swiglu,
  swiglu_backward,
  swiglu_backward_with_hidden,
  embedding,
  embedding_backward,
  label_mix_rows,
  top_k_rows,  // decoupled or not
  kl_rows,     // either way round
  jsd_rows,
  add_loss_terms,
  hidden_state_mse,
  hidden_state_cosine,
  hidden_state_backward,  // of either
  top_1_rows,
  draw_rows,
  calibrated_rows,
  weighted_draw_rows,
  soft_top_k,
  soft_top_k_backward,
  optimizer_square_sums,
  optimizer_vote,
  adastar_square_sums,
  adastar_inverse_rms,
  adastar_move,
  adastar_move_split,
  adamw_move,
  adamw_move_split,
  split_masters,
  join_masters,  // not of places
  count
};
extern const std::array<KernelCost, static_cast<size_t>(Kernel::count)> kKernelCosts;
inline const KernelCost& cost_of(Kernel kernel) { return kKernelCosts[static_cast<size_t>(kernel)]; }

/// A kernel that issues no more a byte of memory leaves its time to the bytes.
inline constexpr double kInstructionsPerByte = 3.4;

/// Of an element.
double instruction_budget(const KernelCost& cost, const KernelShape& shape);

/// What a device does in a second.
struct DeviceRates {
  double bytes = 0;         // of a large copy, read and written
  double instructions = 0;  // of one lane
  double specials = 0;
};
inline constexpr double kHopperInstructions = 132 * 128 * 1.755e9;  // multiprocessors, lanes, clock
inline constexpr DeviceRates kH200Rates{4.3e12, kHopperInstructions, kHopperInstructions / 8};
inline constexpr DeviceRates kH100Rates{3.0e12, kHopperInstructions, kHopperInstructions / 8};

/// The model's time of one call, without the latency of its launch.
double predicted_seconds(const KernelCost& cost, const KernelShape& shape, const DeviceRates& device);

/// A row of the table of docs/performance.md, which `coppice bench --kernels` measures.
struct PredictedRow {
  std::vector<Kernel> kernels;  // one after the other
  KernelShape shape;
  const char* in_words;  // the shape
  double bytes() const;  // of memory
  double seconds(const DeviceRates& device) const;
};
const std::vector<PredictedRow>& predicted_rows();

}  // namespace coppice
