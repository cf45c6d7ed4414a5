// One launch at a time: the blocks in the schedule's order, the threads of each as fibers that change to one another
// without a scheduler between them.
#include "src/tensors/executor/block.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

#include "src/tensors/executor/executor.h"
#include "src/tensors/executor/fault.h"
#include "src/tensors/executor/fiber.h"
#include "src/tensors/executor/race_check.h"
#include "src/tensors/executor/schedule.h"
#include "src/tensors/executor/shared_memory.h"
#include "src/tensors/executor/warp.h"

namespace coppice::executor {

const Index3* thread_index = nullptr;
Index3 block_index, block_size, grid_size;

namespace {

struct Thread {
  Context context;
  Index3 index;
};

/// What ThreadSanitizer orders by: names made anew for every block, so that an order of one block is none of another.
struct OrderNames {
  char barrier = 0;
  std::array<char, kMostThreads> warp_group{};  // by the lowest thread of the group
};

class Launch {
 public:
  void run(const Size3& grid, const Size3& block, int64_t shared_bytes, void (*body)(const void*), const void* closure,
           const Site& at);
  void sync_threads(const Site& at);
  Payload warp_operation(Operation operation, unsigned mask, Payload value, int source, int width, const Site& at);
  void* shared_array(const void* key, size_t bytes, const Site& at);
  void* dynamic_shared() const { return shared_.dynamic(); }
  [[noreturn]] void fault(const Site& at, const std::string& message);

  Schedule schedule;
  bool math_noise = false;
  bool only_last_block = false;
  Counts counts;
  std::mutex mutex;  // one launch at a time

 private:
  static void thread_main(void* launch);
  void run_block(int64_t block);
  void start_threads(int64_t block);
  [[noreturn]] void leave_kernel();
  void go_on();
  int next_thread();
  void order(int first, uint32_t lanes, void* name);
  std::string who_waits_where() const;
  [[noreturn]] void nobody_goes_on();

  Stacks stacks_;
  SharedMemory shared_;
  ReadyThreads ready_;
  Context host_{};
  std::array<Thread, kMostThreads> threads_;
  std::array<Warp, kMostThreads / kWarp> warps_;
  std::unique_ptr<OrderNames> names_;
  int count_ = 0;    // threads of a block
  int running_ = 0;  // the one that runs
  int left_ = 0;     // that have left the kernel
  int last_to_leave_ = 0;
  int at_barrier_ = 0;
  Site barrier_site_;
  Site launch_site_;
  char begin_order_ = 0, end_order_ = 0;  // of what comes before the launch, and after it
  void (*body_)(const void*) = nullptr;
  const void* closure_ = nullptr;
  int64_t shared_bytes_ = 0;
  std::unique_ptr<Fault> fault_;
};

Launch& launch() {
  static Launch& only = *new Launch;  // never taken down: a fiber's stack may outlive every other static
  return only;
}

void Launch::fault(const Site& at, const std::string& message) {
  fault_ = std::make_unique<Fault>(at, message + " (thread " + std::to_string(running_) + " of block " +
                                           std::to_string(block_index.x) + ", " + std::to_string(block_index.y) + ", " +
                                           std::to_string(block_index.z) + ")");
  release_order(&end_order_);
  leave(threads_[static_cast<size_t>(running_)].context, host_);
}

// ---- who runs ----

int Launch::next_thread() {
  const int next = ready_.take(running_);
  if (next >= 0) {
    running_ = next;
    thread_index = &threads_[static_cast<size_t>(next)].index;
    ++counts.switches;
  }
  return next;
}

/// The running thread is ready, or waits: whoever's turn it is goes on.
void Launch::go_on() {
  const int self = running_;
  const int next = next_thread();
  if (next < 0) nobody_goes_on();
  if (next != self) change(threads_[static_cast<size_t>(self)].context, threads_[static_cast<size_t>(next)].context);
}

void Launch::leave_kernel() {
  const int self = running_;
  release_order(&end_order_);
  ++left_;
  last_to_leave_ = self;
  if (at_barrier_ > 0)
    fault(barrier_site_, "__syncthreads: " + std::to_string(at_barrier_) + " threads wait, and thread " +
                             std::to_string(self) + " has left the kernel without it");
  if (const WarpGroup* group = warps_[static_cast<size_t>(self / kWarp)].leave(self % kWarp); group != nullptr)
    fault(group->at, std::string(name_of(group->operation)) + ": waits for lane " + std::to_string(self % kWarp) +
                         ", which has left the kernel");
  Context& context = threads_[static_cast<size_t>(self)].context;
  if (left_ == count_) leave(context, host_);
  if (next_thread() < 0) nobody_goes_on();
  leave(context, threads_[static_cast<size_t>(running_)].context);
}

void Launch::thread_main(void* launch) {
  arrived();
  auto& self = *static_cast<Launch*>(launch);
  acquire_order(&self.begin_order_);
  self.body_(self.closure_);
  self.leave_kernel();
}

std::string Launch::who_waits_where() const {
  std::string text;
  if (at_barrier_ > 0)
    text += std::to_string(at_barrier_) + " threads wait in __syncthreads at " + place(barrier_site_);
  for (int warp = 0; warp * kWarp < count_; ++warp)
    for (const WarpGroup& group : warps_[static_cast<size_t>(warp)])
      text += (text.empty() ? "" : "; ") + std::to_string(std::popcount(group.arrived)) + " of " +
              std::to_string(std::popcount(group.mask)) + " lanes of warp " + std::to_string(warp) + " wait in " +
              name_of(group.operation) + " at " + place(group.at);
  return text;
}

void Launch::nobody_goes_on() {
  Site at = barrier_site_;
  for (int warp = count_ / kWarp; warp >= 0; --warp)
    if (warp * kWarp < count_)
      for (const WarpGroup& group : warps_[static_cast<size_t>(warp)]) at = group.at;
  fault(at, "a wait that nobody ends: " + who_waits_where());
}

// ---- what a thread asks for ----

/// Whatever the threads first + i, i in `lanes`, have done happens before what each of them does from here on.
void Launch::order(int first, uint32_t lanes, void* name) {
  if constexpr (!kRaceCheck) return;
  for (const bool releases : {true, false})
    for (uint32_t rest = lanes; rest != 0; rest &= rest - 1) {
      change_race_fiber(threads_[static_cast<size_t>(first + std::countr_zero(rest))].context.race_fiber);
      releases ? release_order(name) : acquire_order(name);
    }
  change_race_fiber(threads_[static_cast<size_t>(running_)].context.race_fiber);
}

void Launch::sync_threads(const Site& at) {
  if (left_ > 0)
    fault(at, "__syncthreads: thread " + std::to_string(last_to_leave_) + " has left the kernel without it");
  if (at_barrier_ > 0 &&
      (at.line() != barrier_site_.line() || std::string_view(at.file_name()) != barrier_site_.file_name()))
    fault(at, "two barriers at once: " + std::to_string(at_barrier_) + " threads wait in __syncthreads at " +
                  place(barrier_site_));
  barrier_site_ = at;
  if (++at_barrier_ == count_) {
    at_barrier_ = 0;
    for (const bool acquires : {false, true})
      for (int thread = 0; kRaceCheck && thread < count_; ++thread) {
        change_race_fiber(threads_[static_cast<size_t>(thread)].context.race_fiber);
        acquires ? acquire_order(&names_->barrier) : release_order(&names_->barrier);
      }
    change_race_fiber(threads_[static_cast<size_t>(running_)].context.race_fiber);
    ready_.add_all();
  }
  go_on();
}

Payload Launch::warp_operation(Operation operation, unsigned mask, Payload value, int source, int width,
                               const Site& at) {
  const int self = running_, lane = self % kWarp, first = self - lane;
  Warp& warp = warps_[static_cast<size_t>(self / kWarp)];
  std::string wrong =
      warp.arrive(lane, operation, mask, {.value = value, .source = source, .width = width, .result = {}, .at = at});
  if (!wrong.empty()) fault(at, wrong);
  if (const WarpGroup* group = warp.complete(mask); group != nullptr) {
    Site where = at;
    wrong = warp.compute(*group, where);
    if (!wrong.empty()) fault(where, wrong);
    warp.forget(mask);
    if (operation == Operation::sync_warp)
      order(first, mask, &names_->warp_group[static_cast<size_t>(first + std::countr_zero(mask))]);
    ready_.add(first, mask);
  }
  go_on();
  return warp.result(lane);
}

void* Launch::shared_array(const void* key, size_t bytes, const Site& at) {
  void* const array = shared_.array(key, bytes, at);
  if (array == nullptr)
    fault(at, "shared memory: an array of " + std::to_string(bytes) +
                  " bytes does not fit: a block has at most 48 KiB in arrays and 227 KiB in all, 48 where its dynamic "
                  "part is 32 or less");
  return array;
}

// ---- launches ----

/// ThreadSanitizer's threads are dealt anew: two neighbouring blocks share none, so that no order within one of them
/// looks like one between both.
void Launch::start_threads(int64_t block) {
  const int first_stack = kRaceCheck && block % 2 != 0 ? count_ : 0;
  for (int i = 0; i < count_; ++i)
    stacks_.start(threads_[static_cast<size_t>(i)].context, first_stack + i, thread_main, this);
}

void Launch::run_block(int64_t block) {
  const auto x = static_cast<int64_t>(grid_size.x), y = static_cast<int64_t>(grid_size.y);
  block_index = {.x = static_cast<unsigned>(block % x),
                 .y = static_cast<unsigned>(block / x % y),
                 .z = static_cast<unsigned>(block / x / y)};
  if (kRaceCheck || !names_) names_ = std::make_unique<OrderNames>();
  left_ = at_barrier_ = 0;
  for (int warp = 0; warp * kWarp < count_; ++warp)
    warps_[static_cast<size_t>(warp)].start(std::min(kWarp, count_ - warp * kWarp));
  shared_.start_block(static_cast<size_t>(shared_bytes_));
  release_order(&begin_order_);
  start_threads(block);
  ready_.start_block(schedule, block, count_);
  running_ = -1;
  next_thread();
  change(host_, threads_[static_cast<size_t>(running_)].context);
  if (fault_) {
    acquire_order(&end_order_);
    throw Fault(*std::exchange(fault_, nullptr));
  }
  const SharedMemory::Damage* damage = shared_.damage();
  if (damage == nullptr) return;
  throw Fault(damage->at == nullptr ? launch_site_ : *damage->at,
              "a write beside " + std::string(damage->at == nullptr ? "the dynamic" : "this") + " array of " +
                  std::to_string(damage->bytes) + " bytes in shared memory");
}

void Launch::run(const Size3& grid, const Size3& block, int64_t shared_bytes, void (*body)(const void*),
                 const void* closure, const Site& at) {
  check_launch(grid, block, shared_bytes, at);
  const auto index = [](const Size3& size) {
    return Index3{static_cast<unsigned>(size.x), static_cast<unsigned>(size.y), static_cast<unsigned>(size.z)};
  };
  grid_size = index(grid);
  block_size = index(block);
  count_ = static_cast<int>(block.x * block.y * block.z);
  for (int i = 0; i < count_; ++i)
    threads_[static_cast<size_t>(i)].index = {.x = static_cast<unsigned>(i % block.x),
                                              .y = static_cast<unsigned>(i / block.x % block.y),
                                              .z = static_cast<unsigned>(i / block.x / block.y)};
  body_ = body;
  closure_ = closure;
  shared_bytes_ = shared_bytes;
  launch_site_ = at;
  host_ = host_context();
  stacks_.reserve(kRaceCheck ? 2 * count_ : count_);
  ++counts.launches;
  const int64_t num_blocks = grid.x * grid.y * grid.z;
  const BlockOrder order(schedule, num_blocks);
  for (int64_t i = only_last_block ? num_blocks - 1 : 0; i < num_blocks; ++i) run_block(only_last_block ? i : order(i));
  acquire_order(&end_order_);
}

}  // namespace

void set_schedule(const Schedule& schedule, bool math_noise) {
  const std::scoped_lock lock(launch().mutex);
  launch().schedule = schedule;
  launch().math_noise = math_noise;
}

Counts counts() {
  const std::scoped_lock lock(launch().mutex);
  return launch().counts;
}

void reset_counts() {
  const std::scoped_lock lock(launch().mutex);
  launch().counts = {};
}

void run_only_last_block(bool only) {
  const std::scoped_lock lock(launch().mutex);
  launch().only_last_block = only;
}

void run(const Size3& grid, const Size3& block, int64_t shared_bytes, void (*body)(const void*), const void* closure,
         const Site& at) {
  const std::scoped_lock lock(launch().mutex);
  launch().run(grid, block, shared_bytes, body, closure, at);
}

void sync_threads(const Site& at) { launch().sync_threads(at); }
Payload warp_operation(Operation operation, unsigned mask, Payload value, int source, int width, const Site& at) {
  return launch().warp_operation(operation, mask, value, source, width, at);
}
void* shared_array(const void* key, size_t bytes, const Site& at) { return launch().shared_array(key, bytes, at); }
void* dynamic_shared() { return launch().dynamic_shared(); }

namespace {

void check_alignment(const void* address, size_t bytes, const Site& at) {
  const size_t alignment = std::min<size_t>(bytes, 16);
  if (reinterpret_cast<uintptr_t>(address) % alignment != 0)
    launch().fault(at, "misaligned: an access of " + std::to_string(bytes) +
                           " bytes at an address that is no multiple of " + std::to_string(alignment));
}

}  // namespace

void count_load(const void* from, size_t bytes, const Site& at) {
  check_alignment(from, bytes, at);
  launch().counts.bytes_loaded += static_cast<int64_t>(bytes);
}

void count_store(const void* to, size_t bytes, const Site& at) {
  check_alignment(to, bytes, at);
  launch().counts.bytes_stored += static_cast<int64_t>(bytes);
}

float approximate(float result, float argument, float ulps) {
  if (!launch().math_noise || !std::isfinite(result) || result == 0.0f) return result;
  uint64_t mixed = (uint64_t{std::bit_cast<uint32_t>(argument)} << 32 | std::bit_cast<uint32_t>(result)) ^
                   launch().schedule.seed * 0x9e3779b97f4a7c15;
  mixed = (mixed ^ mixed >> 30) * 0xbf58476d1ce4e5b9;
  mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111eb;
  const double share = static_cast<double>(static_cast<int64_t>(mixed)) * 0x1p-63;  // in [-1, 1)
  const double ulp = std::ldexp(1.0, std::ilogb(result) - 23);
  return static_cast<float>(double{result} + share * double{ulps} * ulp);
}

}  // namespace coppice::executor
