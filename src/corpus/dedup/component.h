// Who stays of documents that hang together by bands they share.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

namespace coppice {

/// A component of documents 0 to size() - 1 and what they share. `buckets[begins[d]]` to `buckets[begins[d + 1] - 1]`
/// are the buckets (0 to num_buckets - 1) that document d lies in.
struct Component {
  std::vector<uint32_t> begins = {0};
  std::vector<uint32_t> buckets;
  uint32_t num_buckets = 0;
  std::vector<uint32_t> order;  // the documents, those that stay rather first
  std::vector<char> is_reference;
  size_t size() const { return begins.size() - 1; }
};

struct Fate {
  uint32_t head = 0;                // the document that it is a copy of; itself: it stays
  std::optional<float> similarity;  // to the head, where it was computed
};

/// The similarity of two documents where they are similar enough to be copies.
struct Likeness {
  bool similar = false;
  std::optional<float> similarity;
};
using Compare = std::function<Likeness(uint32_t a, uint32_t b)>;

/// In the order, each document goes if it is similar to one that stays, and stays otherwise: every one that goes is
/// similar to its head, and of a chain A-B-C not C with A. It is compared with 64 of those that stay at most, the ones
/// that share most buckets with it first; a bucket offers the first 64 that stay in it. References stay.
std::vector<Fate> settle_verified(const Component& component, const Compare& compare);

/// Whoever is similar to the first document of a bucket is one with it, and of all that are one so the first in the
/// order stays, and every reference.
std::vector<Fate> settle_connected(const Component& component, const Compare& compare);

/// Whoever is similar to another goes, also to one that goes itself: the first in the order of those that are one by
/// that speaks for the others, and whoever is similar to a reference goes for it. References stay. Compared are as many
/// as in settle_verified(), a bucket offering the first 64 that lie in it.
std::vector<Fate> settle_alike(const Component& component, const Compare& compare);

}  // namespace coppice
