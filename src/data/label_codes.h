// The most probable ids of a token in a row of fixed bytes (tier topk with code q8, tier hybrid): the ids sorted
// (sorted_ids.h) and, in tier hybrid, the draws of all others, sorted too; then, in the order of the ids, a byte for
// the log-probability of each, and a byte for that of all others together. A row of zeros is no label. A byte c is
// e^(-c/16). Log-probabilities are rounded to the nearest step, so that those down to -15.9 are within 1/32 of what was
// given (a probability within 3.2%); less probable ids have that of e^-15.9 = 1.2e-7. But the first id stays the only
// one of its byte, so that it is told from the others: it goes one step up, or those of its byte one step down,
// whichever is less than a step from what was given (6.5%). Private to src/data.
#pragma once

#include <c10/util/Half.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "src/data/sorted_ids.h"

namespace coppice {

inline constexpr const char* kCodesDataset = "/codes";

/// Stored probabilities made to add up to 1 with the tail again: k log-probabilities, -infinity where there is no id.
void normalise(float* logp, uint64_t k, float& tail);

/// One token's k different ids, the most probable first, kNoLabel from the first place on that holds none, their
/// log-probabilities, the log of what they leave over (-infinity = nothing), and draws of that (kNoLabel = none;
/// nullptr where the code has none).
struct GivenLabel {
  const int32_t* id;
  const c10::Half* logp;
  c10::Half tail;
  const int32_t* drawn;  // in any order
};
struct LabelRow {
  int64_t* id;  // the lower one first among equals
  float* logp;
  float tail;
  int64_t* drawn;  // ascending
};

class LabelCode {
 public:
  /// Of k ids, and of some draws of the rest (0 = none).
  LabelCode(uint64_t k, uint64_t draws, uint64_t vocab_size);
  uint64_t row_bytes() const { return id_bytes_ + k_ + 1; }
  /// Into a row of zeros.
  void write(const GivenLabel& label, uint8_t* row) const;
  /// Into the label's places. What is wrong with a row that is none that write() makes, nullptr where nothing is. For
  /// one thread at a time.
  const char* read(const uint8_t* row, LabelRow& label) const;

 private:
  const char* read_ids(const uint8_t* row, uint64_t* count, LabelRow& label) const;

  uint64_t k_, draws_;
  SortedIdCode ids_;
  std::optional<SortedIdCode> rest_;  // of the draws
  uint64_t id_bytes_;
  mutable std::vector<int64_t> sorted_;
};

}  // namespace coppice
