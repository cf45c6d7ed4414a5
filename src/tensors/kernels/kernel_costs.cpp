#include "src/tensors/kernels/kernel_costs.h"

#include <algorithm>
#include <functional>

#include "src/tensors/kernels/calibrated_cross_entropy.h"
#include "src/tensors/kernels/loss_rows.h"
#include "src/tensors/kernels/loss_terms.h"
#include "src/tensors/kernels/qk_norm_rope.h"
#include "src/tensors/kernels/residual_rms_norm.h"
#include "src/tensors/kernels/swiglu.h"

namespace coppice {

namespace {

using Shape = KernelShape;
using Bytes = KernelBytes;

constexpr int64_t kFloat = 4, kSum = 8;        // bytes of a float, of a sum in double
constexpr int64_t kIdBytes = sizeof(int64_t);  // of a token
constexpr int64_t kSharedBytes = 227 * 1024;   // of a block, at most
constexpr int64_t kLossArrayBytes = 3 * 1024;  // that a loss has of them beside its rows
constexpr int64_t kDrawTileBytes = 512;        // read again for each draw
constexpr int64_t kLossTermBytes = sizeof(LossTerms), kFactBytes = sizeof(TopFact);

int64_t hidden_elements(const Shape& s) { return s.rows * s.hidden_size; }
int64_t heads_elements(const Shape& s) { return s.rows * (s.query_size + s.key_value_size); }
int64_t ffn_elements(const Shape& s) { return s.rows * s.ffn_size; }
int64_t vocab_elements(const Shape& s) { return s.rows * s.vocab_size; }
int64_t rows(const Shape& s) { return s.rows; }
int64_t parameters(const Shape& s) { return s.parameters; }
int64_t pieces(const Shape& s) { return s.pieces; }

/// x, delta and the weight, which stays in the cache; residual, normed and rstd.
Bytes residual_rms_norm(const Shape& s) {
  const int64_t activation = s.element_bytes * hidden_elements(s), weight = kFloat * hidden_elements(s);
  return {.loaded = 2 * activation + weight, .stored = 2 * activation + kFloat * s.rows, .cached = weight};
}

/// residual, gradients of normed and residual, the weight once a block; x's gradient; partial rows and their sum.
Bytes residual_rms_norm_backward(const Shape& s) {
  const int64_t activation = s.element_bytes * hidden_elements(s), row = kFloat * s.hidden_size,
                rows_of_blocks = kResidualRmsNormBlocks * row;
  return {.loaded = 3 * activation + 2 * rows_of_blocks,
          .stored = activation + rows_of_blocks + row,
          .cached = rows_of_blocks};
}

/// q and k, and of each head a row of the table and the weight, from the cache; q and k again, v is not copied.
Bytes qk_norm_rope(const Shape& s) {
  const int64_t heads = s.element_bytes * heads_elements(s), table_and_weight = 2 * kFloat * heads_elements(s);
  return {.loaded = heads + table_and_weight, .stored = heads, .cached = table_and_weight};
}

/// q and k before the norm, gradients of q, k and v, the table; weights once a block; the packed gradient; partial rows
/// of both weights and their sum. Heads that fit into one block.
Bytes qk_norm_rope_backward(const Shape& s) {
  const int64_t heads = s.element_bytes * heads_elements(s), values = s.element_bytes * s.rows * s.key_value_size,
                table = kFloat * heads_elements(s),
                weights = kQkNormRopeBlocks * kFloat * (s.query_size + s.key_value_size),
                sum = 2 * kFloat * s.head_size, partials = kQkNormRopeBlocks * sum;
  return {.loaded = 2 * heads + values + table + weights + partials,
          .stored = heads + values + partials + sum,
          .cached = table + weights};
}

/// The mask, or partial rows of its gradient, of all groups of rows.
int64_t mask_bytes(const Shape& s) { return s.ffn_mask ? swiglu_row_groups(s.rows) * kFloat * s.ffn_size : 0; }

/// gate, up and the mask, from the cache; hidden.
Bytes swiglu(const Shape& s) {
  const int64_t activation = s.element_bytes * ffn_elements(s), mask = mask_bytes(s);
  return {.loaded = 2 * activation + mask, .stored = activation, .cached = mask};
}

/// gate, up, hidden's gradient, the mask; gradients of gate and up; the mask's gradient in partial rows and their sum.
Bytes swiglu_backward(const Shape& s) {
  const int64_t activation = s.element_bytes * ffn_elements(s), mask = mask_bytes(s), partials = mask;
  return {.loaded = 3 * activation + mask + partials,
          .stored = 2 * activation + partials + (s.ffn_mask ? kFloat * s.ffn_size : 0),
          .cached = mask};
}

Bytes swiglu_backward_with_hidden(const Shape& s) {
  Bytes bytes = swiglu_backward(s);
  bytes.stored += s.element_bytes * ffn_elements(s);
  return bytes;
}

Bytes embedding(const Shape& s) {
  const int64_t activation = s.element_bytes * hidden_elements(s);
  return {.loaded = activation, .stored = activation};
}

/// The gradient of each row; the table's of each distinct token, read and written, and so the sums of long ones'
/// pieces.
Bytes embedding_backward(const Shape& s) {
  const int64_t sums = kFloat * (s.distinct_tokens + s.long_pieces) * s.hidden_size;
  return {.loaded = s.element_bytes * hidden_elements(s) + sums, .stored = sums};
}

/// Rows of `matrices` of logits that are walked `walks` times, from shared memory where they start at packs and fit
/// behind `ahead` bytes; the gradient in the place of one. `labels`: logits of a row that are read by themselves.
Bytes loss_rows(const Shape& s, int64_t matrices, int64_t walks, int64_t labels, int64_t ahead = 0) {
  const int64_t logits = s.element_bytes * vocab_elements(s);
  const int64_t row = s.element_bytes * s.vocab_size;
  const bool held = row % 16 == 0 && ahead + matrices * row + kLossArrayBytes <= kSharedBytes;
  const int64_t again = held ? 0 : (walks - 1) * matrices * logits;
  return {.loaded = matrices * logits + again + labels * s.element_bytes * s.rows,
          .stored = logits + kLossTermBytes * s.rows,
          .cached = again};
}

Bytes label_mix_rows(const Shape& s) { return loss_rows(s, 1, 2, 2); }
Bytes kl_rows(const Shape& s) { return loss_rows(s, 2, 2, 1); }
Bytes jsd_rows(const Shape& s) { return loss_rows(s, 2, 3, 1); }

/// The stored ids' logits are set aside, and their gradients written by themselves.
Bytes top_k_rows(const Shape& s) {
  Bytes bytes = loss_rows(s, 1, 2, s.ids + 1, (s.ids + 3) / 4 * 16);
  bytes.stored += 2 * s.ids * s.element_bytes * s.rows;
  return bytes;
}

Bytes add_loss_terms(const Shape& s) {
  return {.loaded = kLossTermBytes * s.rows + kSum * kNumLossTermSums, .stored = kSum * kNumLossTermSums};
}

/// Student and teacher; the loss of a row, and of cosine three products.
Bytes hidden_state_mse(const Shape& s) {
  return {.loaded = 2 * s.element_bytes * hidden_elements(s), .stored = kFloat * s.rows};
}
Bytes hidden_state_cosine(const Shape& s) {
  Bytes bytes = hidden_state_mse(s);
  bytes.stored += 3 * kFloat * s.rows;
  return bytes;
}
Bytes hidden_state_backward(const Shape& s) {
  const int64_t activation = s.element_bytes * hidden_elements(s);
  return {.loaded = 2 * activation, .stored = activation};
}

/// fp32 logits; an id of 8 bytes and whether it is to be trusted.
Bytes top_1_rows(const Shape& s) {
  return {.loaded = kFloat * vocab_elements(s), .stored = (kIdBytes + kFactBytes) * s.rows};
}

/// fp32 logits, a tile of them again for each draw, of which the last of a row is taken to be whole; ids of 8 bytes and
/// whether the row is to be trusted.
Bytes draw_rows(const Shape& s) {
  const int64_t tiles = kDrawTileBytes * s.ids * s.rows;
  return {.loaded = kFloat * vocab_elements(s) + tiles,
          .stored = (kIdBytes * s.ids + kFactBytes) * s.rows,
          .cached = tiles};
}

/// fp32 logits twice, and the true one for each point of the curve; the points' three numbers and the confidence.
Bytes calibrated_rows(const Shape& s) {
  const int64_t logits = kFloat * vocab_elements(s), points = kTemperaturePoints;
  return {.loaded = 2 * logits + kFloat * points * s.rows,
          .stored = static_cast<int64_t>(sizeof(CalibratedRow)) * s.rows,
          .cached = logits};
}
/// And a float for the weight of each.
Bytes weighted_draw_rows(const Shape& s) {
  Bytes bytes = draw_rows(s);
  bytes.stored += kFloat * s.ids * s.rows;
  return bytes;
}

/// Rows that are held in registers; the mask, its unsaturated part and a status word.
Bytes soft_top_k(const Shape& s) {
  return {.loaded = kFloat * ffn_elements(s), .stored = 2 * kFloat * ffn_elements(s) + kFloat * s.rows};
}
Bytes soft_top_k_backward(const Shape& s) {
  return {.loaded = 2 * kFloat * ffn_elements(s), .stored = kFloat * ffn_elements(s)};
}

Bytes optimizer_square_sums(const Shape& s) { return {.loaded = kFloat * s.parameters, .stored = kSum * s.pieces}; }
Bytes optimizer_vote(const Shape& s) { return {.loaded = kSum * (s.pieces + s.blocks), .stored = kSum * s.blocks}; }
Bytes adastar_square_sums(const Shape& s) { return {.loaded = 2 * kFloat * s.parameters, .stored = kSum * s.pieces}; }
Bytes adastar_inverse_rms(const Shape& s) { return {.loaded = kSum * s.pieces, .stored = kSum * s.blocks}; }

/// Gradient, v, m and master, all written too; the working copy.
Bytes move(const Shape& s) {
  const int64_t copy = s.element_bytes == kFloat ? 0 : s.element_bytes;
  return {.loaded = 4 * kFloat * s.parameters, .stored = (4 * kFloat + copy) * s.parameters};
}
/// The master is two bytes of working copy and two of remainder.
Bytes move_split(const Shape& s) { return {.loaded = 16 * s.parameters, .stored = 16 * s.parameters}; }
/// A master into its halves, or out of them.
Bytes halves(const Shape& s) { return {.loaded = kFloat * s.parameters, .stored = kFloat * s.parameters}; }

}  // namespace

// Instructions and special functions of an element are those of the machine code for sm_90, by nvcc 13.0, as
// scripts/kernel_table counts them; it fails where they are no longer so. Estimates are those of the sums over few
// values (add_loss_terms, optimizer_vote, adastar_inverse_rms) and of Soft-Top-K, whose passes depend on the scores.
const std::array<KernelCost, static_cast<size_t>(Kernel::count)> kKernelCosts = {{
    {"residual_rms_norm", residual_rms_norm, hidden_elements, 23, 0},
    {"residual_rms_norm_backward", residual_rms_norm_backward, hidden_elements, 26.2, 0},
    {"qk_norm_rope", qk_norm_rope, heads_elements, 17.4, 0},
    {"qk_norm_rope_backward", qk_norm_rope_backward, heads_elements, 15.9, 0},
    {"swiglu", swiglu, ffn_elements, 12, 2},
    {"swiglu_backward", swiglu_backward, ffn_elements, 23.8, 2},
    {"swiglu_backward_with_hidden", swiglu_backward_with_hidden, ffn_elements, 23.8, 2},
    {"embedding", embedding, hidden_elements, 4.1, 0},
    {"embedding_backward", embedding_backward, hidden_elements, 4.2, 0},
    {"label_mix_rows", label_mix_rows, vocab_elements, 13.6, 2.1},
    {"top_k_rows", top_k_rows, vocab_elements, 13.6, 2.1},
    {"kl_rows", kl_rows, vocab_elements, 30.8, 4.4},
    {"jsd_rows", jsd_rows, vocab_elements, 52.9, 8.2},
    {"add_loss_terms", add_loss_terms, rows, 20, 0, 5e-6},
    {"hidden_state_mse", hidden_state_mse, hidden_elements, 7, 0},
    {"hidden_state_cosine", hidden_state_cosine, hidden_elements, 8.1, 0},
    {"hidden_state_backward", hidden_state_backward, hidden_elements, 8, 0},
    {"top_1_rows", top_1_rows, vocab_elements, 12, 0},
    {"draw_rows", draw_rows, vocab_elements, 42.2, 1},
    {"calibrated_rows", calibrated_rows, vocab_elements, 100, 1},
    {"weighted_draw_rows", weighted_draw_rows, vocab_elements, 69.2, 2},
    {"soft_top_k", soft_top_k, ffn_elements, 60, 1, 17.5e-6},
    {"soft_top_k_backward", soft_top_k_backward, ffn_elements, 12, 0, 7e-6},
    {"optimizer_square_sums", optimizer_square_sums, parameters, 4, 0},
    {"optimizer_vote", optimizer_vote, pieces, 4, 0},
    {"adastar_square_sums", adastar_square_sums, parameters, 13, 1},
    {"adastar_inverse_rms", adastar_inverse_rms, pieces, 4, 0},
    {"adastar_move", move, parameters, 32.5, 1},
    {"adastar_move_split", move_split, parameters, 47.1, 1},
    {"adamw_move", move, parameters, 46.2, 2},
    {"adamw_move_split", move_split, parameters, 56.8, 2},
    {"split_masters", halves, parameters, 10, 0},
    {"join_masters", halves, parameters, 8, 0},
}};

double instruction_budget(const KernelCost& cost, const KernelShape& shape) {
  return kInstructionsPerByte * static_cast<double>(cost.bytes(shape).of_memory()) /
         static_cast<double>(cost.elements(shape));
}

double predicted_seconds(const KernelCost& cost, const KernelShape& shape, const DeviceRates& device) {
  const auto elements = static_cast<double>(cost.elements(shape));
  std::array<double, 3> limits{static_cast<double>(cost.bytes(shape).of_memory()) / device.bytes,
                               elements * cost.instructions / device.instructions,
                               elements * cost.specials / device.specials};
  std::ranges::sort(limits, std::ranges::greater());
  const double share = limits[1] > 0.6 * limits[0] ? 0.85 : 0.92;
  return std::max(limits[0] / share, cost.latency_s);
}

namespace {

constexpr Shape kActivations{
    .rows = 16'384, .hidden_size = 3072, .query_size = 3072, .key_value_size = 1024, .head_size = 128};
constexpr Shape kTokens{.rows = 8192, .hidden_size = 3072, .distinct_tokens = 3000};
constexpr Shape kScores{.rows = 26, .ffn_size = 23'296};
constexpr Shape kDrawn{.rows = 8192, .vocab_size = 49'152, .ids = 16};

constexpr Shape ffn(int64_t channels) { return {.rows = 16'384, .ffn_size = channels}; }
constexpr Shape logits(int64_t vocab_size) { return {.rows = 8192, .vocab_size = vocab_size, .ids = 64}; }
/// One piece per 4096 parameters, which is a cell of models between 2.1e9 and 4.3e9.
constexpr Shape optimizer(int64_t parameters) {
  return {.parameters = parameters, .pieces = parameters / 4096, .blocks = 200};
}

}  // namespace

const std::vector<PredictedRow>& predicted_rows() {
  using enum Kernel;
  static const std::vector<Kernel> kAdastar = {optimizer_square_sums, adastar_square_sums, adastar_move},
                                   kSplitAdastar = {optimizer_square_sums, adastar_square_sums, adastar_move_split},
                                   kAdamw = {optimizer_square_sums, adamw_move};
  static const std::vector<PredictedRow> kRows = {
      {{residual_rms_norm}, kActivations, "N 16,384, D 3072"},
      {{residual_rms_norm_backward}, kActivations, "N 16,384, D 3072"},
      {{qk_norm_rope}, kActivations, "N 16,384, Dq 3072, Dkv 1024, K 128"},
      {{qk_norm_rope_backward}, kActivations, "N 16,384, Dq 3072, Dkv 1024, K 128"},
      {{swiglu}, ffn(8064), "N 16,384, F 8064"},
      {{swiglu_backward}, ffn(8064), "N 16,384, F 8064"},
      {{swiglu_backward_with_hidden}, ffn(8064), "N 16,384, F 8064"},
      {{swiglu}, ffn(23'296), "N 16,384, F 23,296"},
      {{swiglu_backward_with_hidden}, ffn(23'296), "N 16,384, F 23,296"},
      {{label_mix_rows}, logits(49'152), "N 8192, V 49,152"},
      {{label_mix_rows}, logits(128'256), "N 8192, V 128,256"},
      {{top_k_rows}, logits(49'152), "N 8192, V 49,152, 64 ids"},
      {{kl_rows}, logits(49'152), "N 8192, V 49,152"},
      {{jsd_rows}, logits(49'152), "N 8192, V 49,152"},
      {{kl_rows}, logits(128'256), "N 8192, V 128,256"},
      {{jsd_rows}, logits(128'256), "N 8192, V 128,256"},
      {{hidden_state_mse}, kTokens, "N 8192, D 3072"},
      {{hidden_state_cosine}, kTokens, "N 8192, D 3072"},
      {{hidden_state_backward}, kTokens, "N 8192, D 3072"},
      {{top_1_rows}, logits(49'152), "N 8192, V 49,152"},
      {{draw_rows}, kDrawn, "N 8192, V 49,152, 16 draws"},
      {{weighted_draw_rows}, kDrawn, "N 8192, V 49,152, 16 draws"},
      {{calibrated_rows}, logits(49'152), "N 8192, V 49,152"},
      {{embedding}, kTokens, "N 8192, D 3072, 3000 distinct"},
      {{embedding_backward}, kTokens, "N 8192, D 3072, 3000 distinct"},
      {kAdastar, optimizer(2'738'000'000), "2.738e9 parameters"},
      {kAdastar, optimizer(6'388'000'000), "6.388e9 parameters"},
      {kSplitAdastar, optimizer(6'388'000'000), "6.388e9 parameters, split master"},
      {kAdamw, optimizer(2'738'000'000), "2.738e9 parameters"},
      {{soft_top_k}, kScores, "26 x 23,296"},
      {{soft_top_k_backward}, kScores, "26 x 23,296"},
  };
  return kRows;
}

double PredictedRow::bytes() const {
  double sum = 0;
  for (const Kernel kernel : kernels) sum += static_cast<double>(cost_of(kernel).bytes(shape).of_memory());
  return sum;
}

double PredictedRow::seconds(const DeviceRates& device) const {
  double sum = 0;
  for (const Kernel kernel : kernels) sum += predicted_seconds(cost_of(kernel), shape, device);
  return sum;
}

}  // namespace coppice
