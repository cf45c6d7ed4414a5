#include "src/corpus/dedup/component.h"

#include <doctest/doctest.h>

#include <numeric>

#include "src/corpus/dedup/union_find.h"

using namespace coppice;

namespace {

/// Documents by the buckets they lie in, to be kept in their order.
Component component_of(const std::vector<std::vector<uint32_t>>& buckets) {
  Component component;
  for (const auto& of_document : buckets) {
    for (const uint32_t bucket : of_document) {
      component.buckets.push_back(bucket);
      component.num_buckets = std::max(component.num_buckets, bucket + 1);
    }
    component.begins.push_back(static_cast<uint32_t>(component.buckets.size()));
    component.order.push_back(static_cast<uint32_t>(component.order.size()));
    component.is_reference.push_back(0);
  }
  return component;
}

std::vector<uint32_t> heads(const std::vector<Fate>& fates) {
  std::vector<uint32_t> heads;
  for (const Fate& fate : fates) heads.push_back(fate.head);
  return heads;
}

Likeness neighbours(uint32_t a, uint32_t b) {
  const uint32_t apart = a > b ? a - b : b - a;
  return {.similar = apart <= 1, .similarity = 1 - 0.1f * static_cast<float>(apart)};
}

using Heads = std::vector<uint32_t>;

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("component: a chain A-B-C does not take C with A, but where all that hangs together goes") {
    const Component chain = component_of({{0}, {0, 1}, {1}});
    CHECK(heads(settle_verified(chain, neighbours)) == Heads{0, 0, 2});
    CHECK(heads(settle_connected(chain, neighbours)) == Heads{0, 0, 0});
    CHECK(settle_verified(chain, neighbours)[1].similarity == doctest::Approx(0.9));
    CHECK(settle_connected(chain, neighbours)[2].similarity == doctest::Approx(0.8));
  }

  TEST_CASE("component: the order says who stays") {
    Component chain = component_of({{0}, {0, 1}, {1}});
    chain.order = {1, 2, 0};
    CHECK(heads(settle_verified(chain, neighbours)) == Heads{1, 1, 1});
    chain.order = {2, 0, 1};
    CHECK(heads(settle_verified(chain, neighbours)) == Heads{0, 2, 2});
    CHECK(heads(settle_connected(chain, neighbours)) == Heads{2, 2, 2});
  }

  TEST_CASE("component: references stay, whatever they are similar to") {
    Component chain = component_of({{0}, {0, 1}, {1}});
    chain.is_reference = {1, 1, 0};
    CHECK(heads(settle_verified(chain, neighbours)) == Heads{0, 1, 1});
    CHECK(heads(settle_connected(chain, neighbours)) == Heads{0, 1, 0});
  }

  TEST_CASE("component: where all copies go, so does one that is similar to none but a copy") {
    const Component chain = component_of({{0}, {0, 1}, {1}, {1}});
    const std::vector<Fate> fates =
        settle_alike(chain, [](uint32_t a, uint32_t b) { return a == 3 || b == 3 ? Likeness{} : neighbours(a, b); });
    CHECK(heads(fates) == Heads{0, 0, 0, 3});
    CHECK(fates[2].similarity == doctest::Approx(0.8));  // to the one that speaks for them
    // Similar to two of which nobody knew that they have a copy.
    const auto to_last = [](uint32_t a, uint32_t b) { return Likeness{.similar = std::max(a, b) == 2}; };
    CHECK(heads(settle_alike(component_of({{0}, {0}, {0}}), to_last)) == Heads{0, 0, 0});
    // To a reference, and through it to nobody else.
    Component with_reference = component_of({{0}, {0, 1}, {0, 1}, {1}});
    with_reference.is_reference[1] = 1;
    with_reference.order = {1, 0, 2, 3};
    CHECK(heads(settle_alike(with_reference, neighbours)) == Heads{1, 1, 1, 2});
  }

  TEST_CASE("component: the one that shares most buckets is asked first") {
    const Component component = component_of({{0}, {1, 2}, {0, 1, 2}});
    std::vector<std::pair<uint32_t, uint32_t>> asked;
    settle_verified(component, [&](uint32_t a, uint32_t b) {
      asked.emplace_back(a, b);
      return Likeness{};
    });
    CHECK(asked == std::vector<std::pair<uint32_t, uint32_t>>{{2, 1}, {2, 0}});
  }

  TEST_CASE("component: a bucket of many that are no copies costs 64 comparisons each") {
    const Component component = component_of(std::vector<std::vector<uint32_t>>(2000, {0, 1}));
    uint64_t asked = 0;
    const auto differ = [&](uint32_t, uint32_t) {
      ++asked;
      return Likeness{};
    };
    settle_verified(component, differ);
    CHECK(asked == 63 * 64 / 2 + (2000 - 64) * 64);
  }

  TEST_CASE("union-find: the smallest number is the root, in any order of joining") {
    for (const uint32_t step : {1u, 7u, 37u}) {
      std::vector<uint32_t> parents(100);
      std::iota(parents.begin(), parents.end(), 0);
      for (uint32_t i = 0; i < 99; ++i)
        if (const uint32_t a = i * step % 99; a % 10 != 9) join_roots(parents, a + 1, a);
      for (uint32_t i = 0; i < 100; ++i) CHECK(find_root(parents, i) == i / 10 * 10);
    }
  }
}
