// CPython's random.Random, as far as lm-evaluation-harness draws from it: the same seed gives the same numbers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

namespace coppice {

class PythonRandom {
 public:
  explicit PythonRandom(uint32_t seed);
  /// random.sample over positions: `count` different ones below `size`, in the order drawn; count <= size.
  std::vector<size_t> sample(size_t size, size_t count);
  /// random.random(): [0, 1).
  double uniform();

 private:
  size_t below(size_t bound);
  std::mt19937 generator_;
};

}  // namespace coppice
