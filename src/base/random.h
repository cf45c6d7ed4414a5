// Counter-based random numbers: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
// A number is a pure function of (seed, purpose, step, index): there is no generator state to save, so a resumed run
// draws what the undisturbed one would have drawn.
#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace coppice {

/// What the numbers are for: streams of different purposes never overlap.
enum class Purpose : uint32_t {
  init = 1,           // fresh weights; step = row of the parameter table
  data_order = 2,     // window permutation; step = epoch
  mask_scores = 3,    // start noise of mask scores; step = layer
  random_scores = 4,  // importance "random"; step = layer
  sampling = 5,       // generate
  split = 6,          // tokenizer's training sample
  mask_noise = 7,     // HardConcrete gates; step = training step, index = layer << 32 | channel
  label_draws = 8,    // labels of tier sample; step = token shard, index = offset << 8 | draw
  copying = 9,        // random tokens that are repeated (src/evaluate/copying.h); step = distance << 24 | permutation
  long_qa = 10,       // questions about long texts; step = upper 56 bits of the id's hash, index = draw
  test = 100,
};

/// Ten rounds of Philox4x32 on one 128-bit counter under a 64-bit key.
std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

/// 64 random bits for (seed, purpose, step, index).
uint64_t random_bits(uint64_t seed, Purpose purpose, uint64_t step, uint64_t index);
/// Uniform in [0, 1), 53 bits.
double random_uniform(uint64_t seed, Purpose purpose, uint64_t step, uint64_t index);
/// Fills out[i] with N(0, std^2) by Box-Muller; it depends on (seed, purpose, step, first_element + i) alone.
void fill_normal(std::span<float> out, double std, uint64_t seed, Purpose purpose, uint64_t step,
                 uint64_t first_element = 0);

/// A keyed permutation of 0..size-1 evaluated at one point: Feistel rounds over Philox with cycle walking.
/// permute(i) is a bijection on [0, size) for every (seed, purpose, step).
uint64_t permute(uint64_t i, uint64_t size, uint64_t seed, Purpose purpose, uint64_t step);

}  // namespace coppice
