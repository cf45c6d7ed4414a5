// Which thread of a block runs next, and which block: any order that a device might take is a right one, so that a
// kernel whose bits differ between two of them has a race.
#pragma once

#include <array>
#include <cstdint>

#include "src/tensors/executor/executor.h"

namespace coppice::executor {

/// The threads of one block that could run.
class ReadyThreads {
 public:
  /// All `count` threads (at most 1024) are ready, none is the last to have run.
  void start_block(const Schedule& schedule, int64_t block, int count);
  /// Threads first + i, for each bit i of `lanes`, have become ready.
  void add(int first, uint32_t lanes);
  /// All have.
  void add_all();
  /// The one that runs next, no longer ready; -1 when there is none. `last` is the one that ran before.
  int take(int last);

 private:
  enum class Choice { next, previous, newest, any };
  Choice choose();
  uint32_t draw(uint32_t bound);
  int next_from(int start) const;
  int previous_from(int start) const;
  void push(int thread);
  void remove(int thread);

  // The ready threads as a set, and as a ring from the newest to the oldest: kEnds is the link between both ends.
  static constexpr int kEnds = 1024;
  std::array<uint64_t, 16> ready_{};
  std::array<int16_t, 1025> older_{}, newer_{};
  Order order_ = Order::in_turn;
  bool backwards_ = false;  // the highest of those released together runs first
  int count_ = 0;
  uint32_t fair_percent_ = 0, eager_percent_ = 0;  // of a random schedule's choices in this block
  uint64_t random_ = 0;
};

/// The order in which `count` blocks run: the i-th of them.
class BlockOrder {
 public:
  BlockOrder(const Schedule& schedule, int64_t count);
  int64_t operator()(int64_t i) const;

 private:
  int64_t count_, step_ = 1, start_ = 0;
};

}  // namespace coppice::executor
