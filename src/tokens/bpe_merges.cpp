#include "src/tokens/bpe_merges.h"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <functional>

#include "src/base/errors.h"

namespace coppice {

namespace {

constexpr size_t kShort = 64;  // up to here looking at every neighbour beats a heap

uint64_t pair_of(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

uint64_t mixed(uint64_t pair) { return pair * 0x9E3779B97F4A7C15u ^ (pair * 0x9E3779B97F4A7C15u) >> 29; }

}  // namespace

BpeMerges::BpeMerges(size_t count) : places_(std::bit_ceil(count + count / 2 + 2)) {
  shift_ = 64 - static_cast<unsigned>(std::countr_zero(places_.size()));
}

/// Where the pair stands, or would.
size_t BpeMerges::place_of(uint64_t pair) const {
  size_t place = mixed(pair) >> shift_;
  while (places_[place].rank != kNone && places_[place].pair != pair) place = (place + 1) & (places_.size() - 1);
  return place;
}

bool BpeMerges::add(const Merge& merge) {
  const uint64_t pair = pair_of(merge.left, merge.right);
  Place& place = places_[place_of(pair)];
  if (place.rank != kNone) return false;
  COPPICE_CHECK(count_ + 2 <= places_.size(), "more merges than there is room for");  // one place stays free
  place = {.pair = pair, .rank = count_++, .result = merge.result};
  return true;
}

const BpeMerges::Place& BpeMerges::find(int32_t left, int32_t right) const {
  return places_[place_of(pair_of(left, right))];
}

void BpeMerges::apply(std::vector<int32_t>& ids, Scratch& scratch) const {
  if (ids.size() < 2) return;
  ids.size() <= kShort ? apply_short(ids, scratch) : apply_long(ids, scratch);
}

void BpeMerges::apply_short(std::vector<int32_t>& ids, Scratch& scratch) const {
  std::vector<uint32_t>& rank = scratch.rank;
  std::vector<int32_t>& result = scratch.result;
  size_t pairs = ids.size() - 1;
  rank.resize(ids.size());
  result.resize(ids.size());
  const auto look = [&](size_t at) {
    const Place& found = find(ids[at], ids[at + 1]);
    rank[at] = found.rank;
    result[at] = found.result;
  };
  for (size_t at = 0; at < pairs; ++at) look(at);
  while (pairs > 0) {
    const auto at = static_cast<size_t>(
        std::min_element(rank.begin(), rank.begin() + static_cast<std::ptrdiff_t>(pairs)) - rank.begin());
    if (rank[at] == kNone) break;
    ids[at] = result[at];
    for (size_t i = at + 1; i < pairs; ++i) {
      ids[i] = ids[i + 1];
      rank[i] = rank[i + 1];
      result[i] = result[i + 1];
    }
    --pairs;
    if (at > 0) look(at - 1);
    if (at < pairs) look(at);
  }
  ids.resize(pairs + 1);
}

/// A heap of (rank, place); an entry is stale when its place has another rank by now.
void BpeMerges::apply_long(std::vector<int32_t>& ids, Scratch& scratch) const {
  auto& [rank, next, previous, result, heap] = scratch;
  const auto size = static_cast<uint32_t>(ids.size());
  rank.assign(size, kNone);
  next.resize(size);
  previous.resize(size);
  result.resize(size);
  heap.clear();
  const auto look = [&](uint32_t at) {
    rank[at] = kNone;
    if (next[at] == size) return;
    const Place& found = find(ids[at], ids[next[at]]);
    rank[at] = found.rank;
    result[at] = found.result;
  };
  const auto entry = [&](uint32_t at) { return static_cast<uint64_t>(rank[at]) << 32 | at; };
  for (uint32_t at = 0; at < size; ++at) {
    next[at] = at + 1;
    previous[at] = at - 1;  // of the first: kNone
  }
  for (uint32_t at = 0; at < size; ++at) {
    look(at);
    if (rank[at] != kNone) heap.push_back(entry(at));
  }
  std::ranges::make_heap(heap, std::greater());
  const auto look_again = [&](uint32_t at) {
    look(at);
    if (rank[at] == kNone) return;
    heap.push_back(entry(at));
    std::ranges::push_heap(heap, std::greater());
  };
  while (!heap.empty()) {
    std::ranges::pop_heap(heap, std::greater());
    const uint64_t top = heap.back();
    heap.pop_back();
    const auto at = static_cast<uint32_t>(top);
    if (rank[at] == kNone || entry(at) != top) continue;
    const uint32_t right = next[at];
    ids[at] = result[at];
    next[at] = next[right];
    if (next[at] < size) previous[next[at]] = at;
    rank[right] = kNone;
    look_again(at);
    if (previous[at] != kNone) look_again(previous[at]);
  }
  size_t count = 0;
  for (uint32_t at = 0; at < size; at = next[at]) ids[count++] = ids[at];
  ids.resize(count);
}

}  // namespace coppice
