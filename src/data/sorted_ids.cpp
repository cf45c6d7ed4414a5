#include "src/data/sorted_ids.h"

#include <fmt/format.h>

#include <algorithm>

#include "src/base/errors.h"

namespace coppice {

namespace {

/// visit(byte, first bit in it, bits, bits before) for the parts of a range that lie in one byte each.
template <class Visit>
void for_each_byte(uint64_t bit, uint64_t count, const Visit& visit) {
  for (uint64_t done = 0; done < count;) {
    const uint64_t at = bit + done, part = std::min(count - done, 8 - at % 8);
    visit(at / 8, at % 8, part, done);
    done += part;
  }
}

void put_bits(uint8_t* row, uint64_t bit, uint64_t count, uint64_t value) {
  for_each_byte(bit, count, [&](uint64_t byte, uint64_t first, uint64_t part, uint64_t done) {
    row[byte] = static_cast<uint8_t>(row[byte] | (value >> done & ((uint64_t{1} << part) - 1)) << first);
  });
}

uint64_t get_bits(const uint8_t* row, uint64_t bit, uint64_t count) {
  uint64_t value = 0;
  for_each_byte(bit, count, [&](uint64_t byte, uint64_t first, uint64_t part, uint64_t done) {
    value |= (uint64_t{row[byte]} >> first & ((uint64_t{1} << part) - 1)) << done;
  });
  return value;
}

bool is_set(const uint8_t* row, uint64_t bit) { return (row[bit / 8] >> bit % 8 & 1U) != 0; }

}  // namespace

SortedIdCode::SortedIdCode(uint64_t most, uint64_t vocab_size) : most_(most), vocab_size_(vocab_size) {
  COPPICE_CHECK(most > 0 && vocab_size > 0, fmt::format("{} sorted ids of {}", most, vocab_size));
  uint64_t shortest = ~uint64_t{0};
  for (uint64_t low = 0; low == 0 || (vocab_size - 1) >> (low - 1) > 0; ++low) {
    const uint64_t values = ((vocab_size - 1) >> low) + 1, bits = most * low + most + values - 1;
    if (bits >= shortest) continue;
    shortest = bits;
    low_bits_ = low;
    high_values_ = values;
  }
  high_bits_ = most + high_values_ - 1;  // nothing follows the last value
}

void SortedIdCode::write(std::span<const int64_t> ids, uint8_t* row, uint64_t bit) const {
  COPPICE_CHECK(ids.size() <= most_, fmt::format("{} ids in a list of {}", ids.size(), most_));
  uint64_t before = 0;
  for (uint64_t i = 0; i < ids.size(); ++i) {
    const auto id = static_cast<uint64_t>(ids[i]);
    COPPICE_CHECK(before <= id && id < vocab_size_, fmt::format("id {} behind {} of {}", ids[i], before, vocab_size_));
    put_bits(row, bit + (id >> low_bits_) + i, 1, 1);  // behind the 0s of lower values and the 1s of earlier ids
    put_bits(row, bit + high_bits_ + i * low_bits_, low_bits_, id & ((uint64_t{1} << low_bits_) - 1));
    before = id;
  }
}

std::optional<uint64_t> SortedIdCode::read(const uint8_t* row, uint64_t bit, int64_t* ids) const {
  uint64_t count = 0, value = 0;
  for (uint64_t i = 0; i < high_bits_; ++i) {
    if (!is_set(row, bit + i)) {
      ++value;
      continue;
    }
    if (count == most_ || value >= high_values_) return std::nullopt;
    ids[count++] = static_cast<int64_t>(value << low_bits_);
  }
  for (uint64_t i = 0; i < most_; ++i) {
    const uint64_t low = get_bits(row, bit + high_bits_ + i * low_bits_, low_bits_);
    if (i >= count) {
      if (low != 0) return std::nullopt;
      continue;
    }
    ids[i] |= static_cast<int64_t>(low);
    if ((i > 0 && ids[i] < ids[i - 1]) || static_cast<uint64_t>(ids[i]) >= vocab_size_) return std::nullopt;
  }
  return count;
}

}  // namespace coppice
