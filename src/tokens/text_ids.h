// Ids of texts that lie in a list: open addressing over their hashes, at most half full. Private to src/tokens.
#pragma once

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <bit>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace coppice {

class TextIds {
 public:
  size_t size() const { return count_; }
  /// Room for so many.
  void reserve(size_t count) {
    if (2 * count > places_.size()) resize(std::bit_ceil(2 * count));
  }
  /// The id of a text; below 0: none. `texts`: the list that ids are places in.
  int32_t find(std::string_view text, const std::vector<std::string>& texts) const {
    const uint32_t hash = hash_of(text);
    for (uint32_t at = hash;; ++at)
      if (const Place& place = places_[at & (places_.size() - 1)];
          place.id < 0 || (place.hash == hash && texts[static_cast<size_t>(place.id)] == text))
        return place.id;
  }
  /// The text must not be known yet.
  void add(std::string_view text, int32_t id) {
    reserve(++count_);
    put({.hash = hash_of(text), .id = id});
  }

 private:
  struct Place {
    uint32_t hash = 0;
    int32_t id = -1;  // below 0: free
  };
  static uint32_t hash_of(std::string_view text) {
    return static_cast<uint32_t>(XXH3_64bits(text.data(), text.size()));
  }
  void put(const Place& entry) {
    uint32_t at = entry.hash;
    while (places_[at & (places_.size() - 1)].id >= 0) ++at;
    places_[at & (places_.size() - 1)] = entry;
  }
  void resize(size_t size) {
    std::vector<Place> before(size);
    before.swap(places_);
    for (const Place& entry : before)
      if (entry.id >= 0) put(entry);
  }

  std::vector<Place> places_ = std::vector<Place>(1);
  size_t count_ = 0;
};

}  // namespace coppice
