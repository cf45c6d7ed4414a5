// Warp operations: who waits in which, and what each lane gets.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "src/tensors/executor/block.h"

namespace coppice::executor {

inline constexpr int kWarp = 32;

const char* name_of(Operation operation);

/// One operation that some of its lanes have reached.
struct WarpGroup {
  Operation operation = Operation::sync_warp;
  unsigned mask = 0;
  unsigned arrived = 0;
  Site at;  // of the lane that came first
};

/// What a lane brings to its operation, and what it takes away.
struct Lane {
  Payload value;
  int source = 0;
  int width = kWarp;
  Payload result;
  Site at;
};

class Warp {
 public:
  /// `num_lanes` of them exist.
  void start(int num_lanes);
  /// Lane `lane` reaches an operation. Returns why it must not, or an empty text.
  std::string arrive(int lane, Operation operation, unsigned mask, const Lane& brought);
  /// The group of `mask` if all its lanes are there; null while some are missing.
  const WarpGroup* complete(unsigned mask) const;
  /// Every lane's result. Returns what is wrong with them and sets `at` to the line, or an empty text.
  std::string compute(const WarpGroup& group, Site& at);
  void forget(unsigned mask);
  /// Lane `lane` leaves the kernel. Returns the group that waits for it, or null.
  const WarpGroup* leave(int lane);

  const Payload& result(int lane) const { return lanes_[static_cast<size_t>(lane)].result; }
  const WarpGroup* begin() const { return groups_.data(); }
  const WarpGroup* end() const { return groups_.data() + num_groups_; }

 private:
  WarpGroup* find(unsigned mask);

  std::array<Lane, kWarp> lanes_;
  std::array<WarpGroup, kWarp> groups_;  // masks of waiting lanes differ, so that there are no more
  int num_groups_ = 0;
  int num_lanes_ = kWarp;
  unsigned left_ = 0;
};

}  // namespace coppice::executor
