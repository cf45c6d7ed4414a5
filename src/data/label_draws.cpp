#include "src/data/label_draws.h"

#include <fmt/format.h>

#include <bit>

#include "src/base/errors.h"

namespace coppice {

void store_counts(std::span<const DrawnId> drawn, uint8_t* bits) {
  uint64_t bit = 0;
  for (const DrawnId& one : drawn) {
    for (int64_t again = 1; again < one.count; ++again, ++bit)
      bits[bit / 8] = static_cast<uint8_t>(bits[bit / 8] | 1U << bit % 8);
    ++bit;  // the next id is another one
  }
}

DrawCounts::DrawCounts(const std::filesystem::path& file, uint64_t rows, uint64_t draws, uint64_t ids)
    : repeats_(file, kRepeatsDataset, Hdf5Type::u8, {rows, repeat_bytes(draws)}), draws_(draws) {
  const uint64_t unused = 8 * repeat_bytes(draws) - (draws - 1);  // bits of a row's last byte
  uint64_t place = 0;
  repeats_.scan([&](uint64_t begin, uint64_t count, const uint8_t* bits) {
    for (uint64_t row = begin; row < begin + count; ++row, bits += repeat_bytes(draws)) {
      if (row % kStride == 0) place_.push_back(place);
      if (bits[repeat_bytes(draws) - 1] >> (8 - unused) != 0)
        throw UserError::bad_file(file.string(),
                                  fmt::format("{}: row {} holds more than {} draws", kRepeatsDataset, row, draws));
      place += different_ids(bits);
    }
  });
  if (place != ids)
    throw UserError::bad_file(
        file.string(), fmt::format("{}: rows of {} different ids, and the file holds {}", kRepeatsDataset, place, ids));
}

uint64_t DrawCounts::different_ids(const uint8_t* bits) const {
  uint64_t different = draws_;
  for (uint64_t i = 0; i < repeat_bytes(draws_); ++i) different -= static_cast<uint64_t>(std::popcount(bits[i]));
  return different;
}

uint64_t DrawCounts::read(uint64_t row, uint64_t count, std::vector<uint32_t>& counts) const {
  counts.clear();
  if (count == 0) return 0;
  uint64_t at = row / kStride * kStride, place = place_.at(row / kStride);
  repeats_.read(at, row + count - at, [&](uint64_t rows, const uint8_t* bits) {
    for (uint64_t i = 0; i < rows; ++i, ++at, bits += repeat_bytes(draws_)) {
      if (at < row) {
        place += different_ids(bits);
        continue;
      }
      counts.push_back(1);
      for (uint64_t bit = 0; bit + 1 < draws_; ++bit) {
        if ((bits[bit / 8] >> bit % 8 & 1U) != 0) {
          ++counts.back();
        } else {
          counts.push_back(1);
        }
      }
    }
  });
  return place;
}

}  // namespace coppice
