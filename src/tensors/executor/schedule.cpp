#include "src/tensors/executor/schedule.h"

#include <bit>
#include <numeric>

namespace coppice::executor {
namespace {

/// SplitMix64 (Steele, Lea, Flood 2014): the next of a stream of well mixed numbers.
uint64_t next_random(uint64_t& state) {
  uint64_t z = state += 0x9e3779b97f4a7c15;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
  z = (z ^ z >> 27) * 0x94d049bb133111eb;
  return z ^ z >> 31;
}

}  // namespace

void ReadyThreads::start_block(const Schedule& schedule, int64_t block, int count) {
  order_ = schedule.order;
  count_ = count;
  random_ = schedule.seed * 0x9e3779b97f4a7c15 + static_cast<uint64_t>(block);
  backwards_ = order_ == Order::in_turn_backwards || order_ == Order::eager_backwards;
  if (order_ == Order::random) {
    backwards_ = draw(2) == 1;
    fair_percent_ = draw(101);
    eager_percent_ = draw(101 - fair_percent_);
  }
  ready_.fill(0);
  older_[kEnds] = newer_[kEnds] = kEnds;
  add_all();
}

void ReadyThreads::add_all() {
  const int last = (count_ - 1) / 32 * 32;
  for (int i = last; i >= 0; i -= 32) {
    const int first = backwards_ ? last - i : i;
    add(first, count_ - first >= 32 ? ~0u : (1u << (count_ - first)) - 1);
  }
}

void ReadyThreads::push(int thread) {
  ready_[thread / 64] |= uint64_t{1} << thread % 64;
  older_[thread] = older_[kEnds];
  newer_[thread] = kEnds;
  newer_[older_[kEnds]] = static_cast<int16_t>(thread);
  older_[kEnds] = static_cast<int16_t>(thread);
}

void ReadyThreads::remove(int thread) {
  ready_[thread / 64] &= ~(uint64_t{1} << thread % 64);
  newer_[older_[thread]] = newer_[thread];
  older_[newer_[thread]] = older_[thread];
}

void ReadyThreads::add(int first, uint32_t lanes) {
  if (backwards_)
    for (; lanes != 0; lanes &= lanes - 1) push(first + std::countr_zero(lanes));
  else
    for (; lanes != 0; lanes &= ~(0x80000000u >> std::countl_zero(lanes))) push(first + 31 - std::countl_zero(lanes));
}

uint32_t ReadyThreads::draw(uint32_t bound) {
  return static_cast<uint32_t>((next_random(random_) >> 32) * bound >> 32);
}

ReadyThreads::Choice ReadyThreads::choose() {
  switch (order_) {
    case Order::in_turn:
      return Choice::next;
    case Order::in_turn_backwards:
      return Choice::previous;
    case Order::eager:
    case Order::eager_backwards:
      return Choice::newest;
    case Order::random:
      break;
  }
  const uint32_t percent = draw(100);
  if (percent < fair_percent_) return backwards_ ? Choice::previous : Choice::next;
  return percent < fair_percent_ + eager_percent_ ? Choice::newest : Choice::any;
}

int ReadyThreads::next_from(int start) const {
  for (int i = 0, word = start / 64; i <= 16; ++i, word = (word + 1) % 16) {
    uint64_t bits = ready_[word];
    if (i == 0) bits &= ~uint64_t{0} << start % 64;
    if (bits != 0) return word * 64 + std::countr_zero(bits);
  }
  return -1;
}

int ReadyThreads::previous_from(int start) const {
  for (int i = 0, word = start / 64; i <= 16; ++i, word = (word + 15) % 16) {
    uint64_t bits = ready_[word];
    if (i == 0) bits &= ~uint64_t{0} >> (63 - start % 64);
    if (bits != 0) return word * 64 + 63 - std::countl_zero(bits);
  }
  return -1;
}

int ReadyThreads::take(int last) {
  int thread = -1;
  switch (choose()) {
    case Choice::next:
      thread = next_from((last + 1) % 1024);
      break;
    case Choice::previous:
      thread = previous_from(last <= 0 ? 1023 : last - 1);
      break;
    case Choice::any:
      thread = next_from(static_cast<int>(draw(static_cast<uint32_t>(count_))));
      break;
    case Choice::newest:
      thread = older_[kEnds] == kEnds ? -1 : older_[kEnds];
      break;
  }
  if (thread >= 0) remove(thread);
  return thread;
}

BlockOrder::BlockOrder(const Schedule& schedule, int64_t count) : count_(count) {
  if (schedule.order == Order::in_turn_backwards || schedule.order == Order::eager_backwards) {
    step_ = -1;
    start_ = count - 1;
  } else if (schedule.order == Order::random) {
    uint64_t random = ~schedule.seed;
    start_ = static_cast<int64_t>(next_random(random) % static_cast<uint64_t>(count));
    do step_ = 1 + static_cast<int64_t>(next_random(random) % static_cast<uint64_t>(count));
    while (std::gcd(step_, count) != 1);
  }
}

int64_t BlockOrder::operator()(int64_t i) const {
  const auto at = static_cast<int64_t>((static_cast<__int128>(i) * step_ + start_) % count_);
  return at < 0 ? at + count_ : at;
}

}  // namespace coppice::executor
