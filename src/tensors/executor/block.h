// What the dialect's words do under the executor: the door between instrumented kernels and the executor, which no
// sanitizer of threads sees. Whoever calls these is a thread of the block that runs.
#pragma once

#include <cstdint>
#include <cstring>
#include <source_location>

namespace coppice::executor {

using Site = std::source_location;

struct Index3 {
  unsigned x = 0, y = 0, z = 0;
};

/// Extent of a grid or a block.
struct Size3 {
  Size3(int64_t x, int64_t y = 1, int64_t z = 1) : x(x), y(y), z(z) {}
  int64_t x, y, z;
};

/// Where the running thread stands; changed whenever another one goes on.
extern const Index3* thread_index;
extern Index3 block_index, block_size, grid_size;

enum class Operation {
  sync_warp,
  shuffle,
  shuffle_xor,
  shuffle_up,
  shuffle_down,
  ballot,
  reduce_add,
  reduce_and,
  reduce_or,
  reduce_xor,
  reduce_min,
  reduce_max,
  reduce_min_signed,
  reduce_max_signed,
};

/// What one lane hands to another.
struct Payload {
  uint64_t words[2] = {};
};

void sync_threads(const Site& at);
/// Waits for every lane of `mask` and gives the lane its result. `source`: the operand of a shuffle, in groups of
/// `width` lanes.
Payload warp_operation(Operation operation, unsigned mask, Payload value, int source, int width, const Site& at);

void* shared_array(const void* key, size_t bytes, const Site& at);
void* dynamic_shared();

/// Counts an access of `bytes` bytes, at a multiple of their number (of 16 where there are more).
void count_load(const void* from, size_t bytes, const Site& at);
void count_store(const void* to, size_t bytes, const Site& at);

/// `result` of a function whose documented error is `ulps` units in the last place, off by some of it where the
/// schedule asks for noise.
float approximate(float result, float argument, float ulps);

/// Runs body(closure) in every thread of every block. Throws Fault.
void run(const Size3& grid, const Size3& block, int64_t shared_bytes, void (*body)(const void*), const void* closure,
         const Site& at);

}  // namespace coppice::executor
