// What the loss kernels share about one row of logits: what it contributes, its maximum, sums of exponentials, and the
// teacher's choices (top-1, top-k). Sums run in float over kSumBlock entries and in double over blocks; a row is read a
// few times, which the first read brought into the core's cache.
#pragma once

#include <cstdint>

#include "src/tensors/ignored_label.h"

namespace coppice {

inline constexpr int64_t kSumBlock = 128;  // summed in float before a double takes over: good to 2e-7

/// What one row contributes; all zero for an ignored row (top_1 = -1).
struct LossRow {
  double ce = 0;               // -log p[true]
  double kd = 0;               // the teacher's term; 0 where the teacher has no weight
  double z = 0;                // zeta lse^2
  int64_t top_1 = -1;          // argmax, lowest id on ties; -1 when not asked for
  int64_t teacher_top_1 = -1;  // what the teacher would choose; -1 where that is unknown or not asked for
};

/// What all parts of a vocabulary that is cut over ranks know of a chunk's rows, in the order of ids; Row is a struct
/// of doubles. A loss over one part walks its rows twice: statistics first, and the gradient once all parts' are known.
template <class Row>
struct RowParts {
  const Row* own = nullptr;  // (C): this part's
  const Row* all = nullptr;  // (parts, C)
  int64_t num_parts = 0, num_rows = 0;
  const Row& at(int64_t part, int64_t row) const { return all[part * num_rows + row]; }
};

struct Largest {
  float value;
  int64_t block;  // start of the first block that holds it
};
/// With a NaN in the row the value is unspecified; the exponentials then carry the NaN on.
Largest find_largest(const float* z, int64_t n);
/// The first entry equal to the largest.
int64_t find_first(const float* z, int64_t n, const Largest& largest);

/// Sum of exp((z - largest) * inverse_temperature); in place, the exponentials replace z.
double sum_exponentials(const float* z, int64_t n, float largest, float inverse_temperature);
double sum_exponentials_in_place(float* z, int64_t n, float largest);
/// z = factor z
void multiply_row(float* z, int64_t n, float factor);

/// How far the choices of a row are to be trusted.
enum class TopFact : uint8_t { clear, near_tie, not_finite };
inline constexpr float kNearTie =
    1e-5f;  // relative to the best logit: what another batch shape may round the other way
/// near_tie: a second logit lies within kNearTie of the largest. not_finite: a NaN or an infinite maximum.
TopFact judge_top(const float* z, int64_t n, float largest);

/// argmax of each row of logits (C, V), lowest id on ties. `fact` (C) may be null.
void top_1_cpu(const float* logits, int64_t num_rows, int64_t num_vocab, int64_t* top_1, TopFact* fact = nullptr);

struct TopKParams {
  float* logits = nullptr;  // (C, V): overwritten where a row's chosen entries are set aside
  int64_t num_rows = 0;     // C
  int64_t num_vocab = 0;    // V
  int64_t k = 1;            // 1 to V
  double temperature = 1;   // of the probabilities
  int64_t* id = nullptr;    // (C, K): descending logit, lower id first on ties
  float* logp = nullptr;    // (C, K): log-probability of each
  float* tail = nullptr;    // (C): log of the mass of all others; -infinity where nothing is left
  TopFact* fact = nullptr;  // (C), or null
};
/// The k largest entries of each row with their log-probabilities.
void top_k_cpu(const TopKParams& params);

}  // namespace coppice
