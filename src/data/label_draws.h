// Several draws a token as a label file holds them (tier sample). Sorted, the most drawn id first and the lower first
// among equals, R draws are their different ids and R - 1 bits: bit j is set where draw j + 1 is the id of draw j
// again. So a token with u different ids takes 2 u + ceil((R - 1) / 8) bytes, and one draw its id alone. A token
// without a label is one id that is none, R times. Private to src/data.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "src/tensors/draws.h"
#include "src/tokens/columns.h"

namespace coppice {

inline constexpr const char* kRepeatsDataset = "/repeats";
inline constexpr uint64_t repeat_bytes(uint64_t draws) { return (draws + 6) / 8; }  // of a row

/// Sets the bits of a row whose bytes are 0.
void store_counts(std::span<const DrawnId> drawn, uint8_t* bits);

/// How often each id of a file's rows was drawn: what /repeats says, and where in /draws a row begins.
class DrawCounts {
 public:
  /// UserError::bad_file where the column is not of these rows, has a bit too many, or counts other than `ids` ids.
  DrawCounts(const std::filesystem::path& file, uint64_t rows, uint64_t draws, uint64_t ids);
  void finish_checks() { repeats_.finish_checks(); }
  /// Counts of the different ids of rows [row, row + count), row after row, those of each adding up to `draws`. Returns
  /// the place of the first in /draws.
  uint64_t read(uint64_t row, uint64_t count, std::vector<uint32_t>& counts) const;

 private:
  uint64_t different_ids(const uint8_t* bits) const;  // of a row

  static constexpr uint64_t kStride = 4096;  // rows from one known place to the next: 2 bytes of memory a thousand rows
  RawColumn repeats_;
  uint64_t draws_;
  std::vector<uint64_t> place_;  // of every kStride-th row
};

}  // namespace coppice
