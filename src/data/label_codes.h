// The most probable ids of a token in a row of fixed bytes (code q8): the ids sorted (sorted_ids.h), then, in their
// order, a byte for the log-probability of each, and a byte for that of all others together. A row of zeros is no
// label. A byte c is e^(-c/16). Log-probabilities are rounded to the nearest step, so that those down to -15.9 are
// within 1/32 of what was given (a probability within 3.2%); less probable ids have that of e^-15.9 = 1.2e-7. But the
// first id stays the only one of its byte, so that it is told from the others: it goes one step up, or those of its
// byte one step down, whichever is less than a step from what was given (6.5%). Private to src/data.
#pragma once

#include <c10/util/Half.h>

#include <cstdint>
#include <vector>

#include "src/data/sorted_ids.h"

namespace coppice {

inline constexpr const char* kCodesDataset = "/codes";

/// Stored probabilities made to add up to 1 with the tail again: k log-probabilities, -infinity where there is no id.
void normalise(float* logp, uint64_t k, float& tail);

class LabelCode {
 public:
  LabelCode(uint64_t k, uint64_t vocab_size);
  uint64_t row_bytes() const { return id_bytes_ + k_ + 1; }
  /// Into a row of zeros: different ids, the most probable first, kNoLabel from the first place on that holds none; a
  /// tail of -infinity = nothing left over.
  void write(const int32_t* id, const c10::Half* logp, c10::Half tail, uint8_t* row) const;
  /// k ids, the most probable first, the lower first among equals, kNoLabel and -infinity where there is none. What is
  /// wrong with a row that is none that write() makes, nullptr where nothing is. For one thread at a time.
  const char* read(const uint8_t* row, int64_t* id, float* logp, float* tail) const;

 private:
  uint64_t k_;
  SortedIdCode ids_;
  uint64_t id_bytes_;
  mutable std::vector<int64_t> sorted_;
};

}  // namespace coppice
