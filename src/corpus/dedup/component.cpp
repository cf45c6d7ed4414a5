#include "src/corpus/dedup/component.h"

#include <algorithm>
#include <utility>

#include "src/corpus/dedup/union_find.h"

namespace coppice {
namespace {

constexpr uint32_t kMostCompared = 64, kNobody = 0xffffffff;

/// The documents of each bucket that stay, in the order, as many as are offered.
class StayingOfBuckets {
 public:
  explicit StayingOfBuckets(const Component& component)
      : begins_(component.num_buckets + 1), counts_(component.num_buckets) {
    for (const uint32_t bucket : component.buckets) ++begins_[bucket + 1];
    for (size_t b = 0; b < counts_.size(); ++b)
      begins_[b + 1] = begins_[b] + std::min(begins_[b + 1], uint64_t{kMostCompared});
    staying_.resize(begins_.back());
  }
  std::span<const uint32_t> of(uint32_t bucket) const {
    return std::span(staying_).subspan(begins_[bucket], counts_[bucket]);
  }
  void add(uint32_t bucket, uint32_t document) {
    const uint64_t place = begins_[bucket] + counts_[bucket];
    if (place == begins_[bucket + 1]) return;
    staying_[place] = document;
    ++counts_[bucket];
  }

 private:
  std::vector<uint64_t> begins_;
  std::vector<uint32_t> counts_, staying_;
};

std::span<const uint32_t> buckets_of(const Component& component, uint32_t document) {
  const uint32_t begin = component.begins[document];
  return std::span(component.buckets).subspan(begin, component.begins[document + 1] - begin);
}

}  // namespace

std::vector<Fate> settle_verified(const Component& component, const Compare& compare) {
  std::vector<Fate> fates(component.size());
  StayingOfBuckets staying(component);
  std::vector<uint32_t> ranks(component.size()), shared(component.size()), candidates;
  for (uint32_t rank = 0; rank < component.order.size(); ++rank) ranks[component.order[rank]] = rank;
  for (const uint32_t document : component.order) {
    fates[document].head = document;
    candidates.clear();
    if (!component.is_reference[document])
      for (const uint32_t bucket : buckets_of(component, document))
        for (const uint32_t other : staying.of(bucket))
          if (shared[other]++ == 0) candidates.push_back(other);
    const size_t most = std::min<size_t>(candidates.size(), kMostCompared);
    std::ranges::partial_sort(candidates, candidates.begin() + static_cast<std::ptrdiff_t>(most), {},
                              [&](uint32_t other) { return std::pair(~shared[other], ranks[other]); });
    for (const uint32_t other : candidates) shared[other] = 0;
    for (size_t i = 0; i < most && fates[document].head == document; ++i)
      if (const Likeness found = compare(document, candidates[i]); found.similar)
        fates[document] = {.head = candidates[i], .similarity = found.similarity};
    if (fates[document].head != document) continue;
    for (const uint32_t bucket : buckets_of(component, document)) staying.add(bucket, document);
  }
  return fates;
}

std::vector<Fate> settle_connected(const Component& component, const Compare& compare) {
  std::vector<uint32_t> parents(component.size()), firsts(component.num_buckets, kNobody);
  for (uint32_t document = 0; document < parents.size(); ++document) parents[document] = document;
  for (uint32_t document = 0; document < parents.size(); ++document)
    for (const uint32_t bucket : buckets_of(component, document)) {
      if (firsts[bucket] == kNobody) firsts[bucket] = document;
      const uint32_t first = firsts[bucket];
      if (find_root(parents, first) != find_root(parents, document) && compare(first, document).similar)
        join_roots(parents, first, document);
    }
  std::vector<Fate> fates(component.size());
  std::vector<uint32_t> heads(component.size(), kNobody);  // of each root
  for (const uint32_t document : component.order) {
    uint32_t& head = heads[find_root(parents, document)];
    if (head == kNobody) head = document;
    fates[document].head = component.is_reference[document] ? document : head;
    if (fates[document].head != document) fates[document].similarity = compare(document, head).similarity;
  }
  return fates;
}

}  // namespace coppice
