// Numbers drawn one after the other from the keyed stream of one context.
#pragma once

#include <cstdint>
#include <vector>

#include "src/base/random.h"
#include "src/text/documents.h"

namespace coppice {

class Draws {
 public:
  Draws(uint64_t seed, std::string_view id) : seed_(seed), key_(document_hash(id) >> 8) {}
  /// Uniform in [0, count), of at least one.
  size_t below(size_t count) {
    return static_cast<size_t>(random_bits(seed_, Purpose::long_qa, key_, next_++) % count);
  }
  template <class Item>
  const Item& one_of(const std::vector<Item>& items) {
    return items[below(items.size())];
  }
  /// Moves `count` drawn ones to the front.
  template <class Item>
  void shuffle(std::vector<Item>& items, size_t count) {
    for (size_t i = 0; i < count && i + 1 < items.size(); ++i) std::swap(items[i], items[i + below(items.size() - i)]);
  }

 private:
  uint64_t seed_, key_, next_ = 0;
};

}  // namespace coppice
