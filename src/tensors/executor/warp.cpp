#include "src/tensors/executor/warp.h"

#include <algorithm>
#include <bit>
#include <cstdio>

namespace coppice::executor {
namespace {

using Join = uint32_t (*)(uint32_t, uint32_t);

struct OperationRow {
  const char* name;
  Join join;  // of a reduction
};

int32_t as_signed(uint32_t value) { return static_cast<int32_t>(value); }

constexpr std::array<OperationRow, 14> kOperations = {{
    {"__syncwarp", nullptr},
    {"__shfl_sync", nullptr},
    {"__shfl_xor_sync", nullptr},
    {"__shfl_up_sync", nullptr},
    {"__shfl_down_sync", nullptr},
    {"__ballot_sync", nullptr},
    {"__reduce_add_sync", [](uint32_t a, uint32_t b) { return a + b; }},
    {"__reduce_and_sync", [](uint32_t a, uint32_t b) { return a & b; }},
    {"__reduce_or_sync", [](uint32_t a, uint32_t b) { return a | b; }},
    {"__reduce_xor_sync", [](uint32_t a, uint32_t b) { return a ^ b; }},
    {"__reduce_min_sync", [](uint32_t a, uint32_t b) { return std::min(a, b); }},
    {"__reduce_max_sync", [](uint32_t a, uint32_t b) { return std::max(a, b); }},
    {"__reduce_min_sync", [](uint32_t a, uint32_t b) { return as_signed(a) < as_signed(b) ? a : b; }},
    {"__reduce_max_sync", [](uint32_t a, uint32_t b) { return as_signed(a) > as_signed(b) ? a : b; }},
}};

const OperationRow& row_of(Operation operation) { return kOperations[static_cast<size_t>(operation)]; }

std::string hex(unsigned mask) {
  char text[16];
  std::snprintf(text, sizeof(text), "0x%08x", mask);
  return text;
}

/// The lane that `lane` reads; itself where the operand points outside its group of `width` lanes.
int source_lane(Operation operation, int lane, int source, int width) {
  const int first = lane / width * width;
  int from = lane;
  if (operation == Operation::shuffle) from = first + (source & (width - 1));
  if (operation == Operation::shuffle_xor) from = lane ^ source;
  if (operation == Operation::shuffle_up) from = lane - source < first ? lane : lane - source;
  if (operation == Operation::shuffle_down) from = lane + source;
  return from >= first + width ? lane : from;
}

}  // namespace

const char* name_of(Operation operation) { return row_of(operation).name; }

void Warp::start(int num_lanes) {
  num_lanes_ = num_lanes;
  num_groups_ = 0;
  left_ = 0;
}

WarpGroup* Warp::find(unsigned mask) {
  for (int i = 0; i < num_groups_; ++i)
    if (groups_[static_cast<size_t>(i)].mask == mask) return &groups_[static_cast<size_t>(i)];
  return nullptr;
}

std::string Warp::arrive(int lane, Operation operation, unsigned mask, const Lane& brought) {
  const auto wrong = [&](const std::string& what) {
    return std::string(name_of(operation)) + ": the mask " + hex(mask) + what;
  };
  if (brought.width < 1 || brought.width > kWarp || !std::has_single_bit(static_cast<unsigned>(brought.width)))
    return std::string(name_of(operation)) + ": groups of " + std::to_string(brought.width) +
           " lanes; a width is a power of two, at most 32";
  if ((mask >> lane & 1) == 0) return wrong(" does not name its caller, lane " + std::to_string(lane));
  if (num_lanes_ < kWarp && mask >> num_lanes_ != 0)
    return wrong(" names lanes that do not exist, this warp has " + std::to_string(num_lanes_));
  if ((mask & left_) != 0)
    return wrong(" names lane " + std::to_string(std::countr_zero(mask & left_)) + ", which has left the kernel");
  lanes_[static_cast<size_t>(lane)] = brought;
  WarpGroup* group = find(mask);
  if (group == nullptr) {
    group = &groups_[static_cast<size_t>(num_groups_++)];
    *group = {.operation = operation, .mask = mask, .arrived = 0, .at = brought.at};
  }
  if (group->operation != operation)
    return std::string(name_of(operation)) + ": lane " + std::to_string(std::countr_zero(group->arrived)) +
           " waits with the same mask in " + name_of(group->operation) + " at line " + std::to_string(group->at.line());
  group->arrived |= 1u << lane;
  return "";
}

const WarpGroup* Warp::complete(unsigned mask) const {
  const auto* const group = std::find_if(begin(), end(), [&](const WarpGroup& g) { return g.mask == mask; });
  return group != end() && group->arrived == mask ? group : nullptr;
}

std::string Warp::compute(const WarpGroup& group, Site& at) {
  if (group.operation == Operation::sync_warp) return "";
  const OperationRow& row = row_of(group.operation);
  uint32_t joined = 0;
  bool first = true;
  for (int lane = 0; lane < kWarp; ++lane) {
    if ((group.mask >> lane & 1) == 0) continue;
    const auto value = static_cast<uint32_t>(lanes_[static_cast<size_t>(lane)].value.words[0]);
    if (group.operation == Operation::ballot) joined |= static_cast<uint32_t>(value != 0) << lane;
    if (row.join != nullptr) joined = first ? value : row.join(joined, value);
    first = false;
  }
  const bool shuffles = row.join == nullptr && group.operation != Operation::ballot;
  for (int lane = 0; lane < kWarp; ++lane) {
    if ((group.mask >> lane & 1) == 0) continue;
    Lane& self = lanes_[static_cast<size_t>(lane)];
    if (!shuffles) {
      self.result = {{joined, 0}};
      continue;
    }
    const int from = source_lane(group.operation, lane, self.source, self.width);
    if (from < 0 || from >= kWarp || (group.mask >> from & 1) == 0) {
      at = self.at;
      return std::string(row.name) + ": lane " + std::to_string(lane) + " reads lane " + std::to_string(from) +
             ", which the mask " + hex(group.mask) + " does not name";
    }
    self.result = lanes_[static_cast<size_t>(from)].value;
  }
  return "";
}

void Warp::forget(unsigned mask) {
  WarpGroup* const group = find(mask);
  *group = groups_[static_cast<size_t>(--num_groups_)];
}

const WarpGroup* Warp::leave(int lane) {
  left_ |= 1u << lane;
  const auto* const group = std::find_if(begin(), end(), [&](const WarpGroup& g) { return g.mask >> lane & 1; });
  return group == end() ? nullptr : group;
}

}  // namespace coppice::executor
