// Ids of short parts of texts seen before: most of a text is such words. Private to src/tokens.
#pragma once

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <string_view>
#include <utility>
#include <vector>

namespace coppice {

inline constexpr size_t kMaxPartBytes = 32;

/// Open addressing over 2^18 places; full means no more entries: the first half of a corpus holds the frequent words.
class PartCache {
 public:
  PartCache() : entries_(kPlaces) {}

  /// The entry of this part, or the free one where it belongs.
  struct Entry {
    std::array<char, kMaxPartBytes> key{};
    uint32_t first = 0;
    uint8_t length = 0;  // 0 = free
    uint8_t count = 0;
  };
  Entry& find(std::string_view part) {
    std::array<char, kMaxPartBytes> key{};
    std::memcpy(key.data(), part.data(), part.size());
    for (uint64_t place = XXH3_64bits(part.data(), part.size());; ++place) {
      Entry& entry = entries_[place & (kPlaces - 1)];
      if (entry.length == 0 || (entry.length == part.size() && entry.key == key)) return entry;
    }
  }
  bool has_room() const { return used_ < kPlaces / 2; }
  void fill(Entry& entry, std::string_view part, const std::vector<int>& ids) {
    std::memcpy(entry.key.data(), part.data(), part.size());
    entry.length = static_cast<uint8_t>(part.size());
    entry.count = static_cast<uint8_t>(ids.size());
    entry.first = static_cast<uint32_t>(ids_.size());
    ids_.insert(ids_.end(), ids.begin(), ids.end());
    ++used_;
  }
  const int32_t* ids(const Entry& entry) const { return ids_.data() + entry.first; }

 private:
  static constexpr size_t kPlaces = size_t{1} << 18;
  std::vector<Entry> entries_;
  std::vector<int32_t> ids_;
  size_t used_ = 0;
};

/// What each thread that encodes at the same time has for itself, kept for the next one.
template <class Thing>
class Pool {
 public:
  std::unique_ptr<Thing> take() {
    const std::lock_guard lock(mutex_);
    if (things_.empty()) return std::make_unique<Thing>();
    std::unique_ptr<Thing> thing = std::move(things_.back());
    things_.pop_back();
    return thing;
  }
  void give_back(std::unique_ptr<Thing> thing) {
    const std::lock_guard lock(mutex_);
    things_.push_back(std::move(thing));
  }

 private:
  std::mutex mutex_;  // guards the list, not what is in it
  std::vector<std::unique_ptr<Thing>> things_;
};

}  // namespace coppice
