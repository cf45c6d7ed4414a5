// Sorted ids in a fixed number of bits. Private to src/data.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

namespace coppice {

/// Up to `most` ids of 0 to vocab_size - 1 in ascending order, equal ones allowed, as Elias (1974) and Fano (1971)
/// store such a list: for each value of the high bits, in order, a 1 for every id that has it and then a 0; behind them
/// the low bits of each id. How many low bits there are is chosen so that the whole is shortest: of 16 ids out of
/// 49,152 it is 215 bits, where log2 of the number of such sets is 205 and plain ids take 256.
class SortedIdCode {
 public:
  SortedIdCode(uint64_t most, uint64_t vocab_size);
  uint64_t bits() const { return high_bits_ + most_ * low_bits_; }
  /// Writes into bits [bit, bit + bits()) of `row`, which are 0; bit i is bit i % 8 of byte i / 8.
  void write(std::span<const int64_t> ids, uint8_t* row, uint64_t bit) const;
  /// How many ids there are, written to `ids`; nothing where the bits are none that write() leaves.
  std::optional<uint64_t> read(const uint8_t* row, uint64_t bit, int64_t* ids) const;

 private:
  uint64_t most_, vocab_size_, low_bits_ = 0, high_values_ = 0, high_bits_ = 0;
};

}  // namespace coppice
