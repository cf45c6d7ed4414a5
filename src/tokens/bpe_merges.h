// Byte pair encoding by ranks: of all neighbours that a merge joins, the merge of the lowest rank goes first, and of
// its places the leftmost. Private to src/tokens.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace coppice {

inline constexpr size_t kMaxMerges = size_t{1} << 22;  // of a tokenizer that is read

struct Merge {
  int32_t left = 0, right = 0, result = 0;  // ids; the rank is the place in the list
};

class BpeMerges {
 public:
  BpeMerges() = default;
  explicit BpeMerges(size_t count);  // room for so many
  /// Gives the merge the next rank; false where its pair has one. Ids from 0 to 2^20.
  bool add(const Merge& merge);

  /// What one thread needs while it merges.
  struct Scratch {
    std::vector<uint32_t> rank, next, previous;
    std::vector<int32_t> result;
    std::vector<uint64_t> heap;
  };
  /// Joins neighbours in `ids` until none of them can be: O(n log n).
  void apply(std::vector<int32_t>& ids, Scratch& scratch) const;

 private:
  static constexpr uint32_t kNone = std::numeric_limits<uint32_t>::max();
  struct Place {
    uint64_t pair = 0;
    uint32_t rank = kNone;  // of a place that is free
    int32_t result = 0;
  };
  size_t place_of(uint64_t pair) const;
  const Place& find(int32_t left, int32_t right) const;
  void apply_short(std::vector<int32_t>& ids, Scratch& scratch) const;
  void apply_long(std::vector<int32_t>& ids, Scratch& scratch) const;

  std::vector<Place> places_ = std::vector<Place>(2);  // open addressing, a power of two, at most two thirds full
  unsigned shift_ = 63;
  uint32_t count_ = 0;
};

}  // namespace coppice
