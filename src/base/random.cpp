// Philox4x32-10 and what is built on it. The 128-bit counter is index (64 bits), step (56 bits), purpose (8 bits); the
// key is the seed: every (seed, purpose, step, index) has a counter of its own, so no two draws share bits.
#include "src/base/random.h"

#include <bit>
#include <cmath>
#include <numbers>

#include "src/base/errors.h"

namespace coppice {
namespace {

constexpr uint32_t kMultiplier0 = 0xD2511F53, kMultiplier1 = 0xCD9E8D57;
constexpr uint32_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;  // golden ratio, sqrt(3) - 1
constexpr int kRounds = 10;
constexpr int kFeistelRounds = 8;

std::array<uint32_t, 4> draw(uint64_t seed, Purpose purpose, uint64_t step, uint64_t index) {
  COPPICE_CHECK(step >> 56 == 0, "step of a random stream must be below 2^56");
  const uint64_t high = (static_cast<uint64_t>(purpose) << 56) | step;
  return philox4x32({static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), static_cast<uint32_t>(high),
                     static_cast<uint32_t>(high >> 32)},
                    {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
}

uint64_t join(uint32_t low, uint32_t high) { return (static_cast<uint64_t>(high) << 32) | low; }

}  // namespace

std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < kRounds; ++round) {
    const uint64_t product0 = uint64_t{kMultiplier0} * counter[0];
    const uint64_t product1 = uint64_t{kMultiplier1} * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(product0)};
    key[0] += kWeyl0;
    key[1] += kWeyl1;
  }
  return counter;
}

uint64_t random_bits(uint64_t seed, Purpose purpose, uint64_t step, uint64_t index) {
  const auto words = draw(seed, purpose, step, index);
  return join(words[0], words[1]);
}

double random_uniform(uint64_t seed, Purpose purpose, uint64_t step, uint64_t index) {
  return static_cast<double>(random_bits(seed, purpose, step, index) >> 11) * 0x1p-53;
}

void fill_normal(std::span<float> out, double std, uint64_t seed, Purpose purpose, uint64_t step,
                 uint64_t first_element) {
  for (size_t i = 0; i < out.size();) {  // a draw makes a pair: elements 2n and 2n + 1
    const bool begins_with_second = (first_element + i) % 2 != 0;
    const auto words = draw(seed, purpose, step, (first_element + i) / 2);
    const double u =
        static_cast<double>((join(words[0], words[1]) >> 11) + 1) * 0x1p-53;  // in (0, 1]: the logarithm stays finite
    const double angle = 2.0 * std::numbers::pi * static_cast<double>(join(words[2], words[3]) >> 11) * 0x1p-53;
    const double radius = std * std::sqrt(-2.0 * std::log(u));
    if (!begins_with_second) out[i++] = static_cast<float>(radius * std::cos(angle));
    if (i < out.size()) out[i++] = static_cast<float>(radius * std::sin(angle));
  }
}

uint64_t permute(uint64_t i, uint64_t size, uint64_t seed, Purpose purpose, uint64_t step) {
  COPPICE_CHECK(i < size, "permute outside its range");
  if (size == 1) return 0;
  const int half_bits =
      (std::bit_width(size - 1) + 1) / 2;  // the domain 4^half_bits is less than 4 * size: under 4 walks on average
  const uint64_t mask = (uint64_t{1} << half_bits) - 1;
  do {  // cycle walking: leave the network's domain [0, 4^half_bits) only at a point of [0, size)
    uint64_t left = i >> half_bits, right = i & mask;
    for (uint64_t round = 0; round < kFeistelRounds; ++round) {
      const uint64_t mixed = left ^ (random_bits(seed, purpose, step, (round << 32) | right) & mask);
      left = right;
      right = mixed;
    }
    i = (left << half_bits) | right;
  } while (i >= size);
  return i;
}

}  // namespace coppice
