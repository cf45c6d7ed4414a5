#include "src/tasks/python_random.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <unordered_set>

#include "src/base/errors.h"

namespace coppice {
namespace {

/// init_by_array of the reference MT19937 (Matsumoto, Nishimura), which CPython seeds with: as the state that
/// std::mt19937 takes from a sequence of 624 words.
class PythonSeed {
 public:
  using result_type = uint32_t;
  explicit PythonSeed(uint32_t key) {
    state_[0] = 19650218;
    for (uint32_t i = 1; i < kWords; ++i) state_[i] = 1812433253U * (state_[i - 1] ^ (state_[i - 1] >> 30)) + i;
    uint32_t i = 1;
    const auto step = [&](uint32_t factor) { return state_[i] ^ ((state_[i - 1] ^ (state_[i - 1] >> 30)) * factor); };
    const auto advance = [&] {
      if (++i < kWords) return;
      state_[0] = state_[kWords - 1];
      i = 1;
    };
    for (uint32_t k = 0; k < kWords; ++k) {
      state_[i] = step(1664525U) + key;
      advance();
    }
    for (uint32_t k = 0; k < kWords - 1; ++k) {
      state_[i] = step(1566083941U) - i;
      advance();
    }
    state_[0] = 0x80000000U;
  }
  template <class Iterator>
  void generate(Iterator begin, Iterator end) const {
    std::copy_n(state_.begin(), end - begin, begin);
  }

 private:
  static constexpr uint32_t kWords = 624;
  std::array<uint32_t, kWords> state_{};
};

std::mt19937 seeded(uint32_t seed) {
  PythonSeed sequence(seed);
  return std::mt19937(sequence);
}

}  // namespace

PythonRandom::PythonRandom(uint32_t seed) : generator_(seeded(seed)) {}

size_t PythonRandom::below(size_t bound) {
  COPPICE_CHECK(bound > 0 && bound <= UINT32_MAX, "a bound of 32 bits");
  const auto bits = std::bit_width(static_cast<uint32_t>(bound));
  for (;;)
    if (const uint32_t drawn = generator_() >> (32 - bits); drawn < bound) return drawn;
}

std::vector<size_t> PythonRandom::sample(size_t size, size_t count) {
  COPPICE_CHECK(count <= size, fmt::format("{} of {}", count, size));
  size_t set_size = 21;  // CPython: a set is smaller than a list of all
  if (count > 5)
    set_size += static_cast<size_t>(std::pow(4.0, std::ceil(std::log(static_cast<double>(count) * 3) / std::log(4.0))));
  std::vector<size_t> drawn;
  if (size <= set_size) {
    std::vector<size_t> left(size);
    for (size_t i = 0; i < size; ++i) left[i] = i;
    for (size_t i = 0; i < count; ++i) {
      const size_t at = below(size - i);
      drawn.push_back(left[at]);
      left[at] = left[size - i - 1];
    }
  } else {
    std::unordered_set<size_t> selected;
    for (size_t i = 0; i < count; ++i) {
      size_t at = below(size);
      while (!selected.insert(at).second) at = below(size);
      drawn.push_back(at);
    }
  }
  return drawn;
}

double PythonRandom::uniform() {
  const uint32_t high = generator_() >> 5, low = generator_() >> 6;  // 53 bits
  return (static_cast<double>(high) * 67108864.0 + static_cast<double>(low)) / 9007199254740992.0;
}

}  // namespace coppice
