// Sorts records of 64-bit words by their words, the first one first. Hashes are spread evenly, so a few passes of a
// radix sort from the top, in memory that fits a cache from the second on, leave groups so small that the rest is an
// insertion sort. Time is linear in the records, whatever their words.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace coppice {

namespace record_sort {

inline constexpr size_t kSmall = 48;  // records that are sorted by insertion

template <size_t Words>
void insertion_sort(std::span<std::array<uint64_t, Words>> records) {
  for (size_t i = 1; i < records.size(); ++i) {
    const std::array<uint64_t, Words> record = records[i];
    size_t place = i;
    for (; place > 0 && record < records[place - 1]; --place) records[place] = records[place - 1];
    records[place] = record;
  }
}

/// Sorts `from` by the bytes behind `digit`, byte 0 being the highest of the first word; the result is in `from`, or in
/// `to` where `into_to`.
template <size_t Words>
void sort_from(std::span<std::array<uint64_t, Words>> from, std::span<std::array<uint64_t, Words>> to, size_t digit,
               bool into_to) {
  if (from.size() <= kSmall || digit == 8 * Words) {
    if (digit < 8 * Words) insertion_sort(from);
    if (into_to) std::ranges::copy(from, to.begin());
    return;
  }
  const size_t word = digit / 8, shift = 56 - 8 * (digit % 8);
  std::array<size_t, 257> begin = {};
  for (const auto& record : from) ++begin[(record[word] >> shift & 255) + 1];
  if (begin[(from[0][word] >> shift & 255) + 1] == from.size()) return sort_from(from, to, digit + 1, into_to);
  for (size_t value = 0; value < 256; ++value) begin[value + 1] += begin[value];
  std::array<size_t, 257> next = begin;
  for (const auto& record : from) to[next[record[word] >> shift & 255]++] = record;
  for (size_t value = 0; value < 256; ++value) {
    const size_t size = begin[value + 1] - begin[value];
    if (size > 0) sort_from(to.subspan(begin[value], size), from.subspan(begin[value], size), digit + 1, !into_to);
  }
}

}  // namespace record_sort

/// `space` grows to as many records.
template <size_t Words>
void sort_records(std::span<std::array<uint64_t, Words>> records, std::vector<std::array<uint64_t, Words>>& space) {
  if (space.size() < records.size()) space.resize(records.size());
  record_sort::sort_from(records, std::span(space).first(records.size()), 0, false);
}

}  // namespace coppice
