#include "src/corpus/dedup/component.h"

#include <algorithm>
#include <utility>

#include "src/corpus/dedup/union_find.h"

namespace coppice {
namespace {

constexpr uint32_t kMostCompared = 64, kNobody = 0xffffffff;

std::span<const uint32_t> buckets_of(const Component& component, uint32_t document) {
  const uint32_t begin = component.begins[document];
  return std::span(component.buckets).subspan(begin, component.begins[document + 1] - begin);
}

/// Those that a document is compared with: of each bucket as many as are offered, in the order.
class Candidates {
 public:
  explicit Candidates(const Component& component)
      : component_(component),
        begins_(component.num_buckets + 1),
        counts_(component.num_buckets),
        ranks_(component.size()),
        shared_(component.size()) {
    for (const uint32_t bucket : component.buckets) ++begins_[bucket + 1];
    for (size_t b = 0; b < counts_.size(); ++b)
      begins_[b + 1] = begins_[b] + std::min(begins_[b + 1], uint64_t{kMostCompared});
    offered_.resize(begins_.back());
    for (uint32_t rank = 0; rank < component.order.size(); ++rank) ranks_[component.order[rank]] = rank;
  }

  void offer(uint32_t document) {
    for (const uint32_t bucket : buckets_of(component_, document)) {
      const uint64_t place = begins_[bucket] + counts_[bucket];
      if (place == begins_[bucket + 1]) continue;
      offered_[place] = document;
      ++counts_[bucket];
    }
  }

  /// 64 at most, those that share most buckets first; valid until the next call.
  std::span<const uint32_t> of(uint32_t document) {
    found_.clear();
    for (const uint32_t bucket : buckets_of(component_, document))
      for (const uint32_t other : std::span(offered_).subspan(begins_[bucket], counts_[bucket]))
        if (shared_[other]++ == 0) found_.push_back(other);
    const size_t most = std::min<size_t>(found_.size(), kMostCompared);
    std::ranges::partial_sort(found_, found_.begin() + static_cast<std::ptrdiff_t>(most), {},
                              [&](uint32_t other) { return std::pair(~shared_[other], ranks_[other]); });
    for (const uint32_t other : found_) shared_[other] = 0;
    return std::span(found_).first(most);
  }

 private:
  const Component& component_;
  std::vector<uint64_t> begins_;
  std::vector<uint32_t> counts_, offered_, ranks_, shared_, found_;
};

std::vector<Fate> all_stay(const Component& component) {
  std::vector<Fate> fates(component.size());
  for (uint32_t document = 0; document < fates.size(); ++document) fates[document].head = document;
  return fates;
}

}  // namespace

std::vector<Fate> settle_verified(const Component& component, const Compare& compare) {
  std::vector<Fate> fates = all_stay(component);
  Candidates candidates(component);
  for (const uint32_t document : component.order) {
    if (!component.is_reference[document])
      for (const uint32_t other : candidates.of(document))
        if (const Likeness found = compare(document, other); found.similar) {
          fates[document] = {.head = other, .similarity = found.similarity};
          break;
        }
    if (fates[document].head == document) candidates.offer(document);
  }
  return fates;
}

std::vector<Fate> settle_alike(const Component& component, const Compare& compare) {
  std::vector<Fate> fates = all_stay(component);
  std::vector<uint32_t> parents(component.size()), firsts(component.size(), kNobody);  // without references
  for (uint32_t document = 0; document < parents.size(); ++document) parents[document] = document;
  Candidates candidates(component);
  for (const uint32_t document : component.order) {
    if (!component.is_reference[document])
      for (const uint32_t other : candidates.of(document)) {
        const bool known = component.is_reference[other] ? fates[document].head != document
                                                         : find_root(parents, document) == find_root(parents, other);
        if (known) continue;
        const Likeness found = compare(document, other);
        if (!found.similar) continue;
        if (component.is_reference[other]) {
          fates[document] = {.head = other, .similarity = found.similarity};
        } else {
          join_roots(parents, document, other);
        }
      }
    candidates.offer(document);
  }
  for (const uint32_t document : component.order) {
    if (component.is_reference[document]) continue;
    uint32_t& first = firsts[find_root(parents, document)];
    if (first == kNobody) first = document;
    if (fates[document].head == document && first != document)
      fates[document] = {.head = first, .similarity = compare(document, first).similarity};
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
