// Disjoint sets of numbers as a forest in one array (Tarjan and van Leeuwen 1984): paths are halved on the way, and the
// smaller number is the root, so that the roots do not depend on the order of joining.
#pragma once

#include <cstdint>
#include <vector>

namespace coppice {

inline uint32_t find_root(std::vector<uint32_t>& parents, uint32_t number) {
  while (parents[number] != number) {
    parents[number] = parents[parents[number]];
    number = parents[number];
  }
  return number;
}

inline void join_roots(std::vector<uint32_t>& parents, uint32_t a, uint32_t b) {
  const uint32_t root_a = find_root(parents, a), root_b = find_root(parents, b);
  if (root_a < root_b) {
    parents[root_b] = root_a;
  } else {
    parents[root_a] = root_b;
  }
}

}  // namespace coppice
