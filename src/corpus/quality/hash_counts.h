// How often each of a document's pieces occurs, by 64-bit hash: one table for all rules, used again and again.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <vector>

namespace coppice {

/// Two 64-bit values to one, by the halves of their product.
inline uint64_t mix_hashes(uint64_t a, uint64_t b) {
  const unsigned __int128 product = static_cast<unsigned __int128>(a ^ 0x9E3779B97F4A7C15U) * (b ^ 0xD1B54A32D192ED03U);
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

/// Open addressing, linear probing. 16 bytes a slot, two slots a key.
class HashCounts {
 public:
  /// Empties it, with room for so many different keys.
  void start(size_t keys) {
    const size_t size = std::bit_ceil(2 * keys + 2);
    if (slots_.size() < size) slots_.resize(size);
    std::fill_n(slots_.begin(), size, Slot{});
    mask_ = size - 1;
  }
  /// Counts a key once more; its slot.
  uint32_t add(uint64_t key) {
    size_t at = key & mask_;
    while (slots_[at].count != 0 && slots_[at].key != key) at = (at + 1) & mask_;
    slots_[at].key = key;
    ++slots_[at].count;
    return static_cast<uint32_t>(at);
  }
  uint32_t count(uint32_t slot) const { return slots_[slot].count; }

 private:
  struct Slot {
    uint64_t key = 0;
    uint32_t count = 0;
  };
  std::vector<Slot> slots_;
  size_t mask_ = 0;
};

}  // namespace coppice
