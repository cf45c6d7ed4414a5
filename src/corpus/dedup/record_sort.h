// Sorts records of 64-bit words by their words, the first one first. Hashes are spread evenly, so a few passes of a
// radix sort from the top, in memory that fits a cache from the second on, leave groups so small that the rest is an
// insertion sort. Time is linear in the records, whatever their words.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
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

/// How many bits tell so many records apart into groups of about eight; a byte at most, whose counts fit a cache.
inline size_t bits_for(size_t records) { return std::min<size_t>(std::bit_width(records / 8), 8); }

/// Sorts `from` by the bits behind `bit`, bit 0 being the highest of the first word; the result is in `from`, or in
/// `to` where `into_to`.
template <size_t Words>
void sort_from(std::span<std::array<uint64_t, Words>> from, std::span<std::array<uint64_t, Words>> to, size_t bit,
               bool into_to) {
  if (from.size() <= kSmall || bit == 64 * Words) {
    if (bit < 64 * Words) insertion_sort(from);
    if (into_to) std::ranges::copy(from, to.begin());
    return;
  }
  const size_t word = bit / 64, bits = std::min(bits_for(from.size()), 64 - bit % 64), shift = 64 - bit % 64 - bits;
  const uint64_t mask = (uint64_t{1} << bits) - 1;
  const auto value_of = [&](const auto& record) { return record[word] >> shift & mask; };
  std::array<uint64_t, 257> begin;
  std::fill_n(begin.begin(), mask + 2, 0);
  for (const auto& record : from) ++begin[value_of(record) + 1];
  if (begin[value_of(from[0]) + 1] == from.size()) return sort_from(from, to, bit + bits, into_to);
  for (size_t value = 0; value <= mask; ++value) begin[value + 1] += begin[value];
  // Places go forward to the ends of their groups, which are the begins of the next.
  for (const auto& record : from) to[begin[value_of(record)]++] = record;
  for (size_t value = 0, first = 0; value <= mask; first = begin[value++])
    if (const size_t size = begin[value] - first; size > 0)
      sort_from(to.subspan(first, size), from.subspan(first, size), bit + bits, !into_to);
}

}  // namespace record_sort

/// `space` grows to as many records.
template <size_t Words>
void sort_records(std::span<std::array<uint64_t, Words>> records, std::vector<std::array<uint64_t, Words>>& space) {
  if (space.size() < records.size()) space.resize(records.size());
  record_sort::sort_from(records, std::span(space).first(records.size()), 0, false);
}

}  // namespace coppice
